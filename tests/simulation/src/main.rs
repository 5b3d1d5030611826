//! `simulate`: runs seeds, repeats a failing one and shortens it, and shows that it finds bugs.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use simulation::plan::Plan;
use simulation::run::{self, Outcome};
use simulation::{mutants, shorten};
use tracing_subscriber::EnvFilter;

/// The whole system under faults, from seeds: the real services over a simulated log, store,
/// clock and network.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs seeds until one fails, or until the count or the time is reached.
    Seeds {
        /// The first seed; random by default.
        #[arg(long)]
        from: Option<u64>,
        /// How many seeds.
        #[arg(long, default_value_t = 1_000, conflicts_with = "hours")]
        count: u64,
        /// For how many hours.
        #[arg(long)]
        hours: Option<f64>,
        /// Does not shorten the plan of a failing seed.
        #[arg(long)]
        as_found: bool,
    },
    /// Runs one seed, prints each violation, and shortens its plan. `RUST_LOG=info` shows the
    /// services' logs.
    Seed {
        /// The seed.
        seed: u64,
        /// Only these steps of its plan, by number from 0, as a shortened plan lists them.
        #[arg(long, value_delimiter = ',')]
        steps: Option<Vec<usize>>,
    },
    /// Puts each bug of a list into a copy of the code, and counts the seeds until it is caught.
    Mutants {
        /// Only bugs whose name contains this text.
        #[arg(long, default_value = "")]
        only: String,
        /// The most seeds for each bug.
        #[arg(long, default_value_t = 300)]
        seeds: u64,
    },
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .without_time()
        .with_writer(std::io::stderr)
        .init();
    // A panic is reported as a violation of its run.
    std::panic::set_hook(Box::new(|_| {}));
    match Arguments::parse().command {
        Command::Seeds {
            from,
            count,
            hours,
            as_found,
        } => run_seeds(from.unwrap_or_else(rand::random), count, hours, as_found),
        Command::Seed { seed, steps } => run_one(seed, steps),
        Command::Mutants { only, seeds } => match mutants::run(&only, seeds) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::FAILURE,
            Err(error) => {
                eprintln!("error: {error:#}");
                ExitCode::FAILURE
            }
        },
    }
}

fn run_seeds(from: u64, count: u64, hours: Option<f64>, as_found: bool) -> ExitCode {
    let started = Instant::now();
    let until = hours.map(|hours| started + Duration::from_secs_f64(hours * 3_600.0));
    let bar = ProgressBar::new(if until.is_some() { u64::MAX } else { count });
    let style = match until {
        Some(_) => "{spinner} {pos} seeds, {per_sec}, {elapsed} {msg}",
        None => "{bar:40} {pos}/{len} seeds, {per_sec}, {eta} {msg}",
    };
    bar.set_style(ProgressStyle::with_template(style).expect("the template is valid"));
    let mut simulated = Duration::ZERO;
    for n in 0.. {
        if until.map_or(n >= count, |until| Instant::now() > until) {
            bar.finish_and_clear();
            println!(
                "{n} seeds from {from} hold: {:.1} simulated hours in {}",
                simulated.as_secs_f64() / 3_600.0,
                HumanDuration(started.elapsed())
            );
            return ExitCode::SUCCESS;
        }
        let seed = from.wrapping_add(n);
        let outcome = run::run(&Plan::of(seed));
        simulated += outcome.simulated;
        bar.inc(1);
        if !outcome.violations.is_empty() {
            bar.finish_and_clear();
            println!("seed {seed} fails, after {n} that hold");
            print_violations(&outcome);
            return match as_found {
                true => ExitCode::FAILURE,
                false => print_shortened(&Plan::of(seed)),
            };
        }
    }
    ExitCode::SUCCESS
}

fn run_one(seed: u64, steps: Option<Vec<usize>>) -> ExitCode {
    let mut plan = Plan::of(seed);
    if let Some(steps) = &steps {
        let kept: BTreeSet<_> = steps.iter().collect();
        let mut n = 0..;
        plan.steps
            .retain(|_| n.next().is_some_and(|n| kept.contains(&n)));
    }
    let outcome = run::run(&plan);
    if outcome.violations.is_empty() {
        println!(
            "seed {seed} holds: digest {}, {:.1} simulated seconds",
            outcome.digest,
            outcome.simulated.as_secs_f64()
        );
        return ExitCode::SUCCESS;
    }
    println!("seed {seed} fails: digest {}", outcome.digest);
    print_violations(&outcome);
    print_shortened(&plan)
}

/// Prints the first violations.
fn print_violations(outcome: &Outcome) {
    const SHOWN: usize = 5;
    for violation in outcome.violations.iter().take(SHOWN) {
        println!("  {violation}");
    }
    if outcome.violations.len() > SHOWN {
        println!("  and {} more", outcome.violations.len() - SHOWN);
    }
}

/// Shortens a failing plan and prints it, with the commands that repeat the failure.
fn print_shortened(plan: &Plan) -> ExitCode {
    let bar = ProgressBar::new_spinner().with_message("shortening");
    let short = shorten::shorten(plan, |steps| {
        bar.set_message(format!("shortening: {steps} steps left"));
        bar.tick();
    });
    bar.finish_and_clear();
    println!(
        "{:?}\n{:?}\nshortened from {} to {} steps:",
        plan.deployment,
        plan.fault_rates,
        plan.steps.len(),
        short.steps.len()
    );
    for step in &short.steps {
        println!("{step}");
    }
    let all = Plan::of(plan.seed).steps;
    let mut all = all.iter().map(ToString::to_string).enumerate();
    let numbers = short.steps.iter().filter_map(|step| {
        let text = step.to_string();
        all.find(|(_, other)| *other == text)
            .map(|(n, _)| n.to_string())
    });
    let numbers: Vec<_> = numbers.collect();
    let command = "cargo run --release -p simulation -- seed";
    println!(
        "to repeat it:\n  {command} {}\n  {command} {} --steps {}",
        plan.seed,
        plan.seed,
        numbers.join(",")
    );
    ExitCode::FAILURE
}
