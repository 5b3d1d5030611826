//! Settings, each from a flag, an environment variable, a TOML file or its default, in this
//! order. One name serves everywhere: `data_dir` in the file is `--data-dir` as a flag and
//! `DOORBUSTER_DATA_DIR` in the environment. All mistakes are reported at once.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, ArgMatches, Command, FromArgMatches};

use crate::auth::AdminToken;
use crate::receipt::ReceiptKey;

/// What all environment variables of the product begin with.
const PREFIX: &str = "DOORBUSTER_";
/// The variable that names the settings file.
const FILE_VARIABLE: &str = "DOORBUSTER_CONFIG";

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

/// A setting as people meet it. A test proves that every default is valid.
struct Setting {
    name: &'static str,
    value: &'static str,
    default: &'static str,
    help: &'static str,
}

/// Every setting, in the order in which `--help` shows them.
const SETTINGS: [Setting; 14] = [
    Setting {
        name: "listen",
        value: "ADDR:PORT",
        default: "127.0.0.1:8080",
        help: "Address and port to listen on; port 0 takes any that is free",
    },
    Setting {
        name: "data_dir",
        value: "DIR",
        default: "./.doorbuster",
        help: "Where everything is kept",
    },
    Setting {
        name: "admin_token",
        value: "TOKEN",
        default: "",
        help: "Secret of the administration, 8 to 256 visible characters; administration is off without one",
    },
    Setting {
        name: "receipt_key",
        value: "KEY",
        default: "",
        help: "Key that signs receipts, 64 hexadecimal digits; without one DATA_DIR/receipt.key is used, and made at the first start",
    },
    Setting {
        name: "demo",
        value: "true|false",
        default: "true",
        help: "Whether a new data directory gets a sale to try",
    },
    Setting {
        name: "partitions",
        value: "N",
        default: "8",
        help: "Partitions of each log, 1 to 1024; fixed once the data directory is created",
    },
    Setting {
        name: "append_queue_records",
        value: "N",
        default: "65536",
        help: "Most records that wait to be appended; beyond it orders get 503 and Retry-After",
    },
    Setting {
        name: "append_queue_kib",
        value: "KIB",
        default: "8192",
        help: "Most KiB of records that wait to be appended, likewise",
    },
    Setting {
        name: "max_connections",
        value: "N",
        default: "8192",
        help: "Most connections at once",
    },
    Setting {
        name: "max_waiters",
        value: "N",
        default: "10000",
        help: "Most requests that wait for an attempt's fate at once",
    },
    Setting {
        name: "request_timeout_ms",
        value: "MS",
        default: "10000",
        help: "Longest time from a command's head to its answer",
    },
    Setting {
        name: "drain_grace_seconds",
        value: "SECONDS",
        default: "20",
        help: "How long requests have to finish after SIGTERM or Ctrl-C; a second signal ends at once",
    },
    Setting {
        name: "log_format",
        value: "pretty|json",
        default: "pretty",
        help: "Form of log messages, on standard error",
    },
    Setting {
        name: "log_level",
        value: "LEVEL",
        default: "info",
        help: "error, warn, info, debug or trace; by target as in info,command_api=debug",
    },
];

impl Settings {
    /// The settings from these flags, the process's environment and the file they name.
    pub fn load(flags: &Flags) -> Result<Self, Mistakes> {
        Self::from_sources(flags, std::env::vars_os())
    }

    /// The settings from these flags, these variables and the file they name.
    pub fn from_sources(
        flags: &Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, Mistakes> {
        let mut source = Source::default();
        let file = source.take_environment(environment);
        if let Some(path) = flags.config.clone().or(file) {
            source.take_file(path);
        }
        for (name, text) in &flags.given {
            source.values.insert(name, (text.clone(), Origin::Flag(name)));
        }
        source.build()
    }
}

/// The settings as flags of a command line, for `#[command(flatten)]`.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    config: Option<PathBuf>,
    given: Vec<(&'static str, String)>,
}

impl Flags {
    /// These flags and one more, as if it had been given last.
    ///
    /// Panics when there is no setting of this name.
    pub fn with(mut self, name: &str, text: impl Into<String>) -> Self {
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        let setting = setting.unwrap_or_else(|| panic!("there is no setting {name}"));
        self.given.push((setting.name, text.into()));
        self
    }
}

impl clap::Args for Flags {
    fn augment_args(command: Command) -> Command {
        let config = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .value_parser(clap::value_parser!(PathBuf))
            .help(format!("TOML file with settings [env: {FILE_VARIABLE}]"));
        let flags = SETTINGS.iter().map(|setting| {
            let default = match setting.default {
                "" => String::new(),
                default => format!("[default: {default}] "),
            };
            let variable = variable(setting.name);
            Arg::new(setting.name)
                .long(setting.name.replace('_', "-"))
                .value_name(setting.value)
                .help(format!("{} {default}[env: {variable}]", setting.help))
        });
        command.next_help_heading("Settings").arg(config).args(flags)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Flags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let given = SETTINGS.iter().filter_map(|setting| {
            let text = matches.get_one::<String>(setting.name)?;
            Some((setting.name, text.clone()))
        });
        Ok(Self {
            config: matches.get_one("config").cloned(),
            given: given.collect(),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Everything that is wrong with the settings, a line each.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(pub Vec<String>);

/// Where a value came from.
#[derive(Debug, Clone)]
enum Origin {
    Flag(&'static str),
    Variable(String),
    File(PathBuf),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Flag(name) => write!(f, "from the flag --{}", name.replace('_', "-")),
            Origin::Variable(name) => write!(f, "from the variable {name}"),
            Origin::File(path) => write!(f, "from the file {}", path.display()),
        }
    }
}

/// What was given, the strongest source of each setting last to write, and what was wrong.
#[derive(Default)]
struct Source {
    values: BTreeMap<&'static str, (String, Origin)>,
    mistakes: Vec<String>,
}

impl Source {
    /// Takes what the environment says, and returns the file it names.
    fn take_environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Option<PathBuf> {
        let mut file = None;
        for (variable, text) in environment {
            let Some(variable) = variable.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            let name = variable[PREFIX.len()..].to_lowercase();
            let origin = Origin::Variable(variable.to_owned());
            if variable == FILE_VARIABLE {
                file = Some(PathBuf::from(text));
                continue;
            }
            match text.into_string() {
                Ok(text) => self.take(&name, text, origin),
                Err(_) => self.mistakes.push(format!("{name} must be UTF-8 ({origin})")),
            }
        }
        file
    }

    fn take_file(&mut self, path: PathBuf) {
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                let mistake = format!("the file {} cannot be read: {error}", path.display());
                return self.mistakes.push(mistake);
            }
        };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                let mistake = format!("the file {} is not TOML: {error}", path.display());
                return self.mistakes.push(mistake.trim_end().to_owned());
            }
        };
        for (name, value) in table {
            let origin = Origin::File(path.clone());
            match value {
                toml::Value::String(text) => self.take(&name, text, origin),
                toml::Value::Table(_) | toml::Value::Array(_) if is_setting(&name) => {
                    self.mistakes.push(format!("{name} must be a single value ({origin})"));
                }
                value => self.take(&name, value.to_string(), origin),
            }
        }
    }

    /// Takes a value, unless a stronger source has given one already.
    fn take(&mut self, name: &str, text: String, origin: Origin) {
        match SETTINGS.iter().find(|setting| setting.name == name) {
            Some(setting) => {
                self.values.entry(setting.name).or_insert((text, origin));
            }
            None => {
                let hint = did_you_mean(name, &origin);
                self.mistakes.push(format!("{name} is not a setting{hint} ({origin})"));
            }
        }
    }

    fn build(mut self) -> Result<Settings, Mistakes> {
        let ms = |text: &str| whole(text, 1, 3_600_000).map(Duration::from_millis);
        let seconds = |text: &str| whole(text, 0, 3_600).map(Duration::from_secs);
        let settings = Settings {
            http: HttpSettings {
                listen: self.read("listen", "ADDR:PORT such as 127.0.0.1:8080", parse),
                max_connections: self.read("max_connections", "a whole number from 1 to 1000000", |t| {
                    whole(t, 1, 1_000_000).map(|n| n as usize)
                }),
                request_timeout: self.read(
                    "request_timeout_ms",
                    "a whole number of milliseconds from 1 to 3600000",
                    ms,
                ),
                max_waiters: self.read("max_waiters", "a whole number from 0 to 1000000", |t| {
                    whole(t, 0, 1_000_000).map(|n| n as usize)
                }),
                admin_token: self.read("admin_token", "8 to 256 visible ASCII characters", |t| {
                    optional(t, AdminToken::new)
                }),
                receipt_key: self.read("receipt_key", "64 hexadecimal digits", |t| {
                    optional(t, ReceiptKey::from_hex)
                }),
            },
            log: LogSettings {
                partitions: self.read("partitions", "a whole number from 1 to 1024", |t| {
                    whole(t, 1, 1024).map(|n| n as u32)
                }),
                append_queue_records: self.read(
                    "append_queue_records",
                    "a whole number from 1 to 16777216",
                    |t| whole(t, 1, 16_777_216).map(|n| n as usize),
                ),
                append_queue_bytes: self.read(
                    "append_queue_kib",
                    "a whole number of KiB from 1024 to 16777216",
                    |t| whole(t, 1024, 16_777_216).map(|n| n as usize * 1024),
                ),
            },
            telemetry: TelemetrySettings {
                format: self.read("log_format", "pretty or json", |text| match text {
                    "pretty" => Some(LogFormat::Pretty),
                    "json" => Some(LogFormat::Json),
                    _ => None,
                }),
                level: self.read(
                    "log_level",
                    "error, warn, info, debug, trace or off, or a list such as info,command_api=debug",
                    |text| {
                        let filter = tracing_subscriber::EnvFilter::try_new(text).ok();
                        filter.map(|_| text.to_owned())
                    },
                ),
            },
            data_dir: self.read("data_dir", "a directory", |text| {
                (!text.is_empty()).then(|| PathBuf::from(text))
            }),
            drain_grace: self.read(
                "drain_grace_seconds",
                "a whole number of seconds from 0 to 3600",
                seconds,
            ),
            demo: self.read("demo", "true or false", parse),
        };
        if self.mistakes.is_empty() {
            Ok(settings)
        } else {
            Err(Mistakes(self.mistakes))
        }
    }

    /// The value of a setting; its default when there is none or a wrong one, which is noted.
    fn read<T>(&mut self, name: &str, expected: &str, parse: impl Fn(&str) -> Option<T>) -> T {
        if let Some((text, origin)) = self.values.get(name) {
            if let Some(value) = parse(text) {
                return value;
            }
            // What was meant as a secret is not shown, wrong as it may be.
            let found = match name {
                "admin_token" | "receipt_key" => String::new(),
                _ => format!(", not {text:?}"),
            };
            self.mistakes.push(format!("{name} must be {expected}{found} ({origin})"));
        }
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        let default = setting.and_then(|setting| parse(setting.default));
        default.expect("every setting is in the table with a valid default, which a test proves")
    }
}

fn is_setting(name: &str) -> bool {
    SETTINGS.iter().any(|setting| setting.name == name)
}

fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase())
}

/// The setting that a misspelt name is nearest to, if any is near, as its source spells it.
fn did_you_mean(name: &str, origin: &Origin) -> String {
    let name = name.replace('-', "_");
    let near = |setting: &Setting| (strsim::jaro_winkler(&name, setting.name), setting.name);
    let best = SETTINGS.iter().map(near).max_by(|a, b| a.0.total_cmp(&b.0));
    match (best, origin) {
        (Some((score, name)), Origin::Variable(_)) if score > 0.8 => {
            format!("; did you mean {}?", variable(name))
        }
        (Some((score, name)), _) if score > 0.8 => format!("; did you mean {name}?"),
        _ => String::new(),
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
    if text.is_empty() { Some(None) } else { parse(text).map(Some) }
}
