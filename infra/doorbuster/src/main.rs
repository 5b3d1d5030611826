//! Doorbuster sells scarce things fast and fairly.

mod cli;
mod file_limit;
mod welcome;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use doorbuster::instance::Instance;
use doorbuster::{audit_source, serve};
use runtime::settings::{Flags, LogFormat, Service, Settings};
use runtime::telemetry;

use self::cli::Action;

/// Small records are allocated and freed by different threads all the time. mimalloc is made for
/// that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let result = match cli::parse() {
        Action::Serve(flags) => run(Service::Serve, &flags).await,
        Action::CommandApi(flags) => run(Service::CommandApi, &flags).await,
        Action::Decider(flags) => run(Service::Decider, &flags).await,
        Action::Projector(flags) => run(Service::Projector, &flags).await,
        Action::QueryApi(flags) => run(Service::QueryApi, &flags).await,
        Action::Rehearse(args) => rehearse::run(*args).await,
        Action::Audit(args) => audit::command::run(*args, audit_source::open).await,
    };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error:#}");
        ExitCode::FAILURE
    })
}

/// The life of a service: settings, telemetry, bind and start, run, drain.
async fn run(service: Service, flags: &Flags) -> anyhow::Result<ExitCode> {
    let settings = match Settings::load(service, flags) {
        Ok(settings) => settings,
        Err(mistakes) => {
            mistakes.tell(service);
            return Ok(ExitCode::from(2));
        }
    };
    telemetry::init_logging(&settings.telemetry);
    file_limit::raise();

    // Both bind the address before they do anything else.
    let instance = match service {
        Service::Serve => serve::start(settings.clone()).await?,
        _ => start_alone(service, settings.clone()).await?,
    };
    instance
        .drain()
        .on_signals()
        .context("cannot listen for signals")?;
    if service == Service::Serve && settings.telemetry.format == LogFormat::Pretty {
        let welcome = welcome::text(&format!("http://{}", instance.address()), &settings);
        // A closed standard output is no reason to stop.
        let _ = writeln!(std::io::stdout(), "{welcome}");
    }
    tracing::info!(service = service.name(), address = %instance.address(), "listening");

    // A signal starts the drain; this returns when the drain is complete.
    instance.wait().await?;
    Ok(ExitCode::SUCCESS)
}

#[cfg(feature = "distributed")]
async fn start_alone(service: Service, settings: Settings) -> anyhow::Result<Instance> {
    doorbuster::distributed::services::start(service, settings).await
}

#[cfg(not(feature = "distributed"))]
async fn start_alone(_: Service, _: Settings) -> anyhow::Result<Instance> {
    anyhow::bail!(doorbuster::EMBEDDED_ONLY)
}
