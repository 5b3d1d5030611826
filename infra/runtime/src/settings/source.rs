//! Where settings come from, and what is wrong with them.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::flags::{FILE_VARIABLE, PREFIX, variable};
use super::table::{SETTINGS, Service, Setting};
use super::{Flags, Mistakes};

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
pub(super) struct Source {
    service: Service,
    values: BTreeMap<&'static str, (String, Origin)>,
    mistakes: Vec<String>,
}

impl Source {
    /// What these flags, these variables and the file they name say to a service. Variables and
    /// file may be shared by several, so what they say to others is passed over.
    pub(super) fn new(
        service: Service,
        flags: &Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut source = Self {
            service,
            values: BTreeMap::new(),
            mistakes: Vec::new(),
        };
        for (name, text) in &flags.given {
            let origin = Origin::Flag(name);
            if Setting::find(name).is_some_and(|setting| !setting.used_by.contains(&service)) {
                let mistake = format!("{name} is not a setting of {} ({origin})", service.name());
                source.mistakes.push(mistake);
            }
            source.values.insert(name, (text.clone(), origin));
        }
        let file = source.take_environment(environment);
        if let Some(path) = flags.config.clone().or(file) {
            source.take_file(path);
        }
        source
    }

    /// The settings that were read, unless anything was wrong.
    pub(super) fn finish<T>(self, settings: T) -> Result<T, Mistakes> {
        match self.mistakes.is_empty() {
            true => Ok(settings),
            false => Err(Mistakes(self.mistakes)),
        }
    }

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
                Err(_) => self
                    .mistakes
                    .push(format!("{name} must be UTF-8 ({origin})")),
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
                toml::Value::Table(_) | toml::Value::Array(_) if Setting::find(&name).is_some() => {
                    self.mistakes
                        .push(format!("{name} must be a single value ({origin})"));
                }
                value => self.take(&name, value.to_string(), origin),
            }
        }
    }

    /// Takes a value, unless a stronger source has given one already.
    fn take(&mut self, name: &str, text: String, origin: Origin) {
        match Setting::find(name) {
            Some(setting) => {
                self.values.entry(setting.name).or_insert((text, origin));
            }
            None => {
                let hint = did_you_mean(name, &origin);
                self.mistakes
                    .push(format!("{name} is not a setting{hint} ({origin})"));
            }
        }
    }

    /// The value of a setting; its default when there is none or a wrong one, which is noted.
    pub(super) fn read<T>(
        &mut self,
        name: &str,
        expected: &str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> T {
        let setting = Setting::find(name).expect("every setting that is read is in the table");
        if let Some((text, origin)) = self.values.get(name)
            && setting.used_by.contains(&self.service)
        {
            if let Some(value) = parse(text) {
                return value;
            }
            // What was meant as a secret is not shown, wrong as it may be.
            let found = match setting.is_secret() {
                true => String::new(),
                false => format!(", not {text:?}"),
            };
            self.mistakes
                .push(format!("{name} must be {expected}{found} ({origin})"));
        }
        parse(setting.default(self.service))
            .expect("every setting in the table has a valid default, which a test proves")
    }

    /// Notes what is wrong with settings that are right each for itself.
    pub(super) fn mistake(&mut self, mistake: &str) {
        self.mistakes.push(mistake.to_owned());
    }
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
