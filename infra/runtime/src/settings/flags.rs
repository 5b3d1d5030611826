//! The settings as flags of a command line.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, FromArgMatches};

use super::table::{SETTINGS, Service, Setting};

/// What all environment variables of the product begin with.
pub(super) const PREFIX: &str = "DOORBUSTER_";
/// The variable that names the settings file.
pub(super) const FILE_VARIABLE: &str = "DOORBUSTER_CONFIG";

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
        let setting = Setting::find(name).unwrap_or_else(|| panic!("there is no setting {name}"));
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
            Arg::new(setting.name)
                .long(setting.name.replace('_', "-"))
                .value_name(setting.value)
                .help(help(setting, Service::Serve))
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

/// The command of a service, which shows in its `--help` only the settings that it uses, with
/// its own defaults. Giving it another setting as a flag is a mistake that [`Settings::load`]
/// reports.
///
/// [`Settings::load`]: super::Settings::load
pub fn help_for(service: Service, command: Command) -> Command {
    command.mut_args(|arg| match Setting::find(arg.get_id().as_str()) {
        Some(setting) if setting.used_by.contains(&service) => arg.help(help(setting, service)),
        Some(_) => arg.hide(true),
        None => arg,
    })
}

fn help(setting: &Setting, service: Service) -> String {
    let default = match setting.default(service) {
        "" => String::new(),
        default => format!("[default: {default}] "),
    };
    format!(
        "{} {default}[env: {}]",
        setting.help,
        variable(setting.name)
    )
}

/// The environment variable of a setting.
pub(super) fn variable(name: &str) -> String {
    format!("{PREFIX}{}", name.to_uppercase())
}
