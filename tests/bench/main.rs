//! Benchmarks, each against a reference in the same run, because a ratio means something on any
//! machine: `cargo run --release -p tests --bin bench -- --help`.

use std::path::Path;
use std::process::ExitCode;

mod core;
mod growth;
mod http;
mod kafka;
mod log;
mod versus;

mod load;
mod server;
mod usage;

/// The product's allocator, so that the domain is measured as it runs there.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The default directory of reports.
const REPORTS: &str = "target/bench";

const HELP: &str = "\
Usage: bench [core|log|http|kafka|all]
       bench [versus|growth] [quick] [DIRECTORY]
       bench report [DIRECTORY]

  core   decisions a second on one hot product, against a hash table insert
  log    the embedded log, against a bare loop of write and fdatasync
  http   attempts through the HTTP API, against an endpoint that answers at once
  kafka  the product on Kafka and Cassandra, which it starts: catching up, the whole path,
         recovery and projecting, against bare loops over the same clients
  all    the four of them (the default); takes about eight minutes

  versus the product against Redis with a script, PostgreSQL, and a front end that only
         appends to Kafka; takes about fifteen minutes, and four when quick
  growth what an attempt costs as one sale grows to ten million of them, and the start after
         it; takes about six minutes, and one when quick
  report the report of both again, from the data that they kept

These keep their data, plot and report in a directory, target/bench if none is named.
tests/bench/run runs both of them.

Absolute figures depend on the machine and what else runs on it; compare ratios.";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let which = arguments.first().map_or("all", String::as_str);
    let result = match which {
        // Internal: the reference server of `http`, in its own process like the real one.
        http::BARE_SERVER => http::serve_bare().await,
        core::MEMORY => core::print_memory(arguments.get(1).map_or("", String::as_str))
            .map_err(anyhow::Error::from),
        "core" | "log" | "http" | "kafka" | "all" => run(which).await,
        "versus" | "growth" | "report" => compare(which, &arguments[1..]).await,
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

async fn compare(which: &str, arguments: &[String]) -> anyhow::Result<()> {
    let (quick, rest) = match arguments {
        [first, rest @ ..] if first == "quick" => (true, rest),
        all => (false, all),
    };
    let dir = Path::new(rest.first().map_or(REPORTS, String::as_str));
    match which {
        "versus" => versus::run(quick, dir).await,
        "growth" => growth::run(quick, dir).await,
        _ => versus::write_report(dir),
    }
}
