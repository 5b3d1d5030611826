//! Benchmarks, each against a reference in the same run, because a ratio means something on any
//! machine: `cargo run --release -p tests --bin bench -- --help`.

use std::process::ExitCode;

mod core;
mod http;
mod kafka;
mod load;
mod log;

const HELP: &str = "\
Usage: bench [core|log|http|kafka|all]

  core   decisions a second on one hot product, against a hash table insert
  log    the embedded log, against a bare loop of write and fdatasync
  http   attempts through the HTTP door, against an endpoint that answers at once
  kafka  the product on Kafka and Cassandra, which it starts: catching up, the whole path,
         recovery and projecting, against bare loops over the same clients
  all    the four of them (the default); takes about eight minutes

Absolute figures depend on the machine and what else runs on it; compare ratios.";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let which = arguments.first().map_or("all", String::as_str);
    let result = match which {
        // Not for people: the reference server of `http`, in a process of its own as the real
        // one is.
        http::BARE_SERVER => http::serve_bare().await,
        "core" | "log" | "http" | "kafka" | "all" => run(which).await,
        _ => {
            println!("{HELP}");
            return ExitCode::from(u8::from(which != "--help"));
        }
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(which: &str) -> anyhow::Result<()> {
    let wanted = |name| which == name || which == "all";
    if wanted("core") {
        core::run()?;
        println!();
    }
    if wanted("log") {
        tokio::task::block_in_place(log::run);
        println!();
    }
    if wanted("http") {
        http::run().await?;
        println!();
    }
    if wanted("kafka") {
        kafka::run().await?;
    }
    Ok(())
}
