//! How the log is run, and what that means to librdkafka.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::OpenError;

/// How a log is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Brokers to ask first, each `host:port`, with commas in between.
    pub brokers: String,
    /// What the names of topics and consumer groups begin with; may be empty.
    pub topic_prefix: String,
    /// Partitions of every topic, 1 to 1,024; fixed when the topics are created.
    pub partitions: u32,
    /// Replicas of every partition, at least.
    pub replication: u32,
    /// Replicas that must have a record before it counts as written, at least.
    pub min_insync: u32,
    /// The most records that are on their way to the brokers. One call may bring more when
    /// none are.
    pub queue_records: usize,
    /// The most bytes of records that are on their way to the brokers, and the most that one
    /// call may bring. librdkafka has a copy of them and about 200 bytes more for each record.
    pub queue_bytes: usize,
    /// After how long without a sign of life the group gives a member's partitions to others.
    /// The brokers have bounds for it, 6 seconds and 30 minutes unless set otherwise.
    pub session_timeout: Duration,
    /// How connections are protected.
    pub security: Security,
}

/// How connections to the brokers are protected.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// Whether connections are encrypted, and whether they begin with a login.
    pub protocol: Protocol,
    /// Certificates that vouch for the brokers, PEM; the system's when none are given.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate, PEM.
    pub cert_file: Option<PathBuf>,
    /// The certificate's key, PEM.
    pub key_file: Option<PathBuf>,
    /// The key's password.
    pub key_password: Option<String>,
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    pub sasl_mechanism: Option<String>,
    /// Who logs in.
    pub sasl_username: Option<String>,
    /// The password for it.
    pub sasl_password: Option<String>,
}

/// Whether connections are encrypted, and whether they begin with a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// Neither.
    #[default]
    Plaintext,
    /// Encrypted.
    Ssl,
    /// With a login.
    SaslPlaintext,
    /// Both.
    SaslSsl,
}

/// The longest time between two signs of life of a group's member.
const MAX_HEARTBEAT_MS: u128 = 1_000;

/// The logins that librdkafka knows and that need no further software.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

impl Options {
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |what: String| Err(OpenError::Options(what));
        if self.brokers.trim().is_empty() {
            return refuse("no brokers are named".to_owned());
        }
        if !(1..=1024).contains(&self.partitions) {
            let found = self.partitions;
            return refuse(format!("partitions is {found}, but must be 1 to 1024"));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        if self.topic_prefix.len() > 200 || !self.topic_prefix.chars().all(fits) {
            return refuse(format!(
                "the topic prefix is {:?}, but may have at most 200 ASCII letters, digits, '.', \
                 '_' and '-'",
                self.topic_prefix
            ));
        }
        let (min_insync, replication) = (self.min_insync, self.replication);
        if min_insync == 0 || min_insync > replication || replication > i16::MAX as u32 {
            return refuse(format!(
                "min_insync is {min_insync} and replication {replication}, but min_insync must \
                 be at least 1 and at most the replication"
            ));
        }
        if self.queue_records == 0 {
            return refuse("queue_records must be at least 1".to_owned());
        }
        self.security.check().or_else(refuse)
    }

    /// What all clients have in common.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "doorbuster")
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true")
            // A broker that hangs is given up after this, and others are asked.
            .set("socket.timeout.ms", "10000")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("retry.backoff.ms", "20")
            .set("retry.backoff.max.ms", "500")
            .set("log.connection.close", "false")
            // Otherwise it depends on a global logger that is not ours.
            .set_log_level(RDKafkaLogLevel::Info);
        self.security.apply(&mut config);
        config
    }

    /// The producer. Its queue never refuses, since our own bound stands before it.
    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", crate::append::TIMEOUT_MS)
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", i32::MAX.to_string())
            // What comes in so short a time goes together: many who append at once gain more
            // by it than one who appends alone loses.
            .set("linger.ms", "0.5")
            .set("compression.type", "lz4");
        config
    }

    /// A consumer that reads the partitions it is told to.
    pub(crate) fn reader(&self) -> ClientConfig {
        let mut config = self.client();
        config
            // librdkafka asks for a group though none is joined.
            .set(
                "group.id",
                format!("{}doorbuster-readers", self.topic_prefix),
            )
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // What to do at an offset that is not there is for the reader to find out.
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            // A new reader is served when the fetch under way is answered, after this at most.
            .set("fetch.wait.max.ms", "20")
            .set("fetch.min.bytes", "1")
            .set("fetch.queue.backoff.ms", "1")
            // For each partition, since each has a queue of its own.
            .set("queued.max.messages.kbytes", "4096");
        config
    }

    /// A group's member, which fetches nothing.
    pub(crate) fn member(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        let session = self.session_timeout.as_millis();
        // A member learns with a heartbeat that partitions are to be shared anew, so with a long
        // session this is what a handover waits for.
        let heartbeat = (session / 5).clamp(1, MAX_HEARTBEAT_MS);
        config
            .set("group.id", group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", session.to_string())
            .set("heartbeat.interval.ms", heartbeat.to_string())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "latest")
            // A topic that was not known when the group shared its partitions is found so soon.
            .set("topic.metadata.refresh.interval.ms", "10000")
            .set("queued.max.messages.kbytes", "1024");
        if session > 300_000 {
            config.set("max.poll.interval.ms", session.to_string());
        }
        config
    }
}

impl Security {
    fn check(&self) -> Result<(), String> {
        if [Protocol::Ssl, Protocol::SaslSsl].contains(&self.protocol) {
            let files = [&self.ca_file, &self.cert_file, &self.key_file];
            for file in files.into_iter().flatten() {
                // What librdkafka says of a file it cannot read does not name it.
                let read = std::fs::File::open(file);
                read.map_err(|error| format!("{}: {error}", file.display()))?;
            }
        }
        let sasl = [Protocol::SaslPlaintext, Protocol::SaslSsl].contains(&self.protocol);
        if !sasl {
            return Ok(());
        }
        let mechanism = self.sasl_mechanism.as_deref().unwrap_or("");
        if !MECHANISMS.contains(&mechanism) {
            return Err(format!(
                "the SASL mechanism is {mechanism:?}, but must be one of {}",
                MECHANISMS.join(", ")
            ));
        }
        if self.sasl_username.is_none() || self.sasl_password.is_none() {
            return Err("a login needs a SASL username and password".to_owned());
        }
        Ok(())
    }

    fn apply(&self, config: &mut ClientConfig) {
        let (name, tls, sasl) = match self.protocol {
            Protocol::Plaintext => ("plaintext", false, false),
            Protocol::Ssl => ("ssl", true, false),
            Protocol::SaslPlaintext => ("sasl_plaintext", false, true),
            Protocol::SaslSsl => ("sasl_ssl", true, true),
        };
        config.set("security.protocol", name);
        let mut set = |used: bool, name: &str, value: Option<String>| {
            if let Some(value) = value.filter(|_| used) {
                config.set(name, value);
            }
        };
        let path = |file: &Option<PathBuf>| file.as_ref().map(|f| f.display().to_string());
        set(tls, "ssl.ca.location", path(&self.ca_file));
        set(tls, "ssl.certificate.location", path(&self.cert_file));
        set(tls, "ssl.key.location", path(&self.key_file));
        set(tls, "ssl.key.password", self.key_password.clone());
        set(sasl, "sasl.mechanism", self.sasl_mechanism.clone());
        set(sasl, "sasl.username", self.sasl_username.clone());
        set(sasl, "sasl.password", self.sasl_password.clone());
    }
}

impl fmt::Debug for Security {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let hidden = |secret: &Option<String>| secret.as_ref().map(|_| "hidden");
        f.debug_struct("Security")
            .field("protocol", &self.protocol)
            .field("ca_file", &self.ca_file)
            .field("cert_file", &self.cert_file)
            .field("key_file", &self.key_file)
            .field("key_password", &hidden(&self.key_password))
            .field("sasl_mechanism", &self.sasl_mechanism)
            .field("sasl_username", &self.sasl_username)
            .field("sasl_password", &hidden(&self.sasl_password))
            .finish()
    }
}
