//! Every setting as people meet it, and which processes use it.

/// What a process runs as; each uses some of the settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// All services in one process, on the embedded engine.
    Serve,
    /// The door.
    CommandApi,
    /// The deciders.
    Decider,
    /// The projectors.
    Projector,
    /// The questions.
    QueryApi,
    /// The audit, which is a tool.
    Audit,
}

impl Service {
    /// The services that run alone, over Kafka and the CQL store.
    pub const ALONE: [Service; 4] = [CommandApi, Decider, Projector, QueryApi];

    /// The subcommand's name.
    pub const fn name(self) -> &'static str {
        match self {
            Serve => "serve",
            CommandApi => "command-api",
            Decider => "decider",
            Projector => "projector",
            QueryApi => "query-api",
            Audit => "audit",
        }
    }

    /// Where it listens unless told otherwise.
    const fn listen(self) -> &'static str {
        match self {
            Serve | Audit => "127.0.0.1:8080",
            CommandApi => "127.0.0.1:8081",
            QueryApi => "127.0.0.1:8082",
            Projector => "127.0.0.1:8083",
            Decider => "127.0.0.1:8084",
        }
    }
}

use Service::{Audit, CommandApi, Decider, Projector, QueryApi, Serve};

/// Those that run as services.
const SERVICES: &[Service] = &[Serve, CommandApi, Decider, Projector, QueryApi];
/// Those that people and front ends talk to.
const DOORS: &[Service] = &[Serve, CommandApi, QueryApi];
/// Those that append.
const WRITERS: &[Service] = &[Serve, CommandApi, Decider];
/// Those that use Kafka and the registry.
const ON_KAFKA: &[Service] = &[CommandApi, Decider, Projector, QueryApi, Audit];
/// Those that use the CQL store.
const ON_CQL: &[Service] = &[CommandApi, Projector, QueryApi, Audit];

/// A setting as people meet it. A test proves that every default is valid.
pub(super) struct Setting {
    pub(super) name: &'static str,
    pub(super) value: &'static str,
    default: &'static str,
    pub(super) help: &'static str,
    pub(super) used_by: &'static [Service],
}

impl Setting {
    pub(super) fn find(name: &str) -> Option<&'static Self> {
        SETTINGS.iter().find(|setting| setting.name == name)
    }

    /// What it is when nobody gives it.
    pub(super) fn default(&self, service: Service) -> &'static str {
        match self.name {
            "listen" => service.listen(),
            _ => self.default,
        }
    }

    /// Whether its value must not be shown.
    pub(super) fn is_secret(&self) -> bool {
        ["_token", "_password", "receipt_key"]
            .iter()
            .any(|end| self.name.ends_with(end))
    }
}

const fn setting(
    name: &'static str,
    value: &'static str,
    default: &'static str,
    used_by: &'static [Service],
    help: &'static str,
) -> Setting {
    Setting {
        name,
        value,
        default,
        help,
        used_by,
    }
}

/// Every setting, in the order in which `--help` shows them.
#[rustfmt::skip]
pub(super) const SETTINGS: [Setting; 41] = [
    setting("listen", "ADDR:PORT", "", SERVICES,
        "Address and port to listen on; port 0 takes any that is free"),
    setting("data_dir", "DIR", "./.doorbuster", &[Serve, Audit],
        "Where everything is kept"),
    setting("admin_token", "TOKEN", "", DOORS,
        "Secret of the administration, 8 to 256 visible characters; administration is off without one"),
    setting("receipt_key", "KEY", "", &[Serve, CommandApi, Audit],
        "Key that signs receipts, 64 hexadecimal digits, the same for every command-api; \
         without one serve uses DATA_DIR/receipt.key, and makes it at the first start"),
    setting("demo", "true|false", "true", &[Serve],
        "Whether a new data directory gets a sale to try"),
    setting("partitions", "N", "8", &[Serve, CommandApi, Decider, Projector, QueryApi, Audit],
        "Partitions of each log, 1 to 1024; fixed once the data directory or the topics are created"),
    setting("append_queue_records", "N", "65536", WRITERS,
        "Most records that wait to be appended; beyond it orders get 503 and Retry-After"),
    setting("append_queue_kib", "KIB", "8192", WRITERS,
        "Most KiB of records that wait to be appended, likewise"),
    setting("max_connections", "N", "8192", DOORS,
        "Most connections at once"),
    setting("max_waiters", "N", "10000", &[Serve, QueryApi],
        "Most requests that wait for an attempt's fate at once"),
    setting("request_timeout_ms", "MS", "10000", &[Serve, CommandApi],
        "Longest time from a command's head to its answer"),
    setting("drain_grace_seconds", "SECONDS", "20", SERVICES,
        "How long requests have to finish after SIGTERM or Ctrl-C; a second signal ends at once"),
    setting("kafka_brokers", "HOST:PORT,…", "127.0.0.1:9092", ON_KAFKA,
        "Brokers to ask first for the others"),
    setting("kafka_topic_prefix", "TEXT", "", ON_KAFKA,
        "What the names of topics, consumer groups and subjects begin with"),
    setting("kafka_replication", "N", "3", ON_KAFKA,
        "Replicas of every partition; topics are created with it and refused with fewer"),
    setting("kafka_min_insync", "N", "2", ON_KAFKA,
        "Replicas that must have a record before it counts as written"),
    setting("kafka_session_timeout_ms", "MS", "6000", &[Decider, Projector],
        "How long after a member of a group fell silent another takes its partitions"),
    setting("kafka_protocol", "NAME", "plaintext", ON_KAFKA,
        "plaintext, ssl, sasl_plaintext or sasl_ssl"),
    setting("kafka_ca_file", "FILE", "", ON_KAFKA,
        "Certificates (PEM) that vouch for the brokers; the system's when empty"),
    setting("kafka_cert_file", "FILE", "", ON_KAFKA,
        "This client's certificate (PEM), where the brokers ask for one"),
    setting("kafka_key_file", "FILE", "", ON_KAFKA,
        "The key (PEM) of that certificate"),
    setting("kafka_key_password", "PASSWORD", "", ON_KAFKA,
        "Password of that key"),
    setting("kafka_sasl_mechanism", "NAME", "SCRAM-SHA-512", ON_KAFKA,
        "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"),
    setting("kafka_sasl_username", "NAME", "", ON_KAFKA,
        "Who logs in to the brokers"),
    setting("kafka_sasl_password", "PASSWORD", "", ON_KAFKA,
        "The password for it"),
    setting("cql_nodes", "HOST:PORT,…", "127.0.0.1:9042", ON_CQL,
        "ScyllaDB or Cassandra nodes to ask first for the others"),
    setting("cql_keyspace", "NAME", "doorbuster", ON_CQL,
        "Keyspace of the read models; created if it is not there"),
    setting("cql_datacenter", "NAME", "", ON_CQL,
        "The nearest datacenter, which reads and writes go to"),
    setting("cql_replication", "N", "3", ON_CQL,
        "Replicas of every row, when the keyspace is created"),
    setting("cql_username", "NAME", "", ON_CQL,
        "Who logs in to the nodes"),
    setting("cql_password", "PASSWORD", "", ON_CQL,
        "The password for it"),
    setting("cql_tls", "true|false", "false", ON_CQL,
        "Whether connections to the nodes are encrypted"),
    setting("cql_ca_file", "FILE", "", ON_CQL,
        "Certificates (PEM) that vouch for the nodes; the system's when empty"),
    setting("cql_cert_file", "FILE", "", ON_CQL,
        "This client's certificate (PEM), where the nodes ask for one"),
    setting("cql_key_file", "FILE", "", ON_CQL,
        "The key (PEM) of that certificate"),
    setting("cql_max_in_flight", "N", "256", ON_CQL,
        "Most requests to the store at once, 1 to 32768"),
    setting("registry_url", "URL", "http://127.0.0.1:8085", ON_KAFKA,
        "Schema registry with Confluent's interface"),
    setting("registry_username", "NAME", "", ON_KAFKA,
        "Who logs in to the registry"),
    setting("registry_password", "PASSWORD", "", ON_KAFKA,
        "The password for it"),
    setting("log_format", "pretty|json", "pretty", SERVICES,
        "Form of log messages, on standard error"),
    setting("log_level", "LEVEL", "info", SERVICES,
        "error, warn, info, debug or trace; by target as in info,command_api=debug"),
];
