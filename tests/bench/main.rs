//! Benchmarks, each against a reference in the same run: `cargo bench-all` or
//! `cargo run --release -p tests --bin bench -- [core|log|http]`.

fn main() {}
