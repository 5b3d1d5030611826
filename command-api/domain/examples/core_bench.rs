//! Temporary: runs the core benchmark.
#[path = "../../../tests/bench/core.rs"]
mod core;
fn main() -> std::io::Result<()> { core::run() }
