//! Doorbuster sells scarce things fast and fairly.

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use doorbuster::{audit, demo, rehearse, serve, services};
use runtime::settings::{self, Flags, LogFormat, Service, Settings};
use runtime::telemetry;

/// Small records are allocated and freed by different threads all the time, which is what this
/// allocator is made for.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How many files and connections the process may have open, where its user may set that.
const OPEN_FILES: u64 = 65_536;

const EXAMPLES: &str = "\
Examples:
  doorbuster                                        Serve on http://127.0.0.1:8080
  doorbuster serve --listen 0.0.0.0:80 --data-dir /var/lib/doorbuster
  DOORBUSTER_ADMIN_TOKEN=SECRET doorbuster serve    Serve, and let sales be administered
  doorbuster serve --config door.toml               Serve with settings from a file
  doorbuster rehearse                               10,000 buyers want 10 items
  doorbuster rehearse --target http://HOST:PORT     The same against a running instance
  doorbuster audit                                  Prove that nothing was lost or sold twice";

const DISTRIBUTED: &str = "\
Examples:
  cargo run --release -p engines -- up      Start Kafka, Cassandra and a registry on this machine
  doorbuster command-api --kafka-brokers kafka-1:9092,kafka-2:9092 --cql-nodes scylla-1:9042 \
--registry-url http://registry:8081
  DOORBUSTER_CONFIG=door.toml doorbuster decider      One file for all services
  doorbuster audit --distributed            Prove that nothing was lost or sold twice";

/// Sells scarce things fast: thousands of people want ten items in the same second, and every
/// one of them gets one correct, explainable answer.
#[derive(Parser)]
#[command(name = "doorbuster", version, after_help = EXAMPLES)]
#[command(args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    flags: Flags,
}

#[derive(Subcommand)]
enum Action {
    /// Run all services in one process, on the embedded engine (the default)
    #[command(after_help = EXAMPLES)]
    Serve(Flags),
    /// Run the door alone: takes what is asked over HTTP and appends it to Kafka
    #[command(after_help = DISTRIBUTED)]
    CommandApi(Flags),
    /// Run deciders alone: they share the partitions with all other deciders
    #[command(after_help = DISTRIBUTED)]
    Decider(Flags),
    /// Run projectors alone: they share the partitions with all other projectors
    #[command(after_help = DISTRIBUTED)]
    Projector(Flags),
    /// Run the read side alone: answers questions over HTTP, and has the page
    #[command(after_help = DISTRIBUTED)]
    QueryApi(Flags),
    /// Rehearse a sale through the HTTP door, and check that every answer holds
    Rehearse(Box<rehearse::Args>),
    /// Prove from the logs that no unit was lost or sold twice, and that everyone had their turn
    Audit(Box<audit::Args>),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::from_arg_matches(&commands().get_matches()).unwrap_or_else(|e| e.exit());
    let result = match cli.action.unwrap_or(Action::Serve(cli.flags)) {
        Action::Serve(flags) => run_service(Service::Serve, &flags).await,
        Action::CommandApi(flags) => run_service(Service::CommandApi, &flags).await,
        Action::Decider(flags) => run_service(Service::Decider, &flags).await,
        Action::Projector(flags) => run_service(Service::Projector, &flags).await,
        Action::QueryApi(flags) => run_service(Service::QueryApi, &flags).await,
        Action::Rehearse(args) => rehearse::run(*args).await,
        Action::Audit(args) => audit::run(*args).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// The command line, in which each subcommand shows the settings that it uses.
fn commands() -> clap::Command {
    let services = Service::ALONE.into_iter();
    let shown = services.chain([Service::Serve, Service::Audit]);
    let cli = settings::help_for(Service::Serve, Cli::command());
    shown.fold(cli, |cli, service| {
        cli.mut_subcommand(service.name(), |command| {
            settings::help_for(service, command)
        })
    })
}

async fn run_service(service: Service, flags: &Flags) -> anyhow::Result<ExitCode> {
    let settings = match Settings::load(service, flags) {
        Ok(settings) => settings,
        Err(mistakes) => {
            mistakes.tell(service);
            return Ok(ExitCode::from(2));
        }
    };
    telemetry::init_logging(&settings.telemetry);
    allow_open_files();
    let running = match service {
        Service::Serve => serve::start(settings.clone()).await?,
        _ => services::start(service, settings.clone()).await?,
    };
    running
        .drain()
        .on_signals()
        .context("cannot listen for signals")?;
    if service == Service::Serve && settings.telemetry.format == LogFormat::Pretty {
        let welcome = welcome(&format!("http://{}", running.address()), &settings);
        // That nobody reads it, or no longer does, is no reason to end.
        let _ = writeln!(std::io::stdout(), "{welcome}");
    }
    tracing::info!(service = service.name(), address = %running.address(), "open");
    running.ended().await?;
    Ok(ExitCode::SUCCESS)
}

/// What to open and what to try.
fn welcome(url: &str, settings: &Settings) -> String {
    let product = demo::PRODUCT;
    let admin = match settings.http.admin_token {
        Some(_) => "on, for whoever sends Authorization: Bearer with the admin token",
        None => "off; set DOORBUSTER_ADMIN_TOKEN to turn it on",
    };
    let try_it = if settings.demo {
        format!(
            "\n\
             \x20 Order one   curl -i {url}/api/flash-sales/{product}/order \\\n\
             \x20               -H 'X-Buyer-Id: me' -H 'Content-Type: application/json' \\\n\
             \x20               -d '{{\"quantity\":1}}'\n\
             \x20 Its answer  curl '{url}/api/attempts/ATTEMPT_ID?wait=10'\n"
        )
    } else {
        String::new()
    };
    format!(
        "\nDoorbuster is open.\n\n\
         \x20 Watch       {url}/\n\
         \x20 All sales   curl {url}/api/flash-sales\n\
         {try_it}\n\
         \x20 Rehearse    doorbuster rehearse      (10,000 buyers want 10 items)\n\
         \x20 The API     {url}/openapi.json\n\
         \x20 Metrics     {url}/metrics\n\
         \x20 Admin       {admin}\n\
         \x20 Data        {}\n\n\
         Ctrl-C drains and ends.\n",
        settings.data_dir.display()
    )
}

/// A connection is a file; the limit that shells give is for people, not for crowds.
fn allow_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let wanted = maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if current.is_some_and(|current| current < wanted) {
        let limit = Rlimit {
            current: Some(wanted),
            maximum,
        };
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files stays as it is");
        }
    }
}
