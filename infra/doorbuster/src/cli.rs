//! The command line: its subcommands, and the examples in their help.

use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use runtime::settings::{self, Flags, Service};

const EXAMPLES: &str = "\
Examples:
  doorbuster                                        Serve on http://127.0.0.1:8080
  doorbuster serve --listen 0.0.0.0:80 --data-dir /var/lib/doorbuster
  DOORBUSTER_ADMIN_TOKEN=SECRET doorbuster serve    Serve, and accept administration of sales
  doorbuster serve --config doorbuster.toml         Serve with settings from a file
  doorbuster rehearse                               10,000 buyers want 10 items
  doorbuster rehearse --target http://HOST:PORT     The same against a running instance
  doorbuster audit                                  Prove that nothing was lost or sold twice";

const DISTRIBUTED: &str = "\
Examples:
  cargo run --release -p engines -- up      Start Kafka, Cassandra and a registry on this machine
  doorbuster command-api --kafka-brokers kafka-1:9092,kafka-2:9092 --cql-nodes scylla-1:9042 \
--registry-url http://registry:8081
  DOORBUSTER_CONFIG=doorbuster.toml doorbuster decider  One file for all services
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

/// What the process does.
#[derive(Subcommand)]
pub enum Action {
    /// Run all services in one process, on the embedded engine (the default)
    #[command(after_help = EXAMPLES)]
    Serve(Flags),
    /// Run the command API alone: accepts orders over HTTP and appends them to Kafka
    #[command(after_help = DISTRIBUTED)]
    CommandApi(Flags),
    /// Run deciders alone: they share the partitions with all other deciders
    #[command(after_help = DISTRIBUTED)]
    Decider(Flags),
    /// Run projectors alone: they share the partitions with all other projectors
    #[command(after_help = DISTRIBUTED)]
    Projector(Flags),
    /// Run the query API alone: answers queries over HTTP and serves the page
    #[command(after_help = DISTRIBUTED)]
    QueryApi(Flags),
    // The help of the next three stands at their arguments.
    Rehearse(Box<rehearse::Args>),
    Audit(Box<audit::command::Args>),
    Skip(Box<doorbuster::skip::Args>),
}

/// Reads the command line. Ends the process when the command line asks for help or is wrong.
pub fn parse() -> Action {
    let cli = Cli::from_arg_matches(&command().get_matches()).unwrap_or_else(|e| e.exit());
    cli.action.unwrap_or(Action::Serve(cli.flags))
}

/// The command line, in which each subcommand shows the settings that it uses.
fn command() -> clap::Command {
    let services = Service::ALONE.into_iter();
    let shown = services.chain([Service::Serve, Service::Audit]);
    let cli = settings::help_for(Service::Serve, Cli::command());
    let cli = shown.fold(cli, |cli, service| {
        cli.mut_subcommand(service.name(), |command| {
            settings::help_for(service, command)
        })
    });
    // It opens the logs as an audit does.
    cli.mut_subcommand("skip", |command| {
        settings::help_for(Service::Audit, command)
    })
}
