//! Where settings come from: flags, environment variables and a TOML file, in this order of
//! precedence. What is wrong with them is collected and reported at once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use super::format::Format;
use super::kubernetes;
use super::variables::{FILE_VARIABLE, PREFIX, variable};
use super::{Flags, Mistakes, Service};

/// A setting's one declaration. Flag, variable, key in the file, `--help` and messages follow
/// from it.
pub(super) struct Setting<T> {
    /// Its name in the file; that of the flag and of the variable derive from it.
    pub(super) name: &'static str,
    /// What uses it. A flag for any other service is a mistake; variables and the file may be
    /// shared by several services, so for the others they are ignored.
    pub(super) used_by: &'static [Service],
    /// The text that is read when no source gives one. It must be valid.
    pub(super) default: &'static str,
    /// What it means, for `--help`.
    pub(super) help: &'static str,
    /// How its text is read.
    pub(super) format: Format<T>,
}

/// What `--help` shows of a setting.
pub(super) struct Description {
    pub(super) name: &'static str,
    pub(super) value_name: Cow<'static, str>,
    pub(super) default: &'static str,
    pub(super) help: &'static str,
    /// Whether the service uses it.
    pub(super) is_used: bool,
}

/// What the sources give to a service, and what is wrong with it.
pub(super) struct Source {
    service: Service,
    /// What is given and not read yet, from the strongest source that gives it.
    given: BTreeMap<String, Given>,
    /// The settings that have been read so far.
    described: Vec<Description>,
    mistakes: Vec<String>,
}

/// A text from a source, or what it must be but is not: a single value, or UTF-8.
struct Given {
    text: Result<String, &'static str>,
    origin: Origin,
}

/// What a value of the file must be: not a table or an array.
const SINGLE_VALUE: &str = "a single value";

/// Where a text came from.
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

impl Source {
    /// A source that gives nothing, so that every setting has its default.
    pub(super) fn empty(service: Service) -> Self {
        Self {
            service,
            given: BTreeMap::new(),
            described: Vec::new(),
            mistakes: Vec::new(),
        }
    }

    /// What these flags, these variables and the file that one of them names give to a service.
    pub(super) fn new(
        service: Service,
        flags: &Flags,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let mut source = Self::empty(service);
        // The last of two equal flags counts.
        for (name, text) in flags.given.iter().rev() {
            source.give(name, Ok(text.clone()), Origin::Flag(name));
        }
        let file = source.take_environment(environment);
        if let Some(path) = flags.config.clone().or(file) {
            source.take_file(path);
        }
        source
    }

    /// The service that the settings are for.
    pub(super) fn service(&self) -> Service {
        self.service
    }

    /// The value of a setting: the given one if there is one and the service uses it, else the
    /// default. A text that cannot be read is a mistake.
    pub(super) fn read<T: 'static>(&mut self, setting: Setting<T>) -> T {
        let format = setting.format;
        let is_used = setting.used_by.contains(&self.service);
        self.described.push(Description {
            name: setting.name,
            value_name: format.value_name.clone(),
            default: setting.default,
            help: setting.help,
            is_used,
        });
        let given = self.given.remove(setting.name);
        let value = match given {
            Some(given) if is_used => self.read_given(setting.name, given, &format),
            Some(given) => {
                self.refuse_unused_flag(setting.name, &given.origin);
                None
            }
            None => None,
        };
        value.unwrap_or_else(|| {
            let default = format.read(setting.default);
            default.expect("every default is valid, which a test proves")
        })
    }

    fn read_given<T: 'static>(
        &mut self,
        name: &str,
        given: Given,
        format: &Format<T>,
    ) -> Option<T> {
        let origin = given.origin;
        let text = match given.text {
            Ok(text) => text,
            Err(expected) => {
                self.mistake(format!("{name} must be {expected} ({origin})"));
                return None;
            }
        };
        let value = format.read(&text);
        if value.is_none() {
            // What was meant as a secret is not shown, wrong as it may be.
            let found = match format.is_secret {
                true => String::new(),
                false => format!(", not {text:?}"),
            };
            let expected = &format.expected;
            self.mistake(format!("{name} must be {expected}{found} ({origin})"));
        }
        value
    }

    fn refuse_unused_flag(&mut self, name: &str, origin: &Origin) {
        if matches!(origin, Origin::Flag(_)) {
            let service = self.service.name();
            self.mistake(format!("{name} is not a setting of {service} ({origin})"));
        }
    }

    /// Adds a mistake, such as settings that do not fit together.
    pub(super) fn mistake(&mut self, mistake: impl Into<String>) {
        self.mistakes.push(mistake.into());
    }

    /// What `--help` shows of every setting that has been read.
    pub(super) fn into_descriptions(self) -> Vec<Description> {
        self.described
    }

    /// What was ignored, unless anything was wrong. What no setting has read is wrong if it is in the
    /// file. A variable is ignored with a warning: others set variables too, with prefixes of their
    /// own choice.
    pub(super) fn finish(mut self) -> Result<Vec<String>, Mistakes> {
        let mut warnings = Vec::new();
        for (name, Given { text, origin }) in std::mem::take(&mut self.given) {
            let hint = self.did_you_mean(&name, &origin);
            match &origin {
                Origin::Variable(_)
                    if kubernetes::is_for_a_service(&name, text.as_deref().ok()) => {}
                Origin::Variable(variable) => warnings.push(format!(
                    "the variable {variable} is ignored: {name} is not a setting{hint}"
                )),
                Origin::Flag(_) | Origin::File(_) => {
                    self.mistake(format!("{name} is not a setting{hint} ({origin})"));
                }
            }
        }
        match self.mistakes.is_empty() {
            true => Ok(warnings),
            // What was ignored may be what should have been given.
            false => Err(Mistakes([self.mistakes, warnings].concat())),
        }
    }

    /// The setting whose name is nearest to a misspelt one, if any is near, spelt as in the
    /// source of the misspelt one.
    fn did_you_mean(&self, name: &str, origin: &Origin) -> String {
        let name = name.replace('-', "_");
        let scores = self
            .described
            .iter()
            .map(|setting| (strsim::jaro_winkler(&name, setting.name), setting.name));
        match scores.max_by(|a, b| a.0.total_cmp(&b.0)) {
            Some((score, nearest)) if score > 0.8 => match origin {
                Origin::Variable(_) => format!("; did you mean {}?", variable(nearest)),
                Origin::Flag(_) | Origin::File(_) => format!("; did you mean {nearest}?"),
            },
            _ => String::new(),
        }
    }

    /// Adds a text, unless a stronger source has given one already.
    fn give(&mut self, name: &str, text: Result<String, &'static str>, origin: Origin) {
        let given = self.given.entry(name.to_owned());
        given.or_insert(Given { text, origin });
    }

    /// Takes what the environment gives, and returns the file that it names.
    fn take_environment(
        &mut self,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Option<PathBuf> {
        let mut file = None;
        for (variable, text) in environment {
            let Some(variable) = variable.to_str().filter(|name| name.starts_with(PREFIX)) else {
                continue;
            };
            if variable == FILE_VARIABLE {
                file = Some(PathBuf::from(text));
                continue;
            }
            let name = variable[PREFIX.len()..].to_lowercase();
            let origin = Origin::Variable(variable.to_owned());
            self.give(&name, text.into_string().map_err(|_| "UTF-8"), origin);
        }
        file
    }

    fn take_file(&mut self, path: PathBuf) {
        let shown = path.display();
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) => {
                return self.mistake(format!("the file {shown} cannot be read: {error}"));
            }
        };
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                let mistake = format!("the file {shown} is not TOML: {error}");
                return self.mistake(mistake.trim_end());
            }
        };
        for (name, value) in table {
            let text = match value {
                toml::Value::String(text) => Ok(text),
                toml::Value::Table(_) | toml::Value::Array(_) => Err(SINGLE_VALUE),
                value => Ok(value.to_string()),
            };
            self.give(&name, text, Origin::File(path.clone()));
        }
    }
}
