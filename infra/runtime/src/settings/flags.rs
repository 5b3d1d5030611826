//! The settings as flags of a command line.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Command, FromArgMatches};

use super::source::Description;
use super::variables::{FILE_VARIABLE, variable};
use super::{Service, Settings};

/// The settings that were given as flags, as texts; for `#[command(flatten)]`.
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
        let known = Settings::descriptions(Service::Serve);
        let known = known.iter().find(|setting| setting.name == name);
        let known = known.unwrap_or_else(|| panic!("there is no setting {name}"));
        self.given.push((known.name, text.into()));
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
        // Every command takes every flag, so that a flag that the service does not use is
        // reported among all other mistakes.
        let settings = Settings::descriptions(Service::Serve);
        let flags = settings.into_iter().map(|setting| {
            Arg::new(setting.name)
                .long(setting.name.replace('_', "-"))
                .help(help(&setting))
                .value_name(setting.value_name.into_owned())
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
        let settings = Settings::descriptions(Service::Serve);
        let given = settings.iter().filter_map(|setting| {
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

/// A service's command, which shows in its `--help` only the settings that the service uses, with
/// the service's own defaults.
pub fn help_for(service: Service, command: Command) -> Command {
    let settings = Settings::descriptions(service);
    command.mut_args(|arg| {
        let id = arg.get_id().as_str();
        match settings.iter().find(|setting| setting.name == id) {
            Some(setting) if setting.is_used => arg.help(help(setting)),
            Some(_) => arg.hide(true),
            None => arg,
        }
    })
}

fn help(setting: &Description) -> String {
    let default = match setting.default {
        "" => String::new(),
        default => format!("[default: {default}] "),
    };
    let variable = variable(setting.name);
    format!("{} {default}[env: {variable}]", setting.help)
}
