//! The systems under comparison, and how they are started.

use engines::Engines;
use log_kafka::topic_name;
use rivals::{Engine, Persistence, with_children};
use rustix::process::Pid;
use schemas::topics::Topic;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::task::block_in_place;

use super::workloads::Workload;
use crate::kafka::{Services, Site};
use crate::load::Endpoints;
use crate::server::{Server, program};

/// Partitions on Kafka: as many as the embedded log has.
const PARTITIONS: u32 = 8;

/// A system under comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum System {
    RedisOff,
    RedisAlways,
    PostgresRow,
    PostgresSlots,
    Embedded,
    KafkaAppend,
    Kafka,
}

impl System {
    /// Those that need no Kafka.
    pub const ALONE: [Self; 5] = [
        Self::RedisOff,
        Self::RedisAlways,
        Self::PostgresRow,
        Self::PostgresSlots,
        Self::Embedded,
    ];
    pub const POOLED: [Self; 2] = [Self::PostgresRow, Self::PostgresSlots];
    pub const ON_KAFKA: [Self; 2] = [Self::KafkaAppend, Self::Kafka];

    pub fn title(self) -> &'static str {
        match self {
            Self::RedisOff => "Redis + Lua, no persistence",
            Self::RedisAlways => "Redis + Lua, appendfsync always",
            Self::PostgresRow => "PostgreSQL, hot row",
            Self::PostgresSlots => "PostgreSQL, SKIP LOCKED",
            Self::Embedded => "Doorbuster, embedded",
            Self::KafkaAppend => "bare front end, only appends to Kafka",
            Self::Kafka => "Doorbuster, Kafka",
        }
    }

    pub fn all() -> impl Iterator<Item = Self> {
        Self::ALONE.into_iter().chain(Self::ON_KAFKA)
    }

    /// Whether it decides on attempts.
    pub fn decides(self) -> bool {
        self != Self::KafkaAppend
    }

    /// A system that only appends does the same for every workload.
    pub fn runs(self, workload: Workload) -> bool {
        self.decides() || workload == Workload::Hot
    }
}

/// A system's data: it can be started on it again.
pub struct Place<'a> {
    system: System,
    data: TempDir,
    kafka: Option<(&'a Engines, Site)>,
    pool: u32,
}

impl<'a> Place<'a> {
    /// An empty one. `pool` is the number of connections of a system that needs several.
    pub fn new(system: System, engines: Option<&'a Engines>, pool: u32) -> anyhow::Result<Self> {
        Ok(Self {
            system,
            data: tempfile::tempdir()?,
            kafka: engines.map(|engines| (engines, Site::new(engines, PARTITIONS))),
            pool,
        })
    }

    /// Starts the system, and returns once it accepts orders.
    pub async fn start(&self) -> anyhow::Result<Running<'_>> {
        let dir = self.data.path();
        let alone = |server, engine| Running {
            servers: Servers::One(Box::new(server)),
            engine,
            engines: None,
        };
        match self.system {
            System::Embedded => Ok(alone(Server::doorbuster(dir).await?, None)),
            System::RedisOff | System::RedisAlways => {
                let persistence = match self.system {
                    System::RedisOff => Persistence::Off,
                    _ => Persistence::Always,
                };
                let engine = Engine::redis(dir, persistence).await?;
                let server = rival(&["redis", engine.address()]).await?;
                Ok(alone(server, Some(engine)))
            }
            System::PostgresRow | System::PostgresSlots => {
                let take = match self.system {
                    System::PostgresRow => "row",
                    _ => "slots",
                };
                let engine = Engine::postgres(dir).await?;
                let pool = self.pool.to_string();
                let server = rival(&["postgres", engine.address(), take, &pool]).await?;
                Ok(alone(server, Some(engine)))
            }
            System::KafkaAppend | System::Kafka => self.start_on_kafka().await,
        }
    }

    async fn start_on_kafka(&self) -> anyhow::Result<Running<'_>> {
        let (engines, site) = self.kafka.as_ref().expect("Kafka is there for those on it");
        block_in_place(|| engines.kafka().start(1))?;
        let servers = match self.system {
            System::Kafka => Servers::Product(Box::new(Services::start(site).await?)),
            _ => {
                // Opening the log makes its topics.
                site.log().await?.close().await;
                let topic = topic_name(&site.topic_prefix, Topic::PurchaseAttempts);
                let partitions = PARTITIONS.to_string();
                Servers::One(Box::new(
                    rival(&["kafka", &site.brokers, &topic, &partitions]).await?,
                ))
            }
        };
        Ok(Running {
            servers,
            engine: None,
            engines: Some(*engines),
        })
    }
}

async fn rival(arguments: &[&str]) -> anyhow::Result<Server> {
    let mut command = Command::new(program("rival")?);
    command.args(arguments);
    Server::start(command).await
}

/// A running system. All its processes are killed when this is dropped.
pub struct Running<'a> {
    servers: Servers,
    engine: Option<Engine>,
    engines: Option<&'a Engines>,
}

enum Servers {
    One(Box<Server>),
    Product(Box<Services>),
}

impl Running<'_> {
    pub fn endpoints(&self) -> Endpoints {
        match &self.servers {
            Servers::One(server) => server.address.into(),
            Servers::Product(services) => services.endpoints(),
        }
    }

    /// All its processes with their kind, including those of its engines.
    pub fn processes(&self) -> Vec<(String, Pid)> {
        let servers = match &self.servers {
            Servers::One(server) => vec![("server", &**server)],
            Servers::Product(services) => services.all().to_vec(),
        };
        let servers = servers.into_iter();
        let mut all: Vec<_> = servers
            .filter_map(|(name, server)| Some((name.to_owned(), server.pid()?)))
            .collect();
        let engine = self.engine.as_ref().and_then(Engine::pid);
        let engine = engine.into_iter().flat_map(with_children);
        all.extend(engine.map(|pid| ("engine".to_owned(), pid)));
        let parts = self.engines.into_iter().flat_map(Engines::status);
        all.extend(parts.filter_map(|part| Some((part.name, Pid::from_raw(part.pid?)?))));
        all
    }

    /// Stops it in order; shared engines keep running.
    pub async fn stop(self) -> anyhow::Result<()> {
        match self.servers {
            Servers::One(server) => server.stop().await?,
            Servers::Product(services) => services.stop().await?,
        }
        match self.engine {
            Some(engine) => engine.stop().await,
            None => Ok(()),
        }
    }

    /// Kills its processes and those of the engine that keeps its attempts.
    pub async fn kill(self) -> anyhow::Result<()> {
        match self.servers {
            Servers::One(server) => server.kill().await?,
            Servers::Product(services) => services.kill().await?,
        }
        if let Some(engine) = self.engine {
            engine.kill().await?;
        }
        if let Some(engines) = self.engines {
            block_in_place(|| engines.kafka().kill(1))?;
        }
        Ok(())
    }
}
