//! `doorbuster audit`: proves from the logs that every sale was kept straight, and that the
//! read models say the same.
//!
//! Two walks go side by side. [`logs`] holds both logs against the invariants of the domain;
//! [`read_models`] projects log 2 once more into a store of its own and compares. What they
//! find is a [`report`]. [`receipt`] follows one attempt instead.

pub mod logs;
pub mod read_models;

pub mod receipt;
pub mod report;

mod open;

mod cursor;
mod digest;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use ports::{EventLog, ReadError, ReadStore};
use runtime::settings::{Flags, Service, Settings};
use schemas::codec::Codec;
use schemas::ids::{Partition, ProductId};
use schemas::placement::Placement;

use self::logs::Ends;
use self::open::Opened;
use self::report::{ReadModels, Report};

/// Exit status when something does not hold.
const VIOLATED: u8 = 1;
/// Exit status when the audit could not be carried out.
const UNUSABLE: u8 = 2;
/// Exit status when the logs hold, but the read models could not be compared with them.
const NOT_COMPARED: u8 = 3;

const NOTES: &str = "\
Exit status:
  0  everything holds
  1  something does not; the first violation is named with its place
  2  the audit could not be carried out
  3  the logs hold, but the read models could not be compared with them

What is audited is only read, and the services may go on meanwhile. When auditing a copy of a
data directory, copy read-models.redb before the log, so that the log has all that the read
models are made from. Read models in a CQL store that is being written to are compared only if
they stand still long enough.
The read models are made anew in the directory for temporary files (TMPDIR), which takes as
much room there as two copies of read-models.redb.";

/// Prove from the logs that no unit was lost or sold twice, that everyone had their turn, and
/// that the read models say the same
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// Audit what is on Kafka and in the CQL store instead of a data directory
    #[arg(long)]
    pub distributed: bool,

    /// Where to write the summary as JSON
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Only this partition
    #[arg(long, value_name = "NUMBER", conflicts_with = "product")]
    pub partition: Option<u32>,

    /// Only this product; the order of its partition is still checked as a whole
    #[arg(long, value_name = "ID")]
    pub product: Option<ProductId>,

    /// Print the head of each product's chain: version and hash
    #[arg(long)]
    pub heads: bool,

    /// Check this receipt instead, and tell what became of its attempt
    #[arg(long, value_name = "JWT", conflicts_with_all = ["partition", "product", "heads"])]
    pub receipt: Option<String>,

    /// Where it is, and the key that signed the receipt
    #[command(flatten)]
    pub flags: Flags,
}

/// What is looked at.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Only this partition.
    pub partition: Option<Partition>,
    /// Only this product.
    pub product: Option<ProductId>,
}

/// Why an audit could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no such partition.
    #[error("there is no partition {asked}; partitions are 0 to {last}")]
    NoPartition {
        /// The partition asked for.
        asked: Partition,
        /// The last there is.
        last: u32,
    },
    /// The read models cannot be made anew.
    #[error("the read models cannot be made anew in the directory for temporary files: {0}")]
    Scratch(String),
    /// A part of the audit ended without a result.
    #[error("the audit broke off: {0}")]
    BrokeOff(#[from] tokio::task::JoinError),
}

/// Carries an audit out and prints its summary.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let status = tokio::select! {
        status = carry_out(&args) => status,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted")),
    };
    Ok(ExitCode::from(status.unwrap_or_else(|error| {
        eprintln!("audit: {error:#}");
        UNUSABLE
    })))
}

/// Audits the logs, and the read models when there are any, which must stand still meanwhile
/// and be no newer than the logs. `bar` is moved on by one a record of log 2.
pub async fn audit(
    log: Arc<dyn EventLog>,
    store: Option<Arc<dyn ReadStore>>,
    codec: Arc<Codec>,
    scope: Scope,
    bar: ProgressBar,
) -> Result<Report, AuditError> {
    let scope = scope.resolve(log.partitions())?;
    let progress = match &store {
        Some(store) => store.progress().await.map_err(|error| error.to_string()),
        None => Err("none were given".to_owned()),
    };
    let ends = Ends::find(&*log, &scope).await?;
    let replayed = progress
        .as_ref()
        .ok()
        .map_or(0, |progress| ends.covered(progress));
    bar.set_length(ends.decisions() + replayed);

    let known = progress.clone().unwrap_or_default();
    let walk = logs::check(
        log.clone(),
        codec.clone(),
        scope.clone(),
        ends.clone(),
        known,
        bar.clone(),
    );
    let walk = tokio::spawn(walk);
    let compare = match (store, progress) {
        (Some(store), Ok(progress)) => {
            let subject = read_models::Subject {
                log,
                store,
                codec,
                scope,
                ends,
                progress,
                bar,
            };
            Some(tokio::spawn(read_models::compare(subject)))
        }
        (_, Err(why)) => {
            let mut report = walk.await??;
            report.read_models = ReadModels::NotCompared { why };
            return Ok(report);
        }
        (None, Ok(_)) => None,
    };
    let mut report = walk.await??;
    let Some(compare) = compare else {
        return Ok(report);
    };
    if report.violation.is_some() {
        // What the logs do not hold, the read models cannot be held against.
        compare.abort();
        let why = "the logs they are made from do not hold".to_owned();
        report.read_models = ReadModels::NotCompared { why };
        return Ok(report);
    }
    let (read_models, violation) = compare.await??;
    report.read_models = read_models;
    report.violation = violation;
    Ok(report)
}

impl Scope {
    /// A product's partition is known; one asked for must be there.
    fn resolve(mut self, partitions: u32) -> Result<Self, AuditError> {
        if let Some(product) = &self.product {
            self.partition = Some(Placement::new(partitions).partition_of(product));
        }
        match self.partition {
            Some(asked) if asked.0 >= partitions => Err(AuditError::NoPartition {
                asked,
                last: partitions - 1,
            }),
            _ => Ok(self),
        }
    }

    fn has_partition(&self, partition: Partition) -> bool {
        self.partition.is_none_or(|only| only == partition)
    }

    fn has_product(&self, product: &ProductId) -> bool {
        self.product.as_ref().is_none_or(|only| only == product)
    }
}

/// Audits as the arguments say, prints the summary and returns the exit status; fails when the
/// audit cannot be carried out.
pub async fn carry_out(args: &Args) -> anyhow::Result<u8> {
    let settings = match Settings::load(Service::Audit, &args.flags) {
        Ok(settings) => settings,
        Err(mistakes) => {
            mistakes.tell(Service::Audit);
            return Ok(UNUSABLE);
        }
    };
    let json = args.json.as_deref().map(create).transpose()?;
    let key = match &args.receipt {
        Some(_) => Some(open::receipt_key(&settings, args.distributed)?),
        None => None,
    };
    let Opened { log, store, codec } = match args.distributed {
        true => open::distributed(&settings).await?,
        false => open::directory(&settings.data_dir).await?,
    };
    if let (Some(receipt), Some(key)) = (&args.receipt, key) {
        let told = receipt::check(&*log, &codec, &key, receipt).await?;
        print!("{told}");
        write_json(json, &told)?;
        return Ok(if told.holds() { 0 } else { VIOLATED });
    }
    let (store, unreadable) = match store {
        Ok(store) => (Some(store), None),
        Err(why) => (None, Some(why)),
    };
    let scope = Scope {
        partition: args.partition.map(Partition),
        product: args.product.clone(),
    };
    let bar = progress_bar();
    let report = audit(log, store, codec, scope, bar.clone()).await;
    bar.finish_and_clear();
    let mut report = report?;
    if let Some(why) = unreadable {
        report.read_models = ReadModels::NotCompared { why };
    }
    print!("{}", report.summary(args.heads));
    write_json(json, &report)?;
    Ok(match (&report.violation, &report.read_models) {
        (Some(_), _) => VIOLATED,
        (None, ReadModels::NotCompared { .. }) => NOT_COMPARED,
        (None, _) => 0,
    })
}

fn create(path: &Path) -> anyhow::Result<std::fs::File> {
    std::fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))
}

fn write_json(file: Option<std::fs::File>, what: &impl serde::Serialize) -> anyhow::Result<()> {
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
