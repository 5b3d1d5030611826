//! Doorbuster sells scarce things fast and fairly.

mod cli;
mod welcome;

use std::process::ExitCode;

use anyhow::Context;
use doorbuster::instance::Instance;
use doorbuster::{audit_source, file_limit, serve, skip};
use runtime::drain::{Drain, Signals};
use runtime::output::Output;
use runtime::settings::{Flags, LogFormat, Service, Settings};
use runtime::telemetry;
use rustix::fs::Mode;
use rustix::process::umask;

use self::cli::Action;

/// Small records are allocated and freed by different threads all the time. mimalloc is made for
/// that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // What the process creates is for its owner alone, also where a library creates it.
    umask(Mode::RWXG | Mode::RWXO);
    let result = match cli::parse() {
        Action::Serve(flags) => run(Service::Serve, &flags).await,
        Action::CommandApi(flags) => run(Service::CommandApi, &flags).await,
        Action::Decider(flags) => run(Service::Decider, &flags).await,
        Action::Projector(flags) => run(Service::Projector, &flags).await,
        Action::QueryApi(flags) => run(Service::QueryApi, &flags).await,
        Action::Rehearse(args) => rehearse::run(*args).await,
        Action::Audit(args) => audit::command::run(*args, audit_source::open).await,
        Action::Skip(args) => skip::run(*args).await,
    };
    let status = result.unwrap_or_else(|error| {
        telemetry::report_end(format_args!("{error:#}"));
        ExitCode::FAILURE
    });
    telemetry::flush_log(telemetry::LAST_MESSAGES);
    status
}

/// The life of a service: signals, settings, telemetry, bind and start, run, drain.
async fn run(service: Service, flags: &Flags) -> anyhow::Result<ExitCode> {
    // Before anything that takes time.
    let signals = Signals::listen().context("cannot listen for signals")?;
    let mut settings = match Settings::load(service, flags) {
        Ok(settings) => settings,
        Err(mistakes) => {
            mistakes.print(service, flags);
            return Ok(ExitCode::from(2));
        }
    };
    telemetry::init_logging(&settings.telemetry);
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    settings.http.max_connections = file_limit::raise(settings.http.max_connections);
    let drain = Drain::new(settings.drain_grace).with_delay(settings.drain_delay);
    drain.on_signals(signals);

    // Both bind the address before they do anything else. The start is a task of its own, since it
    // may block its thread while it reads files.
    let start = {
        let (settings, drain) = (settings.clone(), drain.clone());
        tokio::spawn(async move {
            match service {
                Service::Serve => serve::start(settings, drain).await,
                _ => start_alone(service, settings, drain).await,
            }
        })
    };
    let instance = tokio::select! {
        biased;
        instance = start => instance.context("the start panicked")??,
        () = drain.announced().cancelled() => {
            // Nothing was acknowledged yet, and every file survives a crash.
            tracing::info!("ended before the start was complete");
            telemetry::flush_log(telemetry::LAST_MESSAGES);
            std::process::exit(0);
        }
    };
    if service == Service::Serve && settings.telemetry.format == LogFormat::Pretty {
        let url = format!("http://{}", instance.address());
        let operations = format!("http://{}", instance.operations());
        print_welcome(welcome::text(&url, &operations, &settings));
    }
    tracing::info!(service = service.name(), address = %instance.address(), operations = %instance.operations(), "listening");

    // A signal starts the drain; this returns when the drain is complete.
    instance.wait().await?;
    Ok(ExitCode::SUCCESS)
}

/// Prints the text, which is only a help: the service does not wait until standard output is read.
fn print_welcome(welcome: String) {
    let printing = std::thread::Builder::new().spawn(move || {
        let mut output = Output::stdout();
        output.line(welcome);
        output.finish()
    });
    // Nobody waits for the thread.
    drop(printing);
}

#[cfg(feature = "distributed")]
async fn start_alone(
    service: Service,
    settings: Settings,
    drain: Drain,
) -> anyhow::Result<Instance> {
    doorbuster::distributed::services::start(service, settings, drain).await
}

#[cfg(not(feature = "distributed"))]
async fn start_alone(_: Service, _: Settings, _: Drain) -> anyhow::Result<Instance> {
    anyhow::bail!(doorbuster::EMBEDDED_ONLY)
}
