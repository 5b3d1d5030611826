//! Settings, each from a flag, an environment variable, a TOML file or its default, in this
//! order. One name serves everywhere: `data_dir` in the file is `--data-dir` as a flag and
//! `DOORBUSTER_DATA_DIR` in the environment. All mistakes are reported at once.

mod engines;
mod flags;
mod source;
mod table;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use crate::auth::AdminToken;
use crate::receipt::ReceiptKey;
use crate::telemetry::log_filter;

pub use self::engines::{CqlSettings, KafkaProtocol, KafkaSettings, RegistrySettings, Secret};
pub use self::flags::{Flags, help_for};
use self::source::Source;
pub use self::table::Service;

/// How the product runs.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The door to the network.
    pub http: HttpSettings,
    /// The event log.
    pub log: LogSettings,
    /// What is written to standard error.
    pub telemetry: TelemetrySettings,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// How long requests and services have to finish when the process is told to stop.
    pub drain_grace: Duration,
    /// Whether a new data directory gets a sale to try.
    pub demo: bool,
    /// Where the logs are, for a service that runs alone.
    pub kafka: KafkaSettings,
    /// Where the read models are, likewise.
    pub cql: CqlSettings,
    /// Where the schemas are, likewise.
    pub registry: RegistrySettings,
}

/// The door to the network.
#[derive(Debug, Clone)]
pub struct HttpSettings {
    /// Address and port to listen on; port 0 is any that is free.
    pub listen: SocketAddr,
    /// The most connections at once; further ones are told to come back.
    pub max_connections: usize,
    /// The longest time from a command's head to its answer.
    pub request_timeout: Duration,
    /// The most requests that wait for an attempt's fate at once.
    pub max_waiters: usize,
    /// The secret of the administration; none: administration is off.
    pub admin_token: Option<AdminToken>,
    /// The key that signs receipts; none: one is kept in the data directory.
    pub receipt_key: Option<ReceiptKey>,
}

/// The event log.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings {
    /// Partitions of every topic; fixed when the data directory is created.
    pub partitions: u32,
    /// The most records that wait to be appended; more are refused.
    pub append_queue_records: usize,
    /// The most bytes of records that wait to be appended; more are refused.
    pub append_queue_bytes: usize,
}

/// What is written to standard error.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    /// For people or for machines.
    pub format: LogFormat,
    /// The least grave messages shown, by target, as `tracing_subscriber::EnvFilter` has it.
    pub level: String,
}

/// The form of log messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// A line a message, for people.
    Pretty,
    /// A JSON object a message, for machines.
    Json,
}

impl Settings {
    /// A service's settings from these flags, the process's environment and the file they name.
    /// What the service does not use has its default.
    pub fn load(service: Service, flags: &Flags) -> Result<Self, Mistakes> {
        Self::from_sources(service, flags, std::env::vars_os())
    }

    /// The same from these flags, these variables and the file they name.
    pub fn from_sources(
        service: Service,
        flags: &Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Mistakes> {
        let mut source = Source::new(service, flags, environment);
        let ms = |text: &str| whole(text, 1, 3_600_000).map(Duration::from_millis);
        let seconds = |text: &str| whole(text, 0, 3_600).map(Duration::from_secs);
        let settings = Settings {
            http: HttpSettings {
                listen: source.read("listen", "ADDR:PORT such as 127.0.0.1:8080", parse),
                max_connections: source.read("max_connections", "a whole number from 1 to 1000000", |t| {
                    whole(t, 1, 1_000_000).map(|n| n as usize)
                }),
                request_timeout: source.read(
                    "request_timeout_ms",
                    "a whole number of milliseconds from 1 to 3600000",
                    ms,
                ),
                max_waiters: source.read("max_waiters", "a whole number from 0 to 1000000", |t| {
                    whole(t, 0, 1_000_000).map(|n| n as usize)
                }),
                admin_token: source.read("admin_token", "8 to 256 visible ASCII characters", |t| {
                    optional(t, AdminToken::new)
                }),
                receipt_key: source.read("receipt_key", "64 hexadecimal digits", |t| {
                    optional(t, ReceiptKey::from_hex)
                }),
            },
            log: LogSettings {
                partitions: source.read("partitions", "a whole number from 1 to 1024", |t| {
                    whole(t, 1, 1024).map(|n| n as u32)
                }),
                append_queue_records: source.read(
                    "append_queue_records",
                    "a whole number from 1 to 16777216",
                    |t| whole(t, 1, 16_777_216).map(|n| n as usize),
                ),
                append_queue_bytes: source.read(
                    "append_queue_kib",
                    "a whole number of KiB from 1024 to 49152",
                    |t| whole(t, 1024, 49_152).map(|n| n as usize * 1024),
                ),
            },
            telemetry: TelemetrySettings {
                format: source.read("log_format", "pretty or json", |text| match text {
                    "pretty" => Some(LogFormat::Pretty),
                    "json" => Some(LogFormat::Json),
                    _ => None,
                }),
                level: source.read(
                    "log_level",
                    "error, warn, info, debug, trace or off, or a list such as info,command_api=debug",
                    |text| log_filter().parse(text).is_ok().then(|| text.to_owned()),
                ),
            },
            data_dir: source.read("data_dir", "a directory", |text| {
                (!text.is_empty()).then(|| PathBuf::from(text))
            }),
            drain_grace: source.read(
                "drain_grace_seconds",
                "a whole number of seconds from 0 to 3600",
                seconds,
            ),
            demo: source.read("demo", "true or false", parse),
            kafka: KafkaSettings::read(&mut source),
            cql: CqlSettings::read(&mut source),
            registry: RegistrySettings::read(&mut source),
        };
        if service == Service::CommandApi && settings.http.receipt_key.is_none() {
            source.mistake(
                "receipt_key must be given, the same to every command-api: 64 hexadecimal digits, \
                 such as openssl rand -hex 32 makes",
            );
        }
        source.finish(settings)
    }
}

/// Everything that is wrong with the settings, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(pub Vec<String>);

impl Mistakes {
    /// Says them on standard error, and where all settings are listed.
    pub fn tell(&self, service: Service) {
        eprintln!("error: the settings cannot be used as they are");
        self.0.iter().for_each(|mistake| eprintln!("  {mistake}"));
        eprintln!("\nAll settings: doorbuster {} --help", service.name());
    }
}

fn parse<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn whole(text: &str, min: u64, max: u64) -> Option<u64> {
    parse(text).filter(|number| (min..=max).contains(number))
}

/// A setting that may be absent, which the empty text says.
fn optional<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    if text.is_empty() {
        Some(None)
    } else {
        parse(text).map(Some)
    }
}
