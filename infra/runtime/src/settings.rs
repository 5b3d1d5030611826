//! Settings, each from a flag, an environment variable, a TOML file or its default, in this
//! order of precedence. One name serves everywhere: `data_dir` in the file is `--data-dir` as a
//! flag and `DOORBUSTER_DATA_DIR` in the environment. All mistakes are reported at once.
//!
//! A setting is declared once, in the `read` of its subsystem. `--help` comes from the same
//! declarations, read from a source that gives nothing.

mod cql;
mod http;
mod kafka;

mod flags;
mod format;
mod kubernetes;
mod listen;
mod log_level;
mod secrets;
mod service;
mod source;
mod variables;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use tracing_subscriber::EnvFilter;

use self::format::{Format, boolean, choice, kib, number, seconds};
use self::log_level::level;
use self::service::{ALL, APPENDERS, SERVICES};
use self::source::{Description, Setting, Source};

use crate::output::error_line;
use crate::telemetry;

pub use self::cql::CqlSettings;
pub use self::flags::{Flags, help_for};
pub use self::http::HttpSettings;
pub use self::kafka::{KafkaProtocol, KafkaSettings, RegistrySettings};
pub use self::listen::ListenAddress;
pub use self::secrets::{AdminToken, ReceiptSecret, Secret};
pub use self::service::Service;

/// All settings of a process. What its service does not use has its default.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The HTTP server and the APIs that it serves.
    pub http: HttpSettings,
    /// The directory of the embedded engines.
    pub data_dir: PathBuf,
    /// Whether a new data directory gets a sale to try.
    pub demo: bool,
    /// The event log, on whichever engine.
    pub log: LogSettings,
    /// How long a process stays in service after SIGTERM, not ready, before its drain starts.
    pub drain_delay: Duration,
    /// How long requests have to finish after the first SIGTERM or SIGINT.
    pub drain_grace: Duration,
    /// How long work may wait without progress before the process is not ready.
    pub stall: Duration,
    /// Kafka, for a service that runs alone.
    pub kafka: KafkaSettings,
    /// The CQL store, for a service that runs alone.
    pub cql: CqlSettings,
    /// The schema registry, for a service that runs alone.
    pub registry: RegistrySettings,
    /// Log messages.
    pub telemetry: TelemetrySettings,
    /// What was ignored, a sentence each, to be logged or printed.
    pub warnings: Vec<String>,
}

/// The event log, on whichever engine.
#[derive(Debug, Clone, Copy)]
pub struct LogSettings {
    /// Partitions of every topic; fixed when the data directory or the topics are created.
    pub partitions: u32,
    /// The most records that wait to be appended; more are refused.
    pub append_queue_records: usize,
    /// The most bytes of records that wait to be appended; more are refused.
    pub append_queue_bytes: usize,
    /// By how much the machine's clock may differ from the time that has passed.
    pub max_clock_jump: Duration,
}

/// Log messages, on standard error.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    /// The form of messages.
    pub format: LogFormat,
    /// The lowest level that is shown, by target, in the syntax of
    /// `tracing_subscriber::EnvFilter`.
    pub level: String,
}

/// The form of log messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One line a message, for people.
    Pretty,
    /// One JSON object a message, for machines.
    Json,
}

impl Settings {
    /// The settings of a service, from these flags, the process's environment and the file that
    /// one of them names.
    pub fn load(service: Service, flags: &Flags) -> Result<Self, Mistakes> {
        Self::from_sources(service, flags, std::env::vars_os())
    }

    /// The settings of a service, from these flags, these variables and the file that one of
    /// them names.
    pub fn from_sources(
        service: Service,
        flags: &Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Mistakes> {
        let mut source = Source::new(service, flags, environment);
        let settings = Self::read(&mut source);
        let warnings = source.finish()?;
        Ok(Self {
            warnings,
            ..settings
        })
    }

    /// What `--help` of a service shows of every setting, in the order in which they are read.
    fn descriptions(service: Service) -> Vec<Description> {
        let mut source = Source::empty(service);
        Self::read(&mut source);
        source.into_descriptions()
    }

    fn read(source: &mut Source) -> Self {
        Self {
            http: HttpSettings::read(source),
            data_dir: source.read(Setting {
                name: "data_dir",
                used_by: &[Service::Serve, Service::Audit],
                default: "./.doorbuster",
                help: "Directory of the log, the read models and the receipts' key",
                format: directory(),
            }),
            demo: source.read(Setting {
                name: "demo",
                used_by: &[Service::Serve],
                default: "true",
                help: "Whether a new data directory gets a sale to try",
                format: boolean(),
            }),
            log: LogSettings::read(source),
            drain_delay: source.read(Setting {
                name: "drain_delay_seconds",
                used_by: SERVICES,
                default: "0",
                help: "How long after SIGTERM connections are still accepted while /readyz answers \
                       503, so that a balancer sends its requests elsewhere; Ctrl-C does not wait",
                format: seconds(0..=3_600),
            }),
            drain_grace: source.read(Setting {
                name: "drain_grace_seconds",
                used_by: SERVICES,
                default: "20",
                help: "How long requests have to finish after SIGTERM or Ctrl-C; a second signal \
                       ends the process at once",
                format: seconds(0..=3_600),
            }),
            stall: source.read(Setting {
                name: "stall_seconds",
                used_by: SERVICES,
                default: "10",
                help: "How long work may wait without progress before /readyz answers 503; after six \
                       times as long /healthz does",
                format: seconds(1..=3_600),
            }),
            kafka: KafkaSettings::read(source),
            cql: CqlSettings::read(source),
            registry: RegistrySettings::read(source),
            telemetry: TelemetrySettings::read(source),
            warnings: Vec::new(),
        }
    }
}

impl LogSettings {
    fn read(source: &mut Source) -> Self {
        Self {
            partitions: source.read(Setting {
                name: "partitions",
                used_by: ALL,
                default: "8",
                help: "Partitions of each topic, 1 to 1024; fixed once the data directory or the \
                       topics are created",
                format: number(1..=1024),
            }),
            append_queue_records: source.read(Setting {
                name: "append_queue_records",
                used_by: APPENDERS,
                default: "65536",
                help: "Most records that wait to be appended; beyond it, orders are refused with \
                       503 and Retry-After",
                format: number(1..=16_777_216),
            }),
            append_queue_bytes: source.read(Setting {
                name: "append_queue_kib",
                used_by: APPENDERS,
                default: "8192",
                help: "Most KiB of records that wait to be appended, likewise",
                format: kib(1024..=49_152),
            }),
            max_clock_jump: source.read(Setting {
                name: "max_clock_jump_seconds",
                used_by: SERVICES,
                default: "60",
                help: "How far the machine's clock may jump; further, the time continues by what has \
                       passed, and the service is degraded",
                format: seconds(1..=86_400),
            }),
        }
    }
}

impl TelemetrySettings {
    fn read(source: &mut Source) -> Self {
        Self {
            format: source.read(Setting {
                name: "log_format",
                used_by: SERVICES,
                default: "pretty",
                help: "Form of log messages, on standard error",
                format: choice(&[("pretty", LogFormat::Pretty), ("json", LogFormat::Json)]),
            }),
            level: source.read(Setting {
                name: "log_level",
                used_by: SERVICES,
                default: "info",
                help: "error, warn, info, debug, trace or off; by target as in info,command_api=debug",
                format: level(),
            }),
        }
    }

    /// The filter that lets messages of the level through.
    pub(crate) fn filter(&self) -> EnvFilter {
        log_level::filter(&self.level)
    }
}

/// Everything that is wrong with the settings, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(pub Vec<String>);

impl Mistakes {
    /// Prints them to standard error, in the form that these flags, the environment and the file give
    /// to the log, and where all settings are listed.
    pub fn print(&self, service: Service, flags: &Flags) {
        let mut source = Source::new(service, flags, std::env::vars_os());
        let format = TelemetrySettings::read(&mut source).format;
        if format == LogFormat::Json {
            let level = "info".to_owned();
            telemetry::init_logging(&TelemetrySettings { format, level });
            for mistake in &self.0 {
                tracing::error!("the settings are not valid: {mistake}");
            }
            return;
        }
        error_line("error: the settings are not valid");
        self.0
            .iter()
            .for_each(|mistake| error_line(format_args!("  {mistake}")));
        error_line(format_args!(
            "\nAll settings: doorbuster {} --help",
            service.name()
        ));
    }
}

fn directory() -> Format<PathBuf> {
    Format::new("DIR", "a directory", |text| {
        (!text.is_empty()).then(|| PathBuf::from(text))
    })
}
