//! How the text of a setting is read. Every source gives a text, so all of them are read alike.

use std::borrow::Cow;
use std::fs::File;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use super::secrets::Secret;

/// What a setting's text must look like, and how it becomes a value.
pub(super) struct Format<T> {
    /// What `--help` shows in the place of the value.
    pub(super) value_name: Cow<'static, str>,
    /// What the text must be; completes the sentence "NAME must be".
    pub(super) expected: Cow<'static, str>,
    /// Whether the text must not appear in messages.
    pub(super) is_secret: bool,
    read: Box<Read<T>>,
}

/// Reads a text; none means that the text is not as expected.
type Read<T> = dyn Fn(&str) -> Option<T>;

impl<T: 'static> Format<T> {
    /// A format that `read` understands; none means that the text is not as expected.
    pub(super) fn new(
        value_name: impl Into<Cow<'static, str>>,
        expected: impl Into<Cow<'static, str>>,
        read: impl Fn(&str) -> Option<T> + 'static,
    ) -> Self {
        Self {
            value_name: value_name.into(),
            expected: expected.into(),
            is_secret: false,
            read: Box::new(read),
        }
    }

    /// The value of a text.
    pub(super) fn read(&self, text: &str) -> Option<T> {
        (self.read)(text)
    }

    /// The same for a text that must not appear in messages.
    pub(super) fn secret(mut self) -> Self {
        self.is_secret = true;
        self
    }

    /// The same, in upper or lower case. The format itself must be of lower case.
    pub(super) fn in_any_case(self) -> Self {
        let read = self.read;
        Self {
            read: Box::new(move |text| read(&text.to_ascii_lowercase())),
            ..self
        }
    }

    /// The same for a setting that may be absent: an empty text has no value.
    pub(super) fn optional(self) -> Format<Option<T>> {
        let read = self.read;
        Format {
            value_name: self.value_name,
            expected: self.expected,
            is_secret: self.is_secret,
            read: Box::new(move |text| match text {
                "" => Some(None),
                text => read(text).map(Some),
            }),
        }
    }
}

/// A whole number within bounds, which must be numbers of type `T`.
pub(super) fn number<T: TryFrom<u64> + 'static>(bounds: RangeInclusive<u64>) -> Format<T> {
    whole("N", "", bounds, |number| T::try_from(number).ok())
}

/// A time in milliseconds.
pub(super) fn milliseconds(bounds: RangeInclusive<u64>) -> Format<Duration> {
    let read = |number| Some(Duration::from_millis(number));
    whole("MS", " of milliseconds", bounds, read)
}

/// A time in seconds.
pub(super) fn seconds(bounds: RangeInclusive<u64>) -> Format<Duration> {
    let read = |number| Some(Duration::from_secs(number));
    whole("SECONDS", " of seconds", bounds, read)
}

/// A size in KiB, read as a number of bytes.
pub(super) fn kib(bounds: RangeInclusive<u64>) -> Format<usize> {
    let read = |number| usize::try_from(number).ok()?.checked_mul(1024);
    whole("KIB", " of KiB", bounds, read)
}

fn whole<T: 'static>(
    value_name: &'static str,
    unit: &str,
    bounds: RangeInclusive<u64>,
    read: impl Fn(u64) -> Option<T> + 'static,
) -> Format<T> {
    let (min, max) = (bounds.start(), bounds.end());
    let expected = format!("a whole number{unit} from {min} to {max}");
    Format::new(value_name, expected, move |text| {
        let number = text.parse().ok()?;
        bounds.contains(&number).then(|| read(number))?
    })
}

/// True or false.
pub(super) fn boolean() -> Format<bool> {
    choice(&[("true", true), ("false", false)])
}

/// One of a few names, each with its value.
pub(super) fn choice<T: Copy + 'static>(choices: &'static [(&'static str, T)]) -> Format<T> {
    let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
    let value_name = names.join("|");
    let expected = match names.split_last() {
        Some((last, [])) => (*last).to_owned(),
        Some((last, others)) => format!("{} or {last}", others.join(", ")),
        None => String::new(),
    };
    Format::new(value_name, expected, move |text| {
        let chosen = choices.iter().find(|(name, _)| *name == text);
        chosen.map(|(_, value)| *value)
    })
}

/// A text of one line.
pub(super) fn text(value_name: &'static str) -> Format<String> {
    Format::new(value_name, "a text without line breaks", |text| {
        (!text.contains(['\n', '\r'])).then(|| text.to_owned())
    })
}

/// A password of one line.
pub(super) fn password() -> Format<Secret> {
    let text = text("PASSWORD");
    Format::new("PASSWORD", text.expected.clone(), move |password| {
        text.read(password).map(Secret)
    })
    .secret()
}

/// A file that can be read at the start.
pub(super) fn file() -> Format<PathBuf> {
    Format::new("FILE", "a file that can be read", |text| {
        File::open(text).is_ok().then(|| PathBuf::from(text))
    })
}

/// Hosts with ports.
pub(super) fn hosts() -> Format<Vec<String>> {
    let host = |host: &str| {
        let host = host.trim();
        let (name, port) = host.rsplit_once(':')?;
        let port = port.parse::<u16>().ok()?;
        (!name.is_empty() && port > 0).then(|| host.to_owned())
    };
    let expected = "HOST:PORT, or several with commas in between";
    Format::new("HOST:PORT,…", expected, move |text| {
        text.split(',').map(host).collect()
    })
}
