//! `simulate`: runs seeds, repeats a failing one, shortens it, and shows that bugs are found.

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
    /// Runs seeds until one fails: so many, or for so long.
    Seeds {
        /// The first seed; by default one that was never run before.
        #[arg(long)]
        from: Option<u64>,
        /// How many seeds.
        #[arg(long, default_value_t = 1_000, conflicts_with = "hours")]
        count: u64,
        /// For how many hours.
        #[arg(long)]
        hours: Option<f64>,
        /// Does not shorten the history of a seed that fails.
        #[arg(long)]
        as_found: bool,
    },
    /// Runs one seed, says what did not hold, and shortens its history. `RUST_LOG=info` shows
    /// what the services log meanwhile.
    Seed {
        /// The seed.
        seed: u64,
        /// Only these steps of its plan, by number from 0, as a shortened history names them.
        #[arg(long, value_delimiter = ',')]
        steps: Option<Vec<usize>>,
    },
    /// Puts each of a list of bugs into a copy of the code, and counts the seeds until it is
    /// caught.
    Mutants {
        /// Only those whose name has this in it.
        #[arg(long, default_value = "")]
        only: String,
        /// The most seeds for each.
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
    // A panic is a violation of the run, and told as one.
    std::panic::set_hook(Box::new(|_| {}));
    match Arguments::parse().command {
        Command::Seeds {
            from,
            count,
            hours,
            as_found,
        } => seeds(from.unwrap_or_else(rand::random), count, hours, as_found),
        Command::Seed { seed, steps } => one(seed, steps),
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

fn seeds(from: u64, count: u64, hours: Option<f64>, as_found: bool) -> ExitCode {
    let began = Instant::now();
    let until = hours.map(|hours| began + Duration::from_secs_f64(hours * 3_600.0));
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
                HumanDuration(began.elapsed())
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
            show(&outcome);
            return match as_found {
                true => ExitCode::FAILURE,
                false => explain(&Plan::of(seed)),
            };
        }
    }
    ExitCode::SUCCESS
}

fn one(seed: u64, steps: Option<Vec<usize>>) -> ExitCode {
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
    show(&outcome);
    explain(&plan)
}

/// Says what did not hold.
fn show(outcome: &Outcome) {
    const SHOWN: usize = 5;
    for violation in outcome.violations.iter().take(SHOWN) {
        println!("  {violation}");
    }
    if outcome.violations.len() > SHOWN {
        println!("  and {} more", outcome.violations.len() - SHOWN);
    }
}

/// Says how to see a failure again, with as few steps as possible.
fn explain(plan: &Plan) -> ExitCode {
    let bar = ProgressBar::new_spinner().with_message("shortening");
    let short = shorten::shorten(plan, |steps| {
        bar.set_message(format!("shortening: {steps} steps left"));
        bar.tick();
    });
    bar.finish_and_clear();
    println!(
        "{:?}\n{:?}\nshortened from {} to {} steps:",
        plan.cast,
        plan.weather,
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
