//! Every setting as people meet it, and as flags of a command line.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, FromArgMatches};

/// What all environment variables of the product begin with.
pub(super) const PREFIX: &str = "DOORBUSTER_";
/// The variable that names the settings file.
pub(super) const FILE_VARIABLE: &str = "DOORBUSTER_CONFIG";

/// A setting as people meet it. A test proves that every default is valid.
pub(super) struct Setting {
    pub(super) name: &'static str,
    value: &'static str,
    pub(super) default: &'static str,
    help: &'static str,
}

/// Every setting, in the order in which `--help` shows them.
pub(super) const SETTINGS: [Setting; 14] = [
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

/// The settings as flags of a command line, for `#[command(flatten)]`.
#[derive(Debug, Clone, Default)]
pub struct Flags {
    pub(super) config: Option<PathBuf>,
    pub(super) given: Vec<(&'static str, String)>,
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
        command
            .next_help_heading("Settings")
            .arg(config)
            .args(flags)
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

/// The environment variable of a setting.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase())
}
