//! Which log messages are shown.

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::{Builder, LevelFilter};

use super::format::Format;

/// The names of levels.
const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];

/// A level, or a list of levels by target. Where the list has none without a target, everything
/// else is shown at level info: a misspelt target never silences the log.
pub(super) fn level() -> Format<String> {
    let expected =
        "error, warn, info, debug, trace or off, or a list such as info,command_api=debug";
    Format::new("LEVEL", expected, |text| {
        let directives = text.split(',').map(str::trim);
        let mut directives: Vec<_> = directives.filter(|text| !text.is_empty()).collect();
        // The library reads a word that is no level as a target, and then shows nothing else.
        if directives.is_empty() || !directives.iter().all(|text| names_a_level(text)) {
            return None;
        }
        if !directives.iter().any(|text| is_level(text)) {
            directives.insert(0, "info");
        }
        let text = directives.join(",");
        builder().parse(&text).is_ok().then_some(text)
    })
}

/// The filter of a level that [`level`] has read; any other text shows level info.
pub(super) fn filter(level: &str) -> EnvFilter {
    // The library's lenient way to parse prints with `eprintln!`, which panics.
    let filter = builder().parse(level);
    filter.unwrap_or_else(|_| EnvFilter::default().add_directive(LevelFilter::INFO.into()))
}

/// Whether a text of the list is a level, or ends in one: `TARGET=LEVEL`.
fn names_a_level(directive: &str) -> bool {
    let level = directive.rsplit_once('=').map(|(_, level)| level);
    is_level(level.unwrap_or(directive))
}

fn is_level(text: &str) -> bool {
    LEVELS.iter().any(|level| level.eq_ignore_ascii_case(text))
}

/// How a level is read. Values of fields are compared literally: as regular expressions, a short
/// text could take much time and memory.
fn builder() -> Builder {
    EnvFilter::builder().with_regex(false)
}
