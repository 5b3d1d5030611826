//! Settings of Kafka and of the schema registry beside it.

use std::path::PathBuf;
use std::time::Duration;

use super::format::{Format, choice, file, hosts, milliseconds, number, password, text};
use super::secrets::Secret;
use super::service::{ON_KAFKA, Service};
use super::source::{Setting, Source};

/// How Kafka is reached, and how its topics are kept.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// The brokers that are contacted first, each HOST:PORT.
    pub brokers: Vec<String>,
    /// The prefix of the names of topics, consumer groups and subjects.
    pub topic_prefix: String,
    /// Replicas of every partition.
    pub replication: u32,
    /// Replicas that must have a record before it is acknowledged; at most `replication`.
    pub min_insync: u32,
    /// How long a record waits for its acknowledgement before it is given up.
    pub append_timeout: Duration,
    /// How long a silent member of a consumer group keeps its partitions.
    pub session_timeout: Duration,
    /// How connections are protected.
    pub protocol: KafkaProtocol,
    /// The certificates that vouch for the brokers; none: those of the system.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate.
    pub cert_file: Option<PathBuf>,
    /// The key of the client's certificate.
    pub key_file: Option<PathBuf>,
    /// The password of that key.
    pub key_password: Option<Secret>,
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    pub sasl_mechanism: String,
    /// The user name; given if the protocol has a login.
    pub sasl_username: Option<String>,
    /// The user's password; given if the protocol has a login.
    pub sasl_password: Option<Secret>,
}

/// How connections to the brokers are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaProtocol {
    /// Neither encrypted nor with a login.
    Plaintext,
    /// Encrypted.
    Ssl,
    /// With a login.
    SaslPlaintext,
    /// Encrypted and with a login.
    SaslSsl,
}

/// How the schema registry is reached.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// The address of its Confluent-compatible API, without a slash at the end.
    pub url: String,
    /// The user name.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
}

impl KafkaSettings {
    pub(super) fn read(source: &mut Source) -> Self {
        let settings = Self {
            brokers: source.read(Setting {
                name: "kafka_brokers",
                used_by: ON_KAFKA,
                default: "127.0.0.1:9092",
                help: "Brokers to contact first; they name the others",
                format: hosts(),
            }),
            topic_prefix: source.read(Setting {
                name: "kafka_topic_prefix",
                used_by: ON_KAFKA,
                default: "",
                help: "Prefix of the names of topics, consumer groups and subjects",
                format: topic_prefix(),
            }),
            replication: source.read(Setting {
                name: "kafka_replication",
                used_by: ON_KAFKA,
                default: "3",
                help: "Replicas of every partition; topics are created with this many, and refused \
                       with fewer",
                format: number(1..=100),
            }),
            min_insync: source.read(Setting {
                name: "kafka_min_insync",
                used_by: ON_KAFKA,
                default: "2",
                help: "Replicas that must have a record before it is acknowledged",
                format: number(1..=100),
            }),
            append_timeout: source.read(Setting {
                name: "kafka_append_timeout_ms",
                used_by: &[Service::CommandApi, Service::Decider],
                default: "8000",
                help: "How long a record waits for its acknowledgement before it is given up and not \
                       sent any more; for a command-api no longer than four fifths of \
                       request_timeout_ms, so that no order outlives its request",
                format: milliseconds(1_000..=300_000),
            }),
            session_timeout: source.read(Setting {
                name: "kafka_session_timeout_ms",
                used_by: &[Service::Decider, Service::Projector],
                default: "6000",
                help: "How long a silent member of a consumer group keeps its partitions",
                format: milliseconds(1_000..=300_000),
            }),
            protocol: source.read(Setting {
                name: "kafka_protocol",
                used_by: ON_KAFKA,
                default: "plaintext",
                help: "How connections to the brokers are protected",
                format: choice(PROTOCOLS).in_any_case(),
            }),
            ca_file: source.read(Setting {
                name: "kafka_ca_file",
                used_by: ON_KAFKA,
                default: "",
                help: "Certificates (PEM) that vouch for the brokers; those of the system when empty",
                format: file().optional(),
            }),
            cert_file: source.read(Setting {
                name: "kafka_cert_file",
                used_by: ON_KAFKA,
                default: "",
                help: "This client's certificate (PEM), if the brokers require one",
                format: file().optional(),
            }),
            key_file: source.read(Setting {
                name: "kafka_key_file",
                used_by: ON_KAFKA,
                default: "",
                help: "Key (PEM) of this client's certificate",
                format: file().optional(),
            }),
            key_password: source.read(Setting {
                name: "kafka_key_password",
                used_by: ON_KAFKA,
                default: "",
                help: "Password of that key",
                format: password().optional(),
            }),
            sasl_mechanism: source.read(Setting {
                name: "kafka_sasl_mechanism",
                used_by: ON_KAFKA,
                default: "SCRAM-SHA-512",
                help: "How this client logs in to the brokers",
                format: choice(SASL_MECHANISMS),
            })
            .to_owned(),
            sasl_username: source.read(Setting {
                name: "kafka_sasl_username",
                used_by: ON_KAFKA,
                default: "",
                help: "User name for the brokers",
                format: text("NAME").optional(),
            }),
            sasl_password: source.read(Setting {
                name: "kafka_sasl_password",
                used_by: ON_KAFKA,
                default: "",
                help: "Password of that user",
                format: password().optional(),
            }),
        };
        if settings.min_insync > settings.replication {
            source.mistake("kafka_min_insync must be no more than kafka_replication");
        }
        if settings.protocol.has_login()
            && (settings.sasl_username.is_none() || settings.sasl_password.is_none())
        {
            source.mistake(
                "kafka_sasl_username and kafka_sasl_password must be given with this \
                 kafka_protocol",
            );
        }
        settings
    }
}

impl KafkaProtocol {
    fn has_login(self) -> bool {
        matches!(self, Self::SaslPlaintext | Self::SaslSsl)
    }
}

impl RegistrySettings {
    pub(super) fn read(source: &mut Source) -> Self {
        Self {
            url: source.read(Setting {
                name: "registry_url",
                used_by: ON_KAFKA,
                default: "http://127.0.0.1:8085",
                help: "Schema registry with a Confluent-compatible API",
                format: url(),
            }),
            username: source.read(Setting {
                name: "registry_username",
                used_by: ON_KAFKA,
                default: "",
                help: "User name for the registry",
                format: text("NAME").optional(),
            }),
            password: source.read(Setting {
                name: "registry_password",
                used_by: ON_KAFKA,
                default: "",
                help: "Password of that user",
                format: password().optional(),
            }),
        }
    }
}

const PROTOCOLS: &[(&str, KafkaProtocol)] = &[
    ("plaintext", KafkaProtocol::Plaintext),
    ("ssl", KafkaProtocol::Ssl),
    ("sasl_plaintext", KafkaProtocol::SaslPlaintext),
    ("sasl_ssl", KafkaProtocol::SaslSsl),
];

const SASL_MECHANISMS: &[(&str, &str)] = &[
    ("PLAIN", "PLAIN"),
    ("SCRAM-SHA-256", "SCRAM-SHA-256"),
    ("SCRAM-SHA-512", "SCRAM-SHA-512"),
];

/// A prefix that may stand in the name of a topic.
fn topic_prefix() -> Format<String> {
    let expected = "at most 64 ASCII letters, digits, '.', '_' and '-'";
    Format::new("TEXT", expected, |text| {
        let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
        (text.len() <= 64 && text.chars().all(fits)).then(|| text.to_owned())
    })
}

/// The address of an HTTP API. Only its beginning and its characters are checked; whether it can
/// be reached shows when it is used.
fn url() -> Format<String> {
    Format::new("URL", "an address such as http://127.0.0.1:8085", |text| {
        let rest = text
            .strip_prefix("http://")
            .or_else(|| text.strip_prefix("https://"))?;
        let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
        let may_stand = |c: char| c.is_ascii_graphic() && !"\"<>\\^`{|}".contains(c);
        (!host.is_empty() && rest.chars().all(may_stand))
            .then(|| text.trim_end_matches('/').to_owned())
    })
}
