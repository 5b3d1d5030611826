//! Starts real Kafka, Cassandra and a schema registry on loopback, for tests and local work.

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::Parser;
use engines::{DIRECTORY_VARIABLE, Engines, Error, Options};
use runtime::output::{Output, error_line};
use runtime::private_files;
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

const EXAMPLES: &str = "\
Examples:
  engines up                             Start all, print the settings, stop all at Ctrl-C
  eval \"$(engines up --detach)\"          Start all, and set the settings in this shell
  engines status                         Show what runs, where, and whether it answers
  engines start                          Start again what has ended, with its ports and data
  engines start kafka-2                  The same for one part
  engines down                           Stop what runs
  engines fetch                          Fetch their programs, about 260 MB, without a start
  engines run -- cargo test -p log-kafka Run the tests against one fresh set of 3 brokers
  engines run --brokers 1 -- bash        A shell with engines that stop when it exits

The engines need Java 17 (Debian: apt-get install openjdk-17-jdk-headless) and, the first time,
Maven (apt-get install maven): Kafka, Cassandra and Apicurio come from Maven Central and are kept
in ~/.cache/doorbuster/engines, about 260 MB. All listen on 127.0.0.1 only, on free ports.

Exit status: 0 if it was done, 1 if it failed or what it prints could not be written. A reader of
standard output that ends early, such as head, is no failure.";

/// Why a command fails although it did its work.
const NOT_PRINTED: &str = "cannot write to standard output";

/// Starts real Apache Kafka, Apache Cassandra and a Confluent-compatible schema registry on this
/// machine, for tests and local work.
#[derive(Parser)]
#[command(name = "engines", version, after_help = EXAMPLES)]
enum Cli {
    /// Start all, wait until they answer, and print the settings to use with Doorbuster
    ///
    /// Runs until Ctrl-C or SIGTERM, and then stops the engines. Data that was in the directory before
    /// is kept: to start afresh, stop the engines and remove the directory.
    Up {
        /// Brokers: 1, or 3 with replication factor 3, of which any one may be lost
        #[arg(long, value_name = "1|3", default_value_t = 1, value_parser = one_or_three)]
        brokers: u8,
        #[command(flatten)]
        directory: Directory,
        /// Return when the engines answer, and leave them running until `engines down`
        #[arg(long)]
        detach: bool,
    },
    /// Start again the parts of a set that have ended, with their ports and data
    Start {
        /// The parts, by the names that `engines status` shows [default: all that have ended]
        #[arg(value_name = "PART")]
        parts: Vec<String>,
        #[command(flatten)]
        directory: Directory,
    },
    /// Stop the engines; their data stays
    Down(Directory),
    /// Fetch the programs of the engines, if they are not there yet, and return
    Fetch,
    /// Show what runs, where it listens, and whether it answers
    ///
    /// Ends with status 0 if all parts answer, else 1.
    Status(Directory),
    /// Start a set, run a command with its settings, and stop the set
    ///
    /// The command gets the settings in its environment, and the set's directory in ENGINES_DIR, so
    /// that tests use this set instead of each starting their own. Exits with the command's status.
    Run {
        /// Brokers: 1, or 3 with replication factor 3, of which any one may be lost
        #[arg(long, value_name = "1|3", default_value_t = 3, value_parser = one_or_three)]
        brokers: u8,
        /// Where settings, data and logs are kept [default: a temporary directory, removed at the
        /// end]
        #[arg(long)]
        dir: Option<PathBuf>,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        command: Vec<String>,
    },
}

#[derive(clap::Args)]
struct Directory {
    /// Where settings, data and logs are kept [default: target/engines-data in the workspace]
    #[arg(long, default_value = DEFAULT_DIR, hide_default_value = true)]
    dir: PathBuf,
}

/// In the workspace's target directory, wherever the program is run from.
const DEFAULT_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/engines-data");

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let result = match Cli::parse() {
        Cli::Up {
            brokers,
            directory,
            detach,
        } => up(brokers, directory.dir, detach).await,
        Cli::Start { parts, directory } => start_ended(&parts, &directory.dir),
        Cli::Down(directory) => down(&directory.dir),
        Cli::Fetch => fetch(),
        Cli::Status(directory) => status(&directory.dir),
        Cli::Run {
            brokers,
            dir,
            command,
        } => run(brokers, dir, &command).await,
    };
    result.unwrap_or_else(|error| {
        error_line(format_args!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

async fn up(brokers: u8, dir: PathBuf, detach: bool) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let engines = start(brokers, Some(dir), &mut signals).await?;
    let lines = engines.settings().into_iter();
    let settings: String = lines
        .map(|(name, value)| format!("export {name}={value}\n"))
        .collect();
    let env = engines.dir().join("env");
    let saved =
        private_files::create(&env).and_then(|mut file| file.write_all(settings.as_bytes()));
    saved.with_context(|| format!("cannot write {}", env.display()))?;
    let mut output = Output::stdout();
    output.text(settings);
    // Without its settings nobody can use the set: it is stopped.
    output.finish().context(NOT_PRINTED)?;
    error_line(format_args!("These settings are also in {}", env.display()));
    if detach {
        error_line(format_args!(
            "The engines run until: engines down --dir {}",
            engines.dir().display()
        ));
        engines.detach();
        return Ok(ExitCode::SUCCESS);
    }
    error_line("Ctrl-C stops the engines.");
    signals.next().await;
    error_line("Stopping the engines");
    engines.stop()?;
    Ok(ExitCode::SUCCESS)
}

fn start_ended(parts: &[String], dir: &Path) -> anyhow::Result<ExitCode> {
    let engines = Engines::attach(dir)?;
    let mut output = Output::stdout();
    let started = engines.start_ended(parts)?;
    for part in &started {
        output.line(format_args!("{part} answers again"));
    }
    if started.is_empty() {
        output.line("nothing had ended");
    }
    output.finish().context(NOT_PRINTED)?;
    Ok(ExitCode::SUCCESS)
}

fn down(dir: &Path) -> anyhow::Result<ExitCode> {
    let engines = match Engines::attach(dir) {
        Err(Error::NoSet { dir }) => {
            error_line(format_args!("No engines run in {}", dir.display()));
            return Ok(ExitCode::SUCCESS);
        }
        engines => engines?,
    };
    // If a process runs them in the foreground, it stops them and exits.
    if let Some(owner) = engines
        .owner()
        .and_then(|owner| Pid::from_raw(owner as i32))
    {
        let _ = kill_process(owner, Signal::TERM);
        let deadline = Instant::now() + Duration::from_secs(30);
        while engines.owner().is_some() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    engines.stop()?;
    Ok(ExitCode::SUCCESS)
}

fn fetch() -> anyhow::Result<ExitCode> {
    engines::fetch(&Options::default())?;
    Ok(ExitCode::SUCCESS)
}

fn status(dir: &Path) -> anyhow::Result<ExitCode> {
    let engines = Engines::attach(dir)?;
    let mut all_answer = true;
    let mut output = Output::stdout();
    for part in engines.status() {
        let answers = part.pid.is_some() && part.problem.is_none();
        let state = match (part.pid, part.problem) {
            (None, _) => "does not run".to_owned(),
            (Some(pid), None) => format!("answers (process {pid})"),
            (Some(pid), Some(problem)) => format!("does not answer (process {pid}): {problem}"),
        };
        output.line(format_args!("{:10} {:46} {state}", part.name, part.address));
        output.line(format_args!("{:10} log: {}", "", part.log.display()));
        all_answer &= answers;
    }
    output.finish().context(NOT_PRINTED)?;
    Ok(if all_answer {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn run(brokers: u8, dir: Option<PathBuf>, command: &[String]) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::listen()?;
    let engines = start(brokers, dir, &mut signals).await?;
    let (program, arguments) = command.split_first().context("there is no command")?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .envs(engines.settings())
        .env(DIRECTORY_VARIABLE, engines.dir())
        .spawn()
        .with_context(|| format!("cannot run {program}"))?;
    let pid = child.id().and_then(|pid| Pid::from_raw(pid as i32));
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            // Ctrl-C reaches the command as well; SIGTERM reaches only this process and is passed
            // on.
            signal = signals.next() => if let (Signal::TERM, Some(pid)) = (signal, pid) {
                // Fails only if the command has ended meanwhile.
                let _ = kill_process(pid, Signal::TERM);
            },
        }
    };
    // The same code as a shell's when a signal ended the command.
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .unwrap_or(1);
    Ok(ExitCode::from(code as u8))
}

/// Starts a set and reports it. Exits if a signal arrives meanwhile.
async fn start(
    brokers: u8,
    dir: Option<PathBuf>,
    signals: &mut Signals,
) -> anyhow::Result<Engines> {
    let options = Options {
        brokers,
        dir,
        ..Options::default()
    };
    let started = Instant::now();
    error_line(format_args!(
        "Starting Kafka (brokers: {brokers}), Cassandra and a schema registry"
    ));
    let start = tokio::task::spawn_blocking(move || Engines::start(&options));
    tokio::select! {
        engines = start => {
            let engines = engines.context("the start was aborted")??;
            error_line(format_args!(
                "All answer after {:.1} s",
                started.elapsed().as_secs_f32()
            ));
            Ok(engines)
        }
        // The engines started so far stop with this process.
        _ = signals.next() => std::process::exit(130),
    }
}

fn one_or_three(text: &str) -> Result<u8, &'static str> {
    match text {
        "1" => Ok(1),
        "3" => Ok(3),
        _ => Err("a set has 1 or 3 brokers"),
    }
}

/// Ctrl-C and SIGTERM.
struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        let [interrupt, terminate] = [SignalKind::interrupt(), SignalKind::terminate()].map(signal);
        Ok(Self {
            interrupt: interrupt?,
            terminate: terminate?,
        })
    }

    /// The next signal; none since [`listen`](Self::listen) is missed.
    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.terminate.recv() => Signal::TERM,
        }
    }
}
