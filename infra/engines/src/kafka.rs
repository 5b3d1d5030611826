//! Apache Kafka: one broker, or three, of which any one may fail.

mod metadata;

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use serde::{Deserialize, Serialize};

use self::metadata::listed_brokers;
use crate::packages::last_lines;
use crate::process::Process;
use crate::tls::Tls;
use crate::{Error, ports};

/// The Kafka cluster of a set. Brokers have the numbers 1 to 3, or 1 alone.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kafka {
    java: PathBuf,
    jars: PathBuf,
    cluster_id: String,
    pub(crate) brokers: Vec<Broker>,
    pub(crate) tls: Option<Tls>,
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Broker {
    /// Numbered from 1.
    pub number: u8,
    pub process: Process,
    port: u16,
    controller_port: u16,
    secure_port: Option<u16>,
}

impl Kafka {
    pub(crate) fn new(
        set: &Path,
        brokers: u8,
        java: &Path,
        jars: PathBuf,
        tls: Option<Tls>,
    ) -> Self {
        let broker = |number| Broker {
            number,
            process: Process::new(set, format!("kafka-{number}")),
            port: ports::free(),
            controller_port: ports::free(),
            secure_port: tls.as_ref().map(|_| ports::free()),
        };
        let brokers = (1..=brokers).map(broker).collect();
        Self {
            java: java.to_owned(),
            jars,
            cluster_id: cluster_id(),
            brokers,
            tls,
        }
    }

    /// Continues as the cluster that was here before, on its ports where they are still free.
    pub(crate) fn continue_as(&mut self, before: Self) {
        self.cluster_id = before.cluster_id;
        self.brokers = before.brokers;
        for broker in &mut self.brokers {
            broker.port = ports::this_or_free(broker.port);
            broker.controller_port = ports::this_or_free(broker.controller_port);
            broker.secure_port = broker.secure_port.map(ports::this_or_free);
        }
    }

    /// Kills a broker (SIGKILL), and returns when it has ended.
    ///
    /// # Errors
    /// The set has no such broker.
    pub fn kill(&self, number: u8) -> Result<(), Error> {
        self.broker(number)?.process.kill()
    }

    /// Starts a broker that was killed, with its port and data, and waits until all running
    /// brokers answer and know each other. A broker that runs is only waited for.
    ///
    /// Of three brokers two must run for any to answer.
    ///
    /// # Errors
    /// The set has no such broker, or it does not answer within five minutes.
    pub fn start(&self, number: u8) -> Result<(), Error> {
        self.spawn(number)?;
        self.wait(&[number])
    }

    pub(crate) fn spawn(&self, number: u8) -> Result<(), Error> {
        let broker = self.broker(number)?;
        broker.process.spawn(&self.java, self.arguments(broker))
    }

    /// Waits until all running brokers answer and know each other, those among them that were just started.
    pub(crate) fn wait(&self, started: &[u8]) -> Result<(), Error> {
        let running =
            |broker: &&Broker| started.contains(&broker.number) || broker.process.pid().is_some();
        self.wait_for(self.brokers.iter().filter(running))
    }

    /// Kills all brokers at once, starts them again, and waits until they answer and know each
    /// other.
    ///
    /// # Errors
    /// One does not answer within five minutes.
    pub fn restart_all(&self) -> Result<(), Error> {
        self.brokers
            .iter()
            .try_for_each(|broker| broker.process.kill())?;
        self.start_all()
    }

    /// One of Kafka's own tools, ready to run: its main class, and its arguments, such as
    /// `org.apache.kafka.tools.TopicCommand`, `org.apache.kafka.tools.ConsoleProducer`,
    /// `org.apache.kafka.tools.consumer.ConsoleConsumer` or
    /// `org.apache.kafka.tools.consumer.group.ConsumerGroupCommand`.
    pub fn tool(&self, main_class: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.java);
        command
            // It runs for a second or two, so optimisation and many threads do not pay off.
            .args(["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-Xmx256m"])
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            .arg("-cp")
            .arg(self.jars.join("*"))
            .arg(main_class)
            .args(arguments);
        command
    }

    /// The brokers' addresses, comma-separated.
    pub(crate) fn addresses(&self) -> String {
        list(self.brokers.iter().map(|broker| broker.port))
    }

    /// The brokers' addresses for TLS and passwords, comma-separated.
    pub(crate) fn secure_addresses(&self) -> String {
        list(self.brokers.iter().filter_map(|broker| broker.secure_port))
    }

    /// Writes the brokers' settings, and formats their data directories the first time.
    pub(crate) fn prepare(&self) -> Result<(), Error> {
        let mut formatting = Vec::new();
        for broker in &self.brokers {
            let dir = &broker.process.dir;
            fs::create_dir_all(dir).map_err(Error::io("create", dir))?;
            let properties = broker.properties();
            let text = self.properties(broker);
            fs::write(&properties, text).map_err(Error::io("write", &properties))?;
            if broker.data().join("meta.properties").exists() {
                continue;
            }
            let properties = properties.display().to_string();
            let cluster = self.cluster_id.as_str();
            let mut arguments = vec!["format", "-t", cluster, "-c", &properties];
            let scram;
            if let Some(tls) = &self.tls {
                let (user, password) = (&tls.user, &tls.password);
                scram = ["SCRAM-SHA-256", "SCRAM-SHA-512"]
                    .map(|name| format!("{name}=[name={user},password={password}]"));
                arguments.extend(scram.iter().flat_map(|scram| ["--add-scram", scram]));
            }
            let mut tool = self.tool("kafka.tools.StorageTool", &arguments);
            tool.stdout(Stdio::piped()).stderr(Stdio::piped());
            formatting.push(tool.spawn().map_err(Error::io("run", &self.java))?);
        }
        // Formatted concurrently, since most of the time is the start of a JVM.
        for tool in formatting {
            let output = tool
                .wait_with_output()
                .map_err(Error::io("run", &self.java))?;
            if !output.status.success() {
                let text = [output.stdout, output.stderr].concat();
                let output = last_lines(&String::from_utf8_lossy(&text), 25);
                let what = "formatting a broker's data directory".to_owned();
                return Err(Error::Tool { what, output });
            }
        }
        Ok(())
    }

    /// Starts all brokers at the same time, and waits until they answer and know each other.
    pub(crate) fn start_all(&self) -> Result<(), Error> {
        for broker in &self.brokers {
            broker.process.spawn(&self.java, self.arguments(broker))?;
        }
        self.wait_for(&self.brokers)
    }

    fn wait_for<'a>(&self, brokers: impl IntoIterator<Item = &'a Broker>) -> Result<(), Error> {
        let mut brokers = brokers.into_iter();
        brokers.try_for_each(|broker| broker.process.wait_until(|| self.answers(broker)))
    }

    /// Whether a broker answers and lists all running brokers, itself among them.
    pub(crate) fn answers(&self, broker: &Broker) -> io::Result<()> {
        let listed = listed_brokers(broker.port)?;
        let missing = |other: &&Broker| {
            other.process.pid().is_some() && !listed.contains(&other.number.into())
        };
        match self.brokers.iter().find(missing) {
            Some(Broker { number, .. }) => Err(io::Error::other(format!(
                "it answers, but does not know broker {number} yet"
            ))),
            None => Ok(()),
        }
    }

    fn broker(&self, number: u8) -> Result<&Broker, Error> {
        let index = usize::from(number).checked_sub(1);
        let brokers = self.brokers.len();
        let broker = index.and_then(|index| self.brokers.get(index));
        broker.ok_or(Error::NoBroker { number, brokers })
    }

    fn arguments(&self, broker: &Broker) -> Vec<String> {
        let heap = if self.brokers.len() == 1 {
            "-Xmx1g"
        } else {
            "-Xmx512m"
        };
        vec![
            heap.to_owned(),
            "-XX:+UseG1GC".to_owned(),
            "-Dorg.slf4j.simpleLogger.showDateTime=true".to_owned(),
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSZ".to_owned(),
            "-cp".to_owned(),
            self.jars.join("*").display().to_string(),
            "kafka.Kafka".to_owned(),
            broker.properties().display().to_string(),
        ]
    }

    /// The broker's settings. Every broker is a controller as well. With three, any one may fail, and
    /// after about three seconds the others have a leader for every partition. A broker that starts on a
    /// busy machine waits for the others as long as [`Process::wait_until`] does.
    fn properties(&self, broker: &Broker) -> String {
        let count = self.brokers.len();
        let in_sync = self.min_in_sync();
        let Broker {
            number,
            port,
            controller_port,
            ..
        } = broker;
        let voter =
            |voter: &Broker| format!("{}@127.0.0.1:{}", voter.number, voter.controller_port);
        let voters = Vec::from_iter(self.brokers.iter().map(voter)).join(",");
        let mut listeners = format!("PLAINTEXT://127.0.0.1:{port}");
        let mut secure = String::new();
        if let (Some(port), Some(tls)) = (broker.secure_port, &self.tls) {
            // Writing to a String cannot fail.
            let _ = write!(listeners, ",SASL_SSL://127.0.0.1:{port}");
            secure = tls.kafka_properties();
        }
        format!(
            "\
process.roles=broker,controller
node.id={number}
controller.quorum.voters={voters}
controller.listener.names=CONTROLLER
listeners={listeners},CONTROLLER://127.0.0.1:{controller_port}
advertised.listeners={listeners}
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL
inter.broker.listener.name=PLAINTEXT
log.dirs={data}
auto.create.topics.enable=false
default.replication.factor={count}
min.insync.replicas={in_sync}
unclean.leader.election.enable=false
offsets.topic.replication.factor={count}
offsets.topic.num.partitions=8
transaction.state.log.replication.factor={count}
transaction.state.log.min.isr={in_sync}
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor={count}
share.coordinator.state.topic.min.isr={in_sync}
group.initial.rebalance.delay.ms=0
broker.session.timeout.ms=6000
broker.heartbeat.interval.ms=500
initial.broker.registration.timeout.ms=300000
{secure}",
            data = broker.data().display(),
        )
    }

    /// The number of replicas that must have a record before it is acknowledged.
    pub(crate) fn min_in_sync(&self) -> usize {
        self.brokers.len().div_ceil(2)
    }
}

impl Broker {
    /// Its address.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn properties(&self) -> PathBuf {
        self.process.dir.join("server.properties")
    }

    fn data(&self) -> PathBuf {
        self.process.dir.join("data")
    }
}

fn list(ports: impl Iterator<Item = u16>) -> String {
    Vec::from_iter(ports.map(|port| format!("127.0.0.1:{port}"))).join(",")
}

/// A cluster id as Kafka requires it: 22 characters of base64, different for every cluster.
fn cluster_id() -> String {
    let since = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    format!("doorbuster{:011}A", since.as_micros() % 100_000_000_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_ids_have_the_length_that_kafka_requires() {
        assert_eq!(cluster_id().len(), 22);
    }
}
