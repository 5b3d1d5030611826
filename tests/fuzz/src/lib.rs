//! Fuzz targets for everything that reads input from outside.
//!
//! A target takes any bytes and panics when a rule is broken. Nothing may panic or hang; each
//! target lists its further rules at its top. libFuzzer calls the targets through `libfuzzer/`, and
//! the ordinary tests run them on all inputs in `seeds/` and `findings/`.

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
    /// Takes an input, and panics when a rule is broken.
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
/// Panics when there is none, or when a rule is broken.
pub fn run(name: &str, input: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("there is no fuzz target {name}"));
    (target.run)(input);
}

/// A directory for one input's files, in memory where the system has a file system for that.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm")
        .or_else(|_| tempfile::tempdir())
        .expect("a directory for an input's files can be made")
}
