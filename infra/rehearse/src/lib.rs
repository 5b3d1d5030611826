//! `doorbuster rehearse`: sends the orders of a generated crowd, or a shop's recorded demand,
//! through the real HTTP API.
//!
//! The rehearsal stays outside: it knows what any buyer and seller can know. It sends orders, waits
//! for the answers, and judges at the end whether all answers can be true at once.
//! [`generated_demand`] and [`recorded_demand`] send and collect [`observations`]; [`checks`]
//! judges them; [`report`] presents the result. [`client`] calls the API, [`api_types`] are its
//! responses.

pub mod generated_demand;
pub mod order_file;
pub mod recorded_demand;

pub mod checks;
pub mod observations;
pub mod report;

pub mod api_types;
pub mod client;
pub mod decimal;
pub mod server_process;

mod address;
mod sales;

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use indicatif::{ProgressBar, ProgressStyle};
use runtime::output::{Output, error_line};
use runtime::private_files;

use self::client::Client;
use self::decimal::Share;
use self::generated_demand::Crowd;
use self::observations::{Run, SaleObservation};
use self::order_file::Survey;
use self::order_file::text::OrderFile;
use self::report::{Report, Totals};
use self::server_process::ServerProcess;

/// Exit status when an invariant does not hold.
const BROKEN: u8 = 1;
/// Exit status when the rehearsal could not be carried out, or its report could not be written.
const UNUSABLE: u8 = 2;

const NOTES: &str = "\
Exit status:
  0  every attempt was answered, and every invariant holds
  1  an attempt was not answered, or an invariant does not hold
  2  the rehearsal could not be carried out (a row of the file cannot be read, for example), or
     its report could not be written

A reader of standard output that ends early, such as head, does not change the status.

The file of --file has a first line with the names of its columns, among them InvoiceNo,
StockCode, Description, Quantity, UnitPrice and CustomerID. A row with a positive quantity and
price is an order of one product. Any other row of an invoice that begins with C cancels the
buyer's latest order of exactly that quantity. The remaining rows are skipped and counted.
A row is one line, its fields separated by commas; text is UTF-8, and prices have a decimal point.
A row that cannot be read is reported with its line, and then no rehearsal takes place.";

/// Rehearse a sale through the HTTP API, with a generated crowd or recorded demand, and check
/// every answer
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// A running instance, such as http://127.0.0.1:8080 [default: start one in a temporary
    /// directory]
    #[arg(long, value_name = "URL")]
    pub target: Option<String>,

    /// Where queries are sent, if the target does not answer them: the query-api of services that
    /// run alone, such as http://127.0.0.1:8082
    #[arg(long, value_name = "URL", requires = "target")]
    pub questions: Option<String>,

    /// The target's admin token, which is needed to create the sales
    #[arg(
        long,
        value_name = "TOKEN",
        env = "DOORBUSTER_ADMIN_TOKEN",
        hide_env_values = true
    )]
    pub admin_token: Option<String>,

    /// Number of buyers
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub buyers: u32,

    /// Let the buyers come evenly over this time, instead of in the rush of an opening
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub over: Option<u64>,

    /// Units of each product
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000_000_000))]
    pub stock: u32,

    /// Number of products; the first is the most wanted
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub products: u32,

    /// Seed of the crowd's plan and of all keys
    #[arg(long, default_value_t = 1)]
    pub seed: u64,

    /// Recorded demand instead of a crowd: the orders of a shop as CSV, gzip-compressed or not; a
    /// pipe will do
    #[arg(long, value_name = "FILE", conflicts_with_all = ["buyers", "over", "stock", "products"])]
    pub file: Option<PathBuf>,

    /// Share of the units wanted in the file that is put on sale, rounded up
    #[arg(long, value_name = "SHARE", default_value = "0.8")]
    pub stock_share: Share,

    /// Write the report to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Start the instance with its data in this new directory, and keep the directory
    #[arg(long, value_name = "DIR", conflicts_with = "target")]
    pub keep: Option<PathBuf>,

    /// Orders in flight at once
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub connections: u16,

    /// Seconds that the instance may be overloaded or unreachable before the rehearsal fails
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
            error_line(format_args!("rehearse: {error:#}"));
            ExitCode::from(UNUSABLE)
        }
    })
}

/// Whether every invariant holds.
async fn rehearse(args: &Args) -> anyhow::Result<bool> {
    // What is wrong with the arguments shows before an instance is started.
    let survey = match &args.file {
        Some(path) => Some(survey(path, args.stock_share).await?),
        None => None,
    };
    let json = args.json.as_deref().map(create).transpose()?;
    let instance = match &args.target {
        Some(_) => None,
        None => Some(ServerProcess::start(args.keep.as_deref()).await?),
    };
    let report = against(args, instance.as_ref(), survey.as_ref()).await;
    if let Some(instance) = instance {
        let keep = !matches!(&report, Ok(report) if report.passed);
        if let Some(path) = instance.stop(keep).await? {
            error_line(format_args!(
                "The data and output of the instance are kept in {}",
                path.display()
            ));
        }
    }
    let report = report?;
    match present(&report, json) {
        // What does not hold is the result, also where it could not be written.
        Err(error) if !report.passed => error_line(format_args!("rehearse: {error:#}")),
        presented => presented?,
    }
    Ok(report.passed)
}

/// Prints the report, and writes it as JSON if there is a file for it.
fn present(report: &Report, json: Option<(File, PathBuf)>) -> anyhow::Result<()> {
    let mut output = Output::stdout();
    output.text(report);
    let printed = output.finish().context("cannot write to standard output");
    if let Some((mut file, path)) = json {
        serde_json::to_writer_pretty(&mut file, report)
            .map_err(anyhow::Error::from)
            .and_then(|()| Ok(writeln!(file)?))
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    printed
}

async fn against(
    args: &Args,
    instance: Option<&ServerProcess>,
    survey: Option<&(OrderFile, Survey)>,
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
        client = client
            .with_queries_at(questions)
            .map_err(anyhow::Error::msg)?;
    }
    let run = Arc::new(Run::new(client, progress_bar()));
    let report = match survey {
        Some((file, survey)) => recorded_orders(&run, args, file, survey).await,
        None => generated_crowd(&run, args).await,
    };
    report.with_context(|| format!("against {target}"))
}

async fn recorded_orders(
    run: &Arc<Run>,
    args: &Args,
    file: &OrderFile,
    survey: &Survey,
) -> anyhow::Result<Report> {
    let connections = usize::from(args.connections);
    begin(run, "rows", survey.rows);
    let begun = Instant::now();
    let mut outcome = recorded_demand::drive(run, file, survey, args.seed, connections).await?;
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

async fn generated_crowd(run: &Arc<Run>, args: &Args) -> anyhow::Result<Report> {
    let connections = usize::from(args.connections);
    let crowd = Crowd {
        buyers: args.buyers,
        products: args.products,
        stock: args.stock,
        seed: args.seed,
        over: args.over.map(Duration::from_secs),
    };
    begin(run, "attempts answered", u64::from(args.buyers));
    let (mut sales, took) = generated_demand::drive(run, crowd, connections).await?;
    read_at_end(run, &mut sales, connections).await?;
    Ok(Report::new(run, &sales, Totals::default(), false, took))
}

async fn read_at_end(
    run: &Run,
    sales: &mut [SaleObservation],
    connections: usize,
) -> anyhow::Result<()> {
    let attempts: usize = sales.iter().map(|sale| sale.attempts.len()).sum();
    begin(run, "answers read again", attempts as u64);
    sales::read_at_end(run, sales, connections).await?;
    run.progress.finish_and_clear();
    Ok(())
}

/// Opens and reads the file, on a thread that the program does not wait for if it is interrupted:
/// a pipe may send nothing for a long time.
async fn survey(path: &Path, share: Share) -> anyhow::Result<(OrderFile, Survey)> {
    let path = path.to_path_buf();
    let (sender, surveyed) = tokio::sync::oneshot::channel();
    std::thread::spawn(move || {
        let survey = OrderFile::open(&path).and_then(|file| {
            let survey = Survey::of(&file, share)?;
            Ok((file, survey))
        });
        // If nobody waits for it any more, the rehearsal was interrupted.
        let _ = sender.send(survey);
    });
    surveyed
        .await
        .context("the thread that reads the file ended without a result")?
}

fn create(path: &Path) -> anyhow::Result<(File, PathBuf)> {
    let file =
        private_files::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok((file, path.to_path_buf()))
}

/// A bar on standard error, hidden if that is not a terminal.
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
mod mock_api;
#[cfg(test)]
mod tests;
