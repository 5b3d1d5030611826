//! Settings of the CQL store: ScyllaDB or Apache Cassandra.

use std::path::PathBuf;

use super::format::{Format, boolean, file, hosts, number, password, text};
use super::secrets::Secret;
use super::service::ON_CQL;
use super::source::{Setting, Source};

/// How the CQL store is reached, and how its keyspace is created.
#[derive(Debug, Clone)]
pub struct CqlSettings {
    /// The nodes that are contacted first, each HOST:PORT.
    pub nodes: Vec<String>,
    /// The keyspace of the read models.
    pub keyspace: String,
    /// The nearest datacenter, which reads and writes go to.
    pub datacenter: Option<String>,
    /// Replicas of every row, when the keyspace is created.
    pub replication: u32,
    /// The user name; given if and only if the password is.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<Secret>,
    /// Whether connections are encrypted.
    pub tls: bool,
    /// The certificates that vouch for the nodes; none: those of the system.
    pub ca_file: Option<PathBuf>,
    /// The client's certificate; given if and only if its key is.
    pub cert_file: Option<PathBuf>,
    /// The key of the client's certificate.
    pub key_file: Option<PathBuf>,
    /// The most requests to the store at once.
    pub max_in_flight: usize,
}

impl CqlSettings {
    pub(super) fn read(source: &mut Source) -> Self {
        let settings = Self {
            nodes: source.read(Setting {
                name: "cql_nodes",
                used_by: ON_CQL,
                default: "127.0.0.1:9042",
                help: "ScyllaDB or Cassandra nodes to contact first; they name the others",
                format: hosts(),
            }),
            keyspace: source.read(Setting {
                name: "cql_keyspace",
                used_by: ON_CQL,
                default: "doorbuster",
                help: "Keyspace of the read models; created if it does not exist",
                format: keyspace(),
            }),
            datacenter: source.read(Setting {
                name: "cql_datacenter",
                used_by: ON_CQL,
                default: "",
                help: "Nearest datacenter, which reads and writes go to",
                format: text("NAME").optional(),
            }),
            replication: source.read(Setting {
                name: "cql_replication",
                used_by: ON_CQL,
                default: "3",
                help: "Replicas of every row, when the keyspace is created",
                format: number(1..=100),
            }),
            username: source.read(Setting {
                name: "cql_username",
                used_by: ON_CQL,
                default: "",
                help: "User name for the nodes",
                format: text("NAME").optional(),
            }),
            password: source.read(Setting {
                name: "cql_password",
                used_by: ON_CQL,
                default: "",
                help: "Password of that user",
                format: password().optional(),
            }),
            tls: source.read(Setting {
                name: "cql_tls",
                used_by: ON_CQL,
                default: "false",
                help: "Whether connections to the nodes are encrypted",
                format: boolean(),
            }),
            ca_file: source.read(Setting {
                name: "cql_ca_file",
                used_by: ON_CQL,
                default: "",
                help: "Certificates (PEM) that vouch for the nodes; those of the system when empty",
                format: file().optional(),
            }),
            cert_file: source.read(Setting {
                name: "cql_cert_file",
                used_by: ON_CQL,
                default: "",
                help: "This client's certificate (PEM), if the nodes require one",
                format: file().optional(),
            }),
            key_file: source.read(Setting {
                name: "cql_key_file",
                used_by: ON_CQL,
                default: "",
                help: "Key (PEM) of this client's certificate",
                format: file().optional(),
            }),
            max_in_flight: source.read(Setting {
                name: "cql_max_in_flight",
                used_by: ON_CQL,
                default: "256",
                help: "Most requests to the store at once, 1 to 32768",
                format: number(1..=32_768),
            }),
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

/// A name that CQL takes without quotes.
fn keyspace() -> Format<String> {
    let expected = "1 to 48 lower-case letters, digits and '_', a letter first";
    Format::new("NAME", expected, |text| {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let first = text.chars().next().is_some_and(|c| c.is_ascii_lowercase());
        (first && text.len() <= 48 && text.chars().all(fits)).then(|| text.to_owned())
    })
}
