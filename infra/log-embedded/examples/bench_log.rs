//! x
#[path = "../../../tests/bench/log.rs"]
mod log;
fn main() { log::run() }
