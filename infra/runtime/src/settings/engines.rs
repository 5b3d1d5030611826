//! Settings of the engines that services running alone share.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::source::Source;
use super::{optional, parse, whole};

/// A text that is not shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Where the logs are.
#[derive(Debug, Clone)]
pub struct KafkaSettings {
    /// Brokers to ask first, each HOST:PORT.
    pub brokers: Vec<String>,
    /// What the names of topics, groups and subjects begin with.
    pub topic_prefix: String,
    /// Replicas of every partition.
    pub replication: u32,
    /// Replicas that must have a record before it counts as written.
    pub min_insync: u32,
    /// How long a silent member keeps its partitions.
    pub session_timeout: Duration,
    /// How connections are protected.
    pub protocol: KafkaProtocol,
    /// Certificates that vouch for the brokers.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate.
    pub cert_file: Option<PathBuf>,
    /// The certificate's key.
    pub key_file: Option<PathBuf>,
    /// The key's password.
    pub key_password: Option<Secret>,
    /// PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
    pub sasl_mechanism: String,
    /// Who logs in.
    pub sasl_username: Option<String>,
    /// The password for it.
    pub sasl_password: Option<Secret>,
}

/// How connections to the brokers are protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaProtocol {
    /// Not at all.
    Plaintext,
    /// Encrypted.
    Ssl,
    /// By a login.
    SaslPlaintext,
    /// Encrypted, and by a login.
    SaslSsl,
}

/// Where the read models are.
#[derive(Debug, Clone)]
pub struct CqlSettings {
    /// Nodes to ask first, each HOST:PORT.
    pub nodes: Vec<String>,
    /// The keyspace.
    pub keyspace: String,
    /// The nearest datacenter.
    pub datacenter: Option<String>,
    /// Replicas of every row of a keyspace that is created.
    pub replication: u32,
    /// Who logs in.
    pub username: Option<String>,
    /// The password for it.
    pub password: Option<Secret>,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// Certificates that vouch for the nodes.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate.
    pub cert_file: Option<PathBuf>,
    /// The certificate's key.
    pub key_file: Option<PathBuf>,
    /// The most requests at once.
    pub max_in_flight: usize,
}

/// Where the schemas are.
#[derive(Debug, Clone)]
pub struct RegistrySettings {
    /// The address of its Confluent interface.
    pub url: String,
    /// Who logs in.
    pub username: Option<String>,
    /// The password for it.
    pub password: Option<Secret>,
}

const HOSTS: &str = "HOST:PORT, or several with commas in between";
const FILE: &str = "a file that can be read";
const TEXT: &str = "a text without line breaks";

impl KafkaSettings {
    pub(super) fn read(source: &mut Source) -> Self {
        let settings = Self {
            brokers: source.read("kafka_brokers", HOSTS, hosts),
            topic_prefix: source.read(
                "kafka_topic_prefix",
                "at most 64 ASCII letters, digits, '.', '_' and '-'",
                |text| {
                    let fits = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
                    (text.len() <= 64 && text.chars().all(fits)).then(|| text.to_owned())
                },
            ),
            replication: source.read("kafka_replication", "a whole number from 1 to 100", |t| {
                whole(t, 1, 100).map(|n| n as u32)
            }),
            min_insync: source.read("kafka_min_insync", "a whole number from 1 to 100", |t| {
                whole(t, 1, 100).map(|n| n as u32)
            }),
            session_timeout: source.read(
                "kafka_session_timeout_ms",
                "a whole number of milliseconds from 1000 to 300000",
                |t| whole(t, 1_000, 300_000).map(Duration::from_millis),
            ),
            protocol: source.read(
                "kafka_protocol",
                "plaintext, ssl, sasl_plaintext or sasl_ssl",
                |text| match text.to_ascii_lowercase().as_str() {
                    "plaintext" => Some(KafkaProtocol::Plaintext),
                    "ssl" => Some(KafkaProtocol::Ssl),
                    "sasl_plaintext" => Some(KafkaProtocol::SaslPlaintext),
                    "sasl_ssl" => Some(KafkaProtocol::SaslSsl),
                    _ => None,
                },
            ),
            ca_file: source.read("kafka_ca_file", FILE, file),
            cert_file: source.read("kafka_cert_file", FILE, file),
            key_file: source.read("kafka_key_file", FILE, file),
            key_password: source.read("kafka_key_password", TEXT, secret),
            sasl_mechanism: source.read(
                "kafka_sasl_mechanism",
                "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512",
                |text| {
                    let known = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
                    known.contains(&text).then(|| text.to_owned())
                },
            ),
            sasl_username: source.read("kafka_sasl_username", TEXT, text),
            sasl_password: source.read("kafka_sasl_password", TEXT, secret),
        };
        if settings.min_insync > settings.replication {
            source.mistake("kafka_min_insync must be no more than kafka_replication");
        }
        let sasl = [KafkaProtocol::SaslPlaintext, KafkaProtocol::SaslSsl];
        if sasl.contains(&settings.protocol)
            && (settings.sasl_username.is_none() || settings.sasl_password.is_none())
        {
            source.mistake(
                "kafka_sasl_username and kafka_sasl_password must be given with this kafka_protocol",
            );
        }
        settings
    }
}

impl CqlSettings {
    pub(super) fn read(source: &mut Source) -> Self {
        let settings = Self {
            nodes: source.read("cql_nodes", HOSTS, hosts),
            keyspace: source.read(
                "cql_keyspace",
                "1 to 48 lower-case letters, digits and '_', a letter first",
                |text| {
                    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                    let first = text.chars().next().is_some_and(|c| c.is_ascii_lowercase());
                    (first && text.len() <= 48 && text.chars().all(fits)).then(|| text.to_owned())
                },
            ),
            datacenter: source.read("cql_datacenter", TEXT, text),
            replication: source.read("cql_replication", "a whole number from 1 to 100", |t| {
                whole(t, 1, 100).map(|n| n as u32)
            }),
            username: source.read("cql_username", TEXT, text),
            password: source.read("cql_password", TEXT, secret),
            tls: source.read("cql_tls", "true or false", parse),
            ca_file: source.read("cql_ca_file", FILE, file),
            cert_file: source.read("cql_cert_file", FILE, file),
            key_file: source.read("cql_key_file", FILE, file),
            max_in_flight: source.read(
                "cql_max_in_flight",
                "a whole number from 1 to 32768",
                |t| whole(t, 1, 32_768).map(|n| n as usize),
            ),
        };
        if settings.username.is_some() != settings.password.is_some() {
            source.mistake("cql_username and cql_password must be given together");
        }
        if settings.cert_file.is_some() != settings.key_file.is_some() {
            source.mistake("cql_cert_file and cql_key_file must be given together");
        }
        settings
    }
}

impl RegistrySettings {
    pub(super) fn read(source: &mut Source) -> Self {
        Self {
            url: source.read(
                "registry_url",
                "an address such as http://127.0.0.1:8085",
                |text| {
                    let known = text.starts_with("http://") || text.starts_with("https://");
                    let url = text.trim_end_matches('/');
                    (known && url.parse::<axum::http::Uri>().is_ok()).then(|| url.to_owned())
                },
            ),
            username: source.read("registry_username", TEXT, text),
            password: source.read("registry_password", TEXT, secret),
        }
    }
}

fn hosts(text: &str) -> Option<Vec<String>> {
    let host = |host: &str| {
        let host = host.trim();
        let (name, port) = host.rsplit_once(':')?;
        (!name.is_empty() && port.parse::<u16>().is_ok_and(|port| port > 0))
            .then(|| host.to_owned())
    };
    text.split(',').map(host).collect()
}

fn file(text: &str) -> Option<Option<PathBuf>> {
    optional(text, |text| {
        std::fs::File::open(text)
            .is_ok()
            .then(|| PathBuf::from(text))
    })
}

fn text(text: &str) -> Option<Option<String>> {
    optional(text, |text| {
        (!text.contains(['\n', '\r'])).then(|| text.to_owned())
    })
}

fn secret(hidden: &str) -> Option<Option<Secret>> {
    text(hidden).map(|text| text.map(Secret))
}
