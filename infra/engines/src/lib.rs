//! Starts real Kafka, Cassandra and a schema registry on loopback, for tests and local work.
//!
//! Tests use [`shared`]. A set of engines has a directory with the settings, data and logs of every part,
//! and `engines.json` with the addresses. Any process that knows the directory can use the set, and stop
//! and start single parts.
//!
//! All calls block; in an async test, wrap those that wait in `spawn_blocking`. They are not async
//! because a set outlives the runtime of the test that started it.

mod error;

mod cassandra;
mod kafka;
mod registry;

mod owner;
mod packages;
mod ports;
mod process;
mod set;
mod tls;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use runtime::private_files;

pub use crate::cassandra::Cassandra;
pub use crate::error::Error;
pub use crate::kafka::Kafka;
pub use crate::registry::Registry;
pub use crate::tls::Secure;

use crate::owner::Owner;
use crate::set::Set;

/// The environment variable that names the directory of a running set.
pub const DIRECTORY_VARIABLE: &str = "ENGINES_DIR";

/// What a set consists of, and its directory.
#[derive(Clone, Debug)]
pub struct Options {
    /// Brokers: 1, or 3 with replication factor 3.
    pub brokers: u8,
    /// Whether Cassandra is part of it.
    pub cassandra: bool,
    /// Whether the schema registry is part of it.
    pub registry: bool,
    /// Whether Kafka also listens with TLS and SASL, and Cassandra accepts TLS and requires a password.
    pub secure: bool,
    /// The set's directory. A set that was in it before continues with its data. `None` is a temporary
    /// directory, which is removed at the end.
    pub dir: Option<PathBuf>,
}

impl Default for Options {
    /// Three brokers, Cassandra and the registry, in a temporary directory.
    fn default() -> Self {
        Self {
            brokers: 3,
            cassandra: true,
            registry: true,
            secure: false,
            dir: None,
        }
    }
}

/// A set of engines. They stop when the value that started them is dropped, or when its process ends for
/// any reason.
#[derive(Debug)]
pub struct Engines {
    dir: PathBuf,
    set: Set,
    /// The owner, if this value started the set; an attached set has its owner elsewhere.
    owner: Option<Owner>,
}

/// Fetches the programs of a set, if they are not there yet.
///
/// # Errors
/// Java or Maven is missing, or Maven Central cannot be reached.
pub fn fetch(options: &Options) -> Result<(), Error> {
    packages::install(options).map(drop)
}

/// The set for this process's tests: the one that `ENGINES_DIR` names if that is set (`engines
/// run` sets it), else a set of its own, started at the first call and stopped with the process.
///
/// # Panics
/// If the engines cannot be started or reached; the message has the remedy.
pub fn shared() -> &'static Engines {
    static SHARED: OnceLock<Engines> = OnceLock::new();
    SHARED.get_or_init(|| {
        let engines = match std::env::var_os(DIRECTORY_VARIABLE) {
            Some(dir) if !dir.is_empty() => Engines::attach(Path::new(&dir)),
            _ => Engines::start(&Options::default()),
        };
        engines.unwrap_or_else(|error| panic!("no engines to test against: {error}"))
    })
}

impl Engines {
    /// Starts a set, and returns when every part of it answers. Missing engines are fetched first, which
    /// takes about a minute the first time.
    ///
    /// # Errors
    /// Java or Maven is missing, the directory is in use or has another kind of set, or a part
    /// does not answer within five minutes.
    pub fn start(options: &Options) -> Result<Self, Error> {
        if !matches!(options.brokers, 1 | 3) {
            return Err(Error::Brokers(options.brokers));
        }
        let installed = packages::install(options)?;
        let dir = directory(options.dir.as_deref())?;
        let owner = Some(Owner::take(&dir, options.dir.is_none())?);
        let set = Set::make(&dir, options, installed)?;
        set.start()?;
        Ok(Self { dir, set, owner })
    }

    /// The set that runs in a directory, started by another process.
    ///
    /// # Errors
    /// No engine runs there.
    pub fn attach(dir: &Path) -> Result<Self, Error> {
        let none = || Error::NoSet {
            dir: dir.to_owned(),
        };
        let dir = dir.canonicalize().map_err(|_| none())?;
        let set = Set::load(&dir)?.ok_or_else(none)?;
        // A set with all parts stopped still exists, as long as it has an owner.
        if process::all(&dir).is_empty() && !owner::is_owned(&dir) {
            return Err(none());
        }
        Ok(Self {
            dir,
            set,
            owner: None,
        })
    }

    /// The set's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The brokers' addresses, comma-separated.
    pub fn kafka_brokers(&self) -> String {
        self.set.kafka.addresses()
    }

    /// The address of the CQL node.
    ///
    /// # Panics
    /// If the set was started without Cassandra.
    pub fn cql_node(&self) -> String {
        self.cassandra().address()
    }

    /// The address of the registry's Confluent-compatible API.
    ///
    /// # Panics
    /// If the set was started without a registry.
    pub fn registry_url(&self) -> String {
        self.registry().url()
    }

    /// How to reach Kafka with TLS and SASL (PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512), in a secure
    /// set.
    pub fn kafka_secure(&self) -> Option<Secure> {
        let kafka = &self.set.kafka;
        kafka
            .tls
            .as_ref()
            .map(|tls| tls.access(kafka.secure_addresses()))
    }

    /// How to reach Cassandra with TLS and a password, in a secure set.
    pub fn cql_secure(&self) -> Option<Secure> {
        let cassandra = self.set.cassandra.as_ref()?;
        cassandra
            .tls
            .as_ref()
            .map(|tls| tls.access(cassandra.address()))
    }

    /// The Kafka cluster, to stop and start brokers, and to run Kafka's tools.
    pub fn kafka(&self) -> &Kafka {
        &self.set.kafka
    }

    /// The Cassandra node, to stop and start it.
    ///
    /// # Panics
    /// If the set was started without Cassandra.
    pub fn cassandra(&self) -> &Cassandra {
        self.set
            .cassandra
            .as_ref()
            .expect("the set was started with Cassandra")
    }

    /// The schema registry, to stop and start it.
    ///
    /// # Panics
    /// If the set was started without a registry.
    pub fn registry(&self) -> &Registry {
        self.set
            .registry
            .as_ref()
            .expect("the set was started with a registry")
    }

    /// The product's settings for this set, as environment variables.
    pub fn settings(&self) -> Vec<(&'static str, String)> {
        let kafka = &self.set.kafka;
        let mut settings = vec![
            ("DOORBUSTER_KAFKA_BROKERS", kafka.addresses()),
            (
                "DOORBUSTER_KAFKA_REPLICATION",
                kafka.brokers.len().to_string(),
            ),
            (
                "DOORBUSTER_KAFKA_MIN_INSYNC",
                kafka.min_in_sync().to_string(),
            ),
        ];
        if let Some(cassandra) = &self.set.cassandra {
            settings.push(("DOORBUSTER_CQL_NODES", cassandra.address()));
            // There is one node.
            settings.push(("DOORBUSTER_CQL_REPLICATION", "1".to_owned()));
        }
        if let Some(registry) = &self.set.registry {
            settings.push(("DOORBUSTER_REGISTRY_URL", registry.url()));
        }
        settings
    }

    /// The status of every part of the set.
    pub fn status(&self) -> Vec<PartStatus> {
        let Set {
            kafka,
            cassandra,
            registry,
            ..
        } = &self.set;
        let part = |process: &process::Process, address, answer: std::io::Result<()>| PartStatus {
            name: process.name.clone(),
            address,
            pid: process.pid().map(|pid| pid.as_raw_pid()),
            problem: answer.err().map(|error| error.to_string()),
            log: process.log(),
        };
        let brokers = kafka.brokers.iter();
        let mut parts: Vec<_> = brokers
            .map(|broker| part(&broker.process, broker.address(), kafka.answers(broker)))
            .collect();
        parts.extend(
            cassandra.iter().map(|cassandra| {
                part(&cassandra.process, cassandra.address(), cassandra.answers())
            }),
        );
        parts.extend(
            registry
                .iter()
                .map(|registry| part(&registry.process, registry.url(), registry.answers())),
        );
        parts
    }

    /// Starts the parts that have ended, with their ports and data, and returns when they answer: those with
    /// these names, or all if there are none. Returns the names of those it started.
    ///
    /// # Errors
    /// The set has no part with such a name, or a part does not answer within five minutes.
    pub fn start_ended(&self, names: &[String]) -> Result<Vec<String>, Error> {
        let parts = self.status();
        let is_part = |name: &&String| parts.iter().any(|part| part.name == **name);
        if let Some(name) = names.iter().find(|name| !is_part(name)) {
            return Err(Error::NoPart {
                name: name.clone(),
                parts: parts.into_iter().map(|part| part.name).collect(),
            });
        }
        let has_ended = |part: &PartStatus| {
            part.pid.is_none() && (names.is_empty() || names.contains(&part.name))
        };
        let ended: Vec<String> = parts
            .into_iter()
            .filter(has_ended)
            .map(|part| part.name)
            .collect();
        let starts = |process: &process::Process| ended.contains(&process.name);
        let set = &self.set;
        let cassandra = set.cassandra.as_ref().filter(|it| starts(&it.process));
        let registry = set.registry.as_ref().filter(|it| starts(&it.process));
        let brokers = set.kafka.brokers.iter().filter(|it| starts(&it.process));
        let brokers: Vec<u8> = brokers.map(|broker| broker.number).collect();
        // All JVMs are started before any is waited for: one broker of three alone does not answer.
        cassandra.map_or(Ok(()), Cassandra::spawn)?;
        registry.map_or(Ok(()), Registry::spawn)?;
        brokers
            .iter()
            .try_for_each(|number| set.kafka.spawn(*number))?;
        if !brokers.is_empty() {
            set.kafka.wait(&brokers)?;
        }
        cassandra.map_or(Ok(()), Cassandra::wait)?;
        registry.map_or(Ok(()), Registry::wait)?;
        Ok(ended)
    }

    /// Keeps the engines running when this process ends. [`stop`](Self::stop) them later.
    pub fn detach(mut self) {
        if let Some(owner) = self.owner.take() {
            owner.detach();
        }
    }

    /// Stops all parts, and returns when they have ended. Parts that take longer than 20 s are killed.
    ///
    /// # Errors
    /// A process does not end.
    pub fn stop(self) -> Result<(), Error> {
        process::stop_all(&self.dir)
    }

    /// The process that started the set, as long as it owns it.
    pub fn owner(&self) -> Option<u32> {
        owner::is_owned(&self.dir).then_some(self.set.starter)
    }
}

/// The status of one part of a set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartStatus {
    /// Its name: `kafka-1`, `cassandra`, `registry`.
    pub name: String,
    /// Its address.
    pub address: String,
    /// Its process id while it runs.
    pub pid: Option<i32>,
    /// Why it does not answer; `None` if it does.
    pub problem: Option<String>,
    /// Its log file.
    pub log: PathBuf,
}

/// The canonical path of the set's directory, created if need be. Every part's processes are found by
/// it.
fn directory(dir: Option<&Path>) -> Result<PathBuf, Error> {
    let dir = match dir {
        Some(dir) => {
            private_files::create_directory(dir).map_err(Error::io("create", dir))?;
            dir.to_owned()
        }
        None => {
            let parent = std::env::temp_dir();
            let made = tempfile::Builder::new()
                .prefix("doorbuster-engines-")
                .permissions(Permissions::from_mode(private_files::DIRECTORY_MODE))
                .tempdir();
            // From here on the set's owner or its guard removes it.
            made.map_err(Error::io("write to", &parent))?.keep()
        }
    };
    dir.canonicalize().map_err(Error::io("find", &dir))
}
