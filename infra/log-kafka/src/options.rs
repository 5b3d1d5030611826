//! The options of a log, and librdkafka's settings for them.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

use crate::OpenError;

/// The options of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Contact points, each `host:port`, separated by commas.
    pub brokers: String,
    /// The prefix of the names of topics and consumer groups; may be empty.
    pub topic_prefix: String,
    /// Partitions of every topic, 1 to 1,024; fixed when the topics are created.
    pub partitions: u32,
    /// The least number of replicas of every partition.
    pub replication: u32,
    /// The least number of replicas that must have a record before it is acknowledged.
    pub min_insync: u32,
    /// The most records in flight to the brokers. One call may have more when none are in flight.
    pub queue_records: usize,
    /// The most bytes of records in flight to the brokers, and in one call. librdkafka has a copy of
    /// them and about 200 bytes more for each record.
    pub queue_bytes: usize,
    /// How long a record waits for its acknowledgement. After this it is not sent any more, and the call
    /// fails with an unknown outcome. At least a tenth of a second.
    pub append_timeout: Duration,
    /// After how long without a heartbeat the group assigns a member's partitions to others. The
    /// brokers limit it, by default to 6 seconds at least and 30 minutes at most.
    pub session_timeout: Duration,
    /// How connections are protected.
    pub security: Security,
}

/// How connections to the brokers are protected.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Security {
    /// Whether connections are encrypted, and whether they begin with a login.
    pub protocol: Protocol,
    /// PEM file of the authorities that issued the brokers' certificates; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate.
    pub cert_file: Option<PathBuf>,
    /// PEM file of the certificate's key.
    pub key_file: Option<PathBuf>,
    /// The key's password.
    pub key_password: Option<String>,
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    pub sasl_mechanism: Option<String>,
    /// The user to log in as.
    pub sasl_username: Option<String>,
    /// The user's password.
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

/// The longest interval of a group member's heartbeats.
const MAX_HEARTBEAT_MS: u128 = 1_000;

/// The SASL mechanisms of librdkafka that need no further software.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

impl Options {
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |what: String| Err(OpenError::Options(what));
        if self.brokers.trim().is_empty() {
            return refuse("no brokers are named; name at least one, as host:port".to_owned());
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
        if self.append_timeout < Duration::from_millis(100) {
            return refuse("the append timeout must be at least 100 ms".to_owned());
        }
        self.security.check().or_else(refuse)
    }

    /// The settings of all clients.
    pub(crate) fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", "doorbuster")
            .set("socket.nagle.disable", "true")
            .set("socket.keepalive.enable", "true")
            // After this a broker that hangs is abandoned, and another one is used.
            .set("socket.timeout.ms", "10000")
            .set("socket.connection.setup.timeout.ms", "5000")
            .set("reconnect.backoff.ms", "50")
            .set("reconnect.backoff.max.ms", "1000")
            .set("retry.backoff.ms", "20")
            .set("retry.backoff.max.ms", "500")
            .set("log.connection.close", "false")
            // Otherwise the level would depend on the global logger.
            .set_log_level(RDKafkaLogLevel::Info);
        self.security.apply(&mut config);
        config
    }

    /// The producer. Its queue never refuses, since the appender has bounds of its own.
    pub(crate) fn producer(&self) -> ClientConfig {
        let mut config = self.client();
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set(
                "message.timeout.ms",
                self.append_timeout.as_millis().to_string(),
            )
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", i32::MAX.to_string())
            // Records of this interval share a batch: many concurrent callers gain more by it
            // than a single one loses.
            .set("linger.ms", "0.5")
            .set("compression.type", "lz4");
        config
    }

    /// A consumer that reads partitions assigned by hand.
    pub(crate) fn reader(&self) -> ClientConfig {
        let mut config = self.client();
        config
            // librdkafka requires a group though none is joined.
            .set(
                "group.id",
                format!("{}doorbuster-readers", self.topic_prefix),
            )
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            // The reader handles offsets that the brokers do not have.
            .set("auto.offset.reset", "error")
            .set("check.crcs", "true")
            // A new reader waits at most this long for the answer of the fetch under way.
            .set("fetch.wait.max.ms", "20")
            .set("fetch.min.bytes", "1")
            .set("fetch.queue.backoff.ms", "1")
            // The limit of each partition, since each has a queue of its own.
            .set("queued.max.messages.kbytes", "4096");
        config
    }

    /// A member of a consumer group, which fetches nothing.
    pub(crate) fn member(&self, group: &str) -> ClientConfig {
        let mut config = self.client();
        let session = self.session_timeout.as_millis();
        // A member learns of a rebalance with a heartbeat, so with a long session a handover waits
        // for this interval.
        let heartbeat = (session / 5).clamp(1, MAX_HEARTBEAT_MS);
        config
            .set("group.id", group)
            .set("partition.assignment.strategy", "cooperative-sticky")
            .set("session.timeout.ms", session.to_string())
            .set("heartbeat.interval.ms", heartbeat.to_string())
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "latest")
            // How soon a topic is found that was unknown when the group rebalanced.
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
                // librdkafka's error for a file that it cannot read does not name the file.
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
