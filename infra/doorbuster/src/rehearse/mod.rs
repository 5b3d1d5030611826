//! `doorbuster rehearse`: a crowd, or a shop's recorded demand, through the real HTTP door.
//!
//! The rehearsal stands outside: it knows what any buyer and seller can know, sends orders,
//! waits for their answers, and judges at the end whether they can all be true at once.
//! [`crowd`] and [`demand`] send; [`seen`] is what they saw; [`checks`] judges it; [`report`]
//! says it. [`client`] is the door, [`said`] what it says.

pub mod crowd;
pub mod demand;
pub mod recorded;

pub mod checks;
pub mod report;
pub mod seen;

pub mod client;
pub mod decimal;
pub mod instance;
pub mod said;
mod sales;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};

use self::client::Client;
use self::crowd::Crowd;
use self::decimal::Share;
use self::instance::Instance;
use self::recorded::Survey;
use self::report::{Report, Totals};
use self::seen::{Run, SaleSeen};

/// Exit status when an invariant is broken.
const BROKEN: u8 = 1;
/// Exit status when the rehearsal could not be carried out.
const UNUSABLE: u8 = 2;

/// Rehearse a sale through the HTTP door, with a made-up crowd or recorded demand, and check
/// that every answer holds.
///
/// Exits with 0 when everything was answered and every invariant holds, 1 when not, 2 when the
/// rehearsal could not be carried out.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// A running instance, such as http://127.0.0.1:8080 [default: one of its own, in a
    /// temporary directory]
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,

    /// Where questions go, when the target answers none: the query-api of services that run
    /// alone, such as http://127.0.0.1:8082
    #[arg(long, value_name = "URL", requires = "target")]
    pub questions: Option<String>,

    /// The target's admin token, which creating the sales takes
    #[arg(
        long,
        value_name = "TOKEN",
        env = "DOORBUSTER_ADMIN_TOKEN",
        hide_env_values = true
    )]
    pub admin_token: Option<String>,

    /// How many buyers come
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub buyers: u32,

    /// Seconds over which they come evenly, instead of in the rush of an opening
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub over: Option<u64>,

    /// Units of each product
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000_000_000))]
    pub stock: u32,

    /// How many products, the first the most wanted
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub products: u32,

    /// What the crowd's plan and all keys come from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Recorded demand instead of a crowd: a shop's order stream, .csv or .csv.gz
    #[arg(long, value_name = "FILE", conflicts_with_all = ["buyers", "over", "stock", "products"])]
    pub file: Option<PathBuf>,

    /// Part of the units that a file's buyers want which is put on sale, rounded up
    #[arg(long, value_name = "SHARE", default_value = "0.8")]
    pub stock_share: Share,

    /// Where to write the report as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// A new directory for the data of an instance of its own, kept afterwards
    #[arg(long, value_name = "DIR", conflicts_with = "target")]
    pub keep: Option<PathBuf>,

    /// Orders under way at once
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub connections: u16,

    /// Seconds that the instance may be full or away before the rehearsal ends
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub patience: u64,
}

/// Carries a rehearsal out and prints its report.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let outcome = tokio::select! {
        outcome = rehearse(&args) => outcome,
        _ = tokio::signal::ctrl_c() => Err(anyhow::anyhow!("interrupted")),
    };
    Ok(match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(BROKEN),
        Err(error) => {
            eprintln!("rehearse: {error:#}");
            ExitCode::from(UNUSABLE)
        }
    })
}

/// Whether everything holds.
async fn rehearse(args: &Args) -> anyhow::Result<bool> {
    // What can be wrong with the arguments shows before an instance is started.
    let survey = match &args.file {
        Some(path) => Some((path.as_path(), survey(path, args.stock_share).await?)),
        None => None,
    };
    let json = args.json.as_deref().map(create).transpose()?;
    let instance = match &args.target {
        Some(_) => None,
        None => Some(Instance::start(args.keep.as_deref()).await?),
    };
    let report = against(args, instance.as_ref(), survey.as_ref()).await;
    if let Some(instance) = instance {
        let keep = !matches!(&report, Ok(report) if report.passed);
        if let Some(path) = instance.stop(keep).await? {
            eprintln!(
                "The instance's data and output are kept in {}",
                path.display()
            );
        }
    }
    let report = report?;
    print!("{report}");
    if let Some((mut file, path)) = json {
        serde_json::to_writer_pretty(&mut file, &report)
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(writeln!(file)?))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(report.passed)
}

async fn against(
    args: &Args,
    instance: Option<&Instance>,
    survey: Option<&(&Path, Survey)>,
) -> anyhow::Result<Report> {
    let (target, token) = match (instance, &args.target) {
        (Some(instance), _) => (instance.address(), Some(instance.token())),
        (None, target) => (
            target.as_deref().unwrap_or_default(),
            args.admin_token.as_deref(),
        ),
    };
    let patience = Duration::from_secs(args.patience);
    let mut client = Client::new(target, token, patience).map_err(anyhow::Error::msg)?;
    if let Some(questions) = &args.questions {
        client = client.asking(questions).map_err(anyhow::Error::msg)?;
    }
    let run = Arc::new(Run::new(client, progress_bar()));
    let report = match survey {
        Some((path, survey)) => recorded_demand(&run, args, path, survey).await,
        None => made_up_crowd(&run, args).await,
    };
    report.with_context(|| format!("against {target}"))
}

async fn recorded_demand(
    run: &Arc<Run>,
    args: &Args,
    path: &Path,
    survey: &Survey,
) -> anyhow::Result<Report> {
    let connections = usize::from(args.connections);
    begin(run, "rows", survey.rows);
    let begun = Instant::now();
    let mut outcome = demand::drive(run, path, survey, args.seed, connections).await?;
    let took = begun.elapsed();
    read_at_end(run, &mut outcome.sales, connections).await?;
    let skipped = outcome
        .skipped
        .iter()
        .map(|(why, count)| (why.as_str(), *count));
    let totals = Totals {
        rows: survey.rows,
        unmatched: outcome.unmatched,
        skipped: skipped.collect(),
        ..Totals::default()
    };
    Ok(Report::new(run, &outcome.sales, totals, true, took))
}

async fn made_up_crowd(run: &Arc<Run>, args: &Args) -> anyhow::Result<Report> {
    let connections = usize::from(args.connections);
    let crowd = Crowd {
        buyers: args.buyers,
        products: args.products,
        stock: args.stock,
        seed: args.seed,
        over: args.over.map(Duration::from_secs),
    };
    begin(run, "attempts answered", u64::from(args.buyers));
    let (mut sales, took) = crowd::drive(run, crowd, connections).await?;
    read_at_end(run, &mut sales, connections).await?;
    Ok(Report::new(run, &sales, Totals::default(), false, took))
}

async fn read_at_end(run: &Run, sales: &mut [SaleSeen], connections: usize) -> anyhow::Result<()> {
    let attempts: usize = sales.iter().map(|sale| sale.attempts.len()).sum();
    begin(run, "answers read once more", attempts as u64);
    sales::read_at_end(run, sales, connections).await?;
    run.progress.finish_and_clear();
    Ok(())
}

async fn survey(path: &Path, share: Share) -> anyhow::Result<Survey> {
    let path = path.to_path_buf();
    tokio::task::spawn_blocking(move || Survey::of(&path, share)).await?
}

fn create(path: &Path) -> anyhow::Result<(File, PathBuf)> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok((file, path.to_path_buf()))
}

/// On standard error, and nowhere when that is no terminal.
fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} {msg}, {per_sec}");
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(0).with_style(style)
}

fn begin(run: &Run, what: &'static str, length: u64) {
    run.progress.reset();
    run.progress.set_length(length);
    run.progress.set_message(what);
}

#[cfg(test)]
mod double;
#[cfg(test)]
mod tests;
