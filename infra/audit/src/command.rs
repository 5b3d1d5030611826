//! The command line of the audit: its arguments, its progress and its exit status.

use std::fmt::Display;
use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use runtime::output::{Output, error_line};
use runtime::private_files;
use runtime::settings::{Flags, Service, Settings};
use schemas::ids::{Partition, ProductId};
use web::receipt::{KEY_FILE, ReceiptKey};

use crate::report::ReadModels;
use crate::{Scope, Source, audit, receipt};

/// Exit status when a violation was found.
const VIOLATED: u8 = 1;
/// Exit status when the audit could not be carried out, or what it found could not be written.
const UNUSABLE: u8 = 2;
/// Exit status when the logs have no violation, but the read models could not be compared, or there is
/// nothing in them to compare.
const NOT_COMPARED: u8 = 3;
/// Exit status when the logs have no violation and the read models match, but are behind.
const BEHIND: u8 = 4;

const NOTES: &str = "\
Exit status:
  0  no violation was found, and the read models match the logs
  1  a violation was found; the first one is reported with its position
  2  the audit could not be carried out, what it found could not be written, or the product
     of --product is unknown or undecided
  3  the logs have no violation, but the read models could not be compared with them: they are
     absent, unreachable, damaged or empty, which is named
  4  the logs have no violation, and what the read models in a CQL store have matches them, but
     they lack decisions and get no closer; the partitions are named
With --receipt:
  0  the receipt is valid, be it of an attempt, a cancellation or a change of a sale; its
     record may still be waiting for a decision
  1  the receipt is not valid: not signed with the key, or the log differs from it
  2  the receipt could not be checked

A reader of standard output that ends early, such as head, does not change the status.

The audit only reads: it creates no topic, no schema, no keyspace and no table, and joins no
group. The services may run meanwhile. To audit a copy of a data directory,
copy read-models.redb before the log, so that the log has every decision that the read models
are made from. Read models in a CQL store are compared only if nobody writes to them during
the comparison; the audit waits for them as long as they get closer to the log's end. Those of a
data directory may lack what the running service has in memory, which is no fault.
The audit recomputes the read models in the directory for temporary files (TMPDIR), which needs
as much room as two copies of read-models.redb.";

/// Prove from the logs that no unit was lost or sold twice, that every attempt was decided in
/// order, and that the read models match
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// Audit Kafka and the CQL store instead of a data directory
    #[arg(long)]
    pub distributed: bool,

    /// Write the summary to this file as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Audit only this partition
    #[arg(long, value_name = "NUMBER", conflicts_with = "product")]
    pub partition: Option<u32>,

    /// Audit only this product; the order of its whole partition is still checked
    #[arg(long, value_name = "ID")]
    pub product: Option<ProductId>,

    /// Print the head of each product's chain: hash and version
    #[arg(long)]
    pub heads: bool,

    /// Check this receipt instead, and print what became of its attempt, cancellation or change of
    /// a sale
    #[arg(long, value_name = "JWT", conflicts_with_all = ["partition", "product", "heads"])]
    pub receipt: Option<String>,

    /// Where the logs are, and the key that signed the receipt
    #[command(flatten)]
    pub flags: Flags,
}

/// Carries an audit out and prints its summary. `open` opens what the settings name: Kafka and
/// the CQL store if its second argument is true, otherwise a data directory.
pub async fn run(
    args: Args,
    open: impl AsyncFnOnce(&Settings, bool) -> anyhow::Result<Source>,
) -> anyhow::Result<ExitCode> {
    let status = tokio::select! {
        status = carry_out(&args, open) => status,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    };
    Ok(ExitCode::from(status.unwrap_or_else(|error| {
        error_line(format_args!("audit: {error:#}"));
        UNUSABLE
    })))
}

/// Like [`run`], but returns the exit status, or why the audit cannot be carried out.
pub async fn carry_out(
    args: &Args,
    open: impl AsyncFnOnce(&Settings, bool) -> anyhow::Result<Source>,
) -> anyhow::Result<u8> {
    let settings = match Settings::load(Service::Audit, &args.flags) {
        Ok(settings) => settings,
        Err(mistakes) => {
            mistakes.print(Service::Audit, &args.flags);
            return Ok(UNUSABLE);
        }
    };
    for warning in &settings.warnings {
        error_line(format_args!("audit: {warning}"));
    }
    // What is wrong with the arguments shows before anything is opened.
    let json = args.json.as_deref().map(create).transpose()?;
    if let Some(receipt) = &args.receipt {
        let key = receipt_key(&settings, args.distributed)?;
        let Source { log, codec, .. } = open(&settings, args.distributed).await?;
        let report = receipt::check(&*log, &codec, &key, receipt).await?;
        let status = if report.is_valid() { 0 } else { VIOLATED };
        return present(status, &report, json, &report);
    }
    let source = open(&settings, args.distributed).await?;
    let scope = Scope {
        partition: args.partition.map(Partition),
        product: args.product.clone(),
    };
    let bar = progress_bar();
    let report = audit(source, scope, bar.clone()).await;
    bar.finish_and_clear();
    let report = report?;
    let status = match (&report.violation, &report.read_models) {
        (Some(_), _) => VIOLATED,
        (None, ReadModels::NotCompared { .. } | ReadModels::Empty { .. }) => NOT_COMPARED,
        (None, ReadModels::Behind { .. }) => BEHIND,
        (None, _) => 0,
    };
    present(status, report.summary(args.heads), json, &report)
}

/// Prints what was found, and writes it as JSON if there is a file for it. Returns the status, which
/// shows a violation also where it could not be written.
fn present(
    status: u8,
    text: impl Display,
    json: Option<File>,
    report: &impl serde::Serialize,
) -> anyhow::Result<u8> {
    let mut output = Output::stdout();
    output.text(text);
    let printed = output.finish().context("cannot write to standard output");
    let saved = write_json(json, report);
    match printed.and(saved) {
        Err(error) if status == VIOLATED => {
            error_line(format_args!("audit: {error:#}"));
            Ok(status)
        }
        presented => presented.map(|()| status),
    }
}

/// The key that receipts are checked with. Unlike the service, an audit never creates one.
fn receipt_key(settings: &Settings, distributed: bool) -> anyhow::Result<ReceiptKey> {
    if let Some(key) = &settings.http.receipt_key {
        return Ok(ReceiptKey::new(key.as_bytes()));
    }
    if distributed {
        bail!("name the key that signed the receipts: --receipt-key KEY");
    }
    let path = settings.data_dir.join(KEY_FILE);
    let text = std::fs::read_to_string(&path).with_context(|| {
        let path = path.display();
        format!("cannot read the key of the receipts, {path}; name it with --receipt-key KEY")
    })?;
    ReceiptKey::from_hex(text.trim_end())
        .with_context(|| format!("{} does not hold 64 hexadecimal digits", path.display()))
}

fn create(path: &Path) -> anyhow::Result<File> {
    private_files::create(path).with_context(|| format!("cannot write {}", path.display()))
}

fn write_json(file: Option<File>, what: &impl serde::Serialize) -> anyhow::Result<()> {
    let Some(mut file) = file else { return Ok(()) };
    serde_json::to_writer_pretty(&mut file, what)
        .map_err(anyhow::Error::from)
        .and_then(|()| Ok(writeln!(file)?))
        .context("cannot write the summary as JSON")
}

/// A bar on a terminal, nothing elsewhere.
fn progress_bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = "{bar:40} {human_pos} of {human_len} {msg} ({per_sec}, {eta} left)";
    let style =
        ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr()).with_style(style);
    bar.set_message("decisions");
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}
