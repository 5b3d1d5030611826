//! `simulate`: runs seeds, repeats a failing one and shortens it, and shows that it finds bugs.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, Subcommand};
use indicatif::{HumanDuration, ProgressBar, ProgressStyle};
use runtime::output::{Output, error_line};
use simulation::plan::Plan;
use simulation::run::{self, Outcome};
use simulation::{mutants, shorten};
use tracing_subscriber::EnvFilter;

/// Exit status when what was found could not be written.
const NOT_WRITTEN: u8 = 2;

const NOTES: &str = "\
Exit status:
  0  every seed holds, or every bug was caught
  1  a seed fails, a bug was not caught, or the bugs could not be tried
  2  everything holds, but the output could not be written

A reader of standard output that ends early, such as head, does not change the status.";

/// The whole system under faults, from seeds: the real services over a simulated log, store,
/// clock and network.
#[derive(Parser)]
#[command(after_help = NOTES)]
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
        // The subscriber reports its own errors with `eprintln!`, which panics.
        .log_internal_errors(false)
        .init();
    // A panic is reported as a violation of its run.
    std::panic::set_hook(Box::new(|_| {}));
    let mut output = Output::stdout();
    let holds = match Arguments::parse().command {
        Command::Seeds {
            from,
            count,
            hours,
            as_found,
        } => {
            let from = from.unwrap_or_else(rand::random);
            run_seeds(&mut output, from, count, hours, as_found)
        }
        Command::Seed { seed, steps } => run_one(&mut output, seed, steps),
        Command::Mutants { only, seeds } => {
            mutants::run(&mut output, &only, seeds).unwrap_or_else(|error| {
                error_line(format_args!("error: {error:#}"));
                false
            })
        }
    };
    match output.finish() {
        Err(error) => {
            error_line(format_args!(
                "error: cannot write to standard output: {error}"
            ));
            ExitCode::from(if holds { NOT_WRITTEN } else { 1 })
        }
        Ok(()) if holds => ExitCode::SUCCESS,
        Ok(()) => ExitCode::FAILURE,
    }
}

/// Runs seeds; returns whether all of them hold.
fn run_seeds(
    output: &mut Output,
    from: u64,
    count: u64,
    hours: Option<f64>,
    as_found: bool,
) -> bool {
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
            output.line(format_args!(
                "{n} seeds from {from} hold: {:.1} simulated hours in {}",
                simulated.as_secs_f64() / 3_600.0,
                HumanDuration(started.elapsed())
            ));
            return true;
        }
        let seed = from.wrapping_add(n);
        let outcome = run::run(&Plan::of(seed));
        simulated += outcome.simulated;
        bar.inc(1);
        if !outcome.violations.is_empty() {
            bar.finish_and_clear();
            output.line(format_args!("seed {seed} fails, after {n} that hold"));
            print_violations(output, &outcome);
            if !as_found {
                print_shortened(output, &Plan::of(seed));
            }
            return false;
        }
    }
    true
}

/// Runs one seed; returns whether it holds.
fn run_one(output: &mut Output, seed: u64, steps: Option<Vec<usize>>) -> bool {
    let mut plan = Plan::of(seed);
    if let Some(steps) = &steps {
        let kept: BTreeSet<_> = steps.iter().collect();
        let mut n = 0..;
        plan.steps
            .retain(|_| n.next().is_some_and(|n| kept.contains(&n)));
    }
    let outcome = run::run(&plan);
    if outcome.violations.is_empty() {
        output.line(format_args!(
            "seed {seed} holds: digest {}, {:.1} simulated seconds",
            outcome.digest,
            outcome.simulated.as_secs_f64()
        ));
        return true;
    }
    output.line(format_args!("seed {seed} fails: digest {}", outcome.digest));
    print_violations(output, &outcome);
    print_shortened(output, &plan);
    false
}

/// Prints the first violations.
fn print_violations(output: &mut Output, outcome: &Outcome) {
    const SHOWN: usize = 5;
    for violation in outcome.violations.iter().take(SHOWN) {
        output.line(format_args!("  {violation}"));
    }
    if outcome.violations.len() > SHOWN {
        let more = outcome.violations.len() - SHOWN;
        output.line(format_args!("  and {more} more"));
    }
}

/// Shortens a failing plan and prints it, with the commands that repeat the failure.
fn print_shortened(output: &mut Output, plan: &Plan) {
    let bar = ProgressBar::new_spinner().with_message("shortening");
    let short = shorten::shorten(plan, |steps| {
        bar.set_message(format!("shortening: {steps} steps left"));
        bar.tick();
    });
    bar.finish_and_clear();
    output.line(format_args!(
        "{:?}\n{:?}\nshortened from {} to {} steps:",
        plan.deployment,
        plan.fault_rates,
        plan.steps.len(),
        short.steps.len()
    ));
    for step in &short.steps {
        output.line(step);
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
    output.line(format_args!(
        "to repeat it:\n  {command} {}\n  {command} {} --steps {}",
        plan.seed,
        plan.seed,
        numbers.join(",")
    ));
}
