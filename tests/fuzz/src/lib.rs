//! Fuzz targets: what is asked of everything that reads what outsiders wrote, whatever they
//! wrote.
//!
//! A target takes any bytes and panics when something does not hold that must. That nothing
//! panics or hangs is the least of it; each says at its top what more it asks. libFuzzer calls
//! them by way of `libfuzzer/`, and the ordinary tests with all inputs that are kept in `seeds/`
//! and `findings/`.

mod records;
mod schema;
mod texts;

mod frames;
mod log;
mod log_damaged;
mod log_forged;

mod commands;
mod http;
mod questions;
mod receipts;

mod demand;
mod settings;

/// A fuzz target by its name, which is also that of its folders and of libFuzzer's program.
pub struct Target {
    /// The name.
    pub name: &'static str,
    /// Takes an input, and panics when something does not hold.
    pub run: fn(&[u8]),
}

/// Every target.
pub const TARGETS: [Target; 12] = [
    target("records", records::run),
    target("schema", schema::run),
    target("texts", texts::run),
    target("log_damaged", log_damaged::run),
    target("log_forged", log_forged::run),
    target("orders", commands::orders),
    target("admin", commands::admin),
    target("questions", questions::run),
    target("receipts", receipts::run),
    target("demand", demand::run),
    target("settings", settings::run),
    target("shares", demand::share),
];

const fn target(name: &'static str, run: fn(&[u8])) -> Target {
    Target { name, run }
}

/// Runs the target of this name.
///
/// Panics when there is none, or when something does not hold.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("there is no fuzz target {name}"));
    (target.run)(input);
}

/// A directory for one input's files, in memory where the system has a place for that.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a directory for an input's files can be made")
}
