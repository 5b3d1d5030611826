//! `doorbuster skip`: gets a partition past a record on which no product can decide, by a record of
//! `stock-decisions`, so that every replay and the audit agree.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bytes::Bytes;
use history::{Decisions, Records};
use log_embedded::{EmbeddedLog, Options};
use ports::clock::SystemClock;
use ports::{AppendError, CheckedClock, EventLog, LogRecord, NewRecord};
use runtime::output::{Output, error_line};
use runtime::settings::{Flags, Service, Settings};
use schemas::codec::Codec;
use schemas::decision::{Claim, DecisionRecord, MAX_SKIP_REASON_BYTES, Skipped};
use schemas::fence::Fence;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

use crate::LOG_DIR;

/// Exit status when the record was not skipped.
const NOT_SKIPPED: u8 = 2;
/// How often the claim is tried while deciders claim the partition, too.
const TRIES: u32 = 10;

const NOTES: &str = "\
A partition stands at a record that a newer version of the program has written, or that violates an
invariant; health and log name the record. First start a program that is at least as new: it goes on
by itself. Skip a record only if it is to be given up: whoever sent it is answered that it was
refused. Only the record at which the partition stands can be skipped.

The embedded engine must be stopped meanwhile. With --distributed the services keep running: the
deciders notice, at the latest after a minute.

Exit status:
  0  the record is skipped, or was skipped before
  2  it is not";

/// Give up the record at which a partition stands, so that the records after it are decided
#[derive(Debug, Clone, clap::Args)]
#[command(after_help = NOTES)]
pub struct Args {
    /// The partition
    #[arg(long, value_name = "NUMBER")]
    partition: u32,

    /// The record's offset in purchase-attempts, which must be the one at which the partition stands
    #[arg(long, value_name = "NUMBER")]
    offset: i64,

    /// Why the record is given up, for those who audit; at most 500 bytes
    #[arg(long, value_name = "TEXT")]
    reason: String,

    /// Who gives it up; the name of the user by default
    #[arg(long, value_name = "NAME")]
    by: Option<String>,

    /// Skip a record of Kafka instead of a data directory
    #[arg(long)]
    distributed: bool,

    /// Where the logs are
    #[command(flatten)]
    flags: Flags,
}

/// Carries the command out.
pub async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let settings = match Settings::load(Service::Audit, &args.flags) {
        Ok(settings) => settings,
        Err(mistakes) => {
            mistakes.print(Service::Audit, &args.flags);
            return Ok(ExitCode::from(NOT_SKIPPED));
        }
    };
    match carry_out(&args, &settings).await {
        Ok(text) => {
            let mut output = Output::stdout();
            output.line(text);
            output.finish().context("cannot write to standard output")?;
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => {
            error_line(format_args!("skip: {error:#}"));
            Ok(ExitCode::from(NOT_SKIPPED))
        }
    }
}

async fn carry_out(args: &Args, settings: &Settings) -> anyhow::Result<String> {
    let reason = args.reason.trim();
    if reason.is_empty() || reason.len() > MAX_SKIP_REASON_BYTES {
        bail!("--reason must have 1 to {MAX_SKIP_REASON_BYTES} bytes");
    }
    let user = || std::env::var("USER").ok().filter(|user| !user.is_empty());
    let by = args.by.clone().or_else(user);
    let by = by.ok_or_else(|| anyhow!("name who gives the record up: --by NAME"))?;
    let skip = Skip {
        partition: Partition(args.partition),
        offset: Offset(args.offset),
        reason: reason.into(),
        by: by.into(),
    };
    match args.distributed {
        true => distributed(settings, &skip).await,
        false => {
            let dir = settings.data_dir.join(LOG_DIR);
            if !dir.is_dir() {
                bail!(
                    "{} is not a data directory; name the service's with --data-dir DIR",
                    settings.data_dir.display()
                );
            }
            let open = move || {
                let partitions = EmbeddedLog::open_read_only(&dir)?.partitions();
                let options = Options {
                    partitions,
                    ..Options::default()
                };
                // The records of a skip have a time only for people, so no jump is too large.
                let clock = CheckedClock::new(Arc::new(SystemClock), Duration::MAX);
                EmbeddedLog::open(&dir, options, Arc::new(clock))
            };
            let log = tokio::task::spawn_blocking(open).await??;
            let skipped = skip.carry_out(&log, &Codec::embedded()).await;
            log.close().map_err(|error| anyhow!(error))?;
            skipped
        }
    }
}

#[cfg(feature = "distributed")]
async fn distributed(settings: &Settings, skip: &Skip) -> anyhow::Result<String> {
    let (log, codec) = crate::distributed::open_log(settings).await?;
    let skipped = skip.carry_out(&log, &codec).await;
    log.close().await;
    skipped
}

#[cfg(not(feature = "distributed"))]
async fn distributed(_: &Settings, _: &Skip) -> anyhow::Result<String> {
    bail!(crate::EMBEDDED_ONLY)
}

/// A record to skip.
pub struct Skip {
    /// Its partition.
    pub partition: Partition,
    /// Its offset in `purchase-attempts`.
    pub offset: Offset,
    /// Why it is given up.
    pub reason: Arc<str>,
    /// Who gives it up.
    pub by: Arc<str>,
}

impl Skip {
    /// Claims the partition and answers the record as skipped. Another decider may claim the partition
    /// in between; then both are tried again. Returns what to print.
    ///
    /// # Errors
    ///
    /// The partition does not stand at the record, or the log cannot be read or appended to.
    pub async fn carry_out(&self, log: &dyn EventLog, codec: &Codec) -> anyhow::Result<String> {
        let Self {
            partition, offset, ..
        } = self;
        if partition.0 >= log.partitions() {
            let last = log.partitions() - 1;
            bail!("there is no partition {partition}; partitions are 0 to {last}");
        }
        for _ in 0..TRIES {
            let fence = self.fence(log, codec).await?;
            if fence.answered >= *offset {
                return self.answered_before(log, codec).await;
            }
            let record = self.record(log, fence).await?;
            let what = match codec.decode_command(&record.value) {
                Ok(command) => format!("a command for product {}", command.product_id),
                Err(error) => error.to_string(),
            };
            let claim = self.claim(log, codec).await?;
            // Whoever had the partition may have answered the record before the claim.
            if self.fence(log, codec).await?.answered != fence.answered {
                continue;
            }
            let skipped = DecisionRecord::Skipped(Skipped {
                claim,
                answers: *offset,
                follows: fence.answered,
                reason: self.reason.clone(),
                by: Some(self.by.clone()),
            });
            append(log, *partition, codec.encode_decision(skipped)).await?;
            if self.fence(log, codec).await?.answered >= *offset {
                return Ok(format!(
                    "skipped record {offset} of purchase-attempts, partition {partition} ({what}); \
                     the records after it are decided next"
                ));
            }
        }
        bail!("deciders claim the partition all the time; stop them, and try again")
    }

    /// What to print if the record was skipped before, as by the same command whose answer was lost. Any
    /// other answer to it is an error.
    async fn answered_before(&self, log: &dyn EventLog, codec: &Codec) -> anyhow::Result<String> {
        let Self {
            partition, offset, ..
        } = self;
        let end = log.end(Topic::StockDecisions, *partition).await?;
        let mut decisions = Decisions::open(log, codec, *partition, end).await?;
        while let Some(decided) = decisions.next().await? {
            if let Some(skipped) = decided.skipped()
                && skipped.answers == *offset
            {
                let by = match &skipped.by {
                    Some(operator) => format!("operator {operator}"),
                    None => "the decider".to_owned(),
                };
                return Ok(format!(
                    "record {offset} of purchase-attempts, partition {partition}, was skipped before, \
                     by {by}: {}",
                    skipped.reason
                ));
            }
        }
        bail!(
            "record {offset} of purchase-attempts, partition {partition}, is answered: the partition is \
             past it"
        )
    }

    /// The fence at the end of the partition.
    async fn fence(&self, log: &dyn EventLog, codec: &Codec) -> anyhow::Result<Fence> {
        let end = log.end(Topic::StockDecisions, self.partition).await?;
        let mut decisions = Decisions::open(log, codec, self.partition, end).await?;
        while decisions.next().await?.is_some() {}
        Ok(decisions.fence())
    }

    /// The record, which must be the first that is not answered.
    async fn record(&self, log: &dyn EventLog, fence: Fence) -> anyhow::Result<LogRecord> {
        let Self {
            partition, offset, ..
        } = self;
        let topic = Topic::PurchaseAttempts;
        let end = log.end(topic, *partition).await?;
        let from = fence.answered.next();
        let mut records = Records::open_at(log, topic, *partition, from, end).await?;
        match records.next().await? {
            None => bail!(
                "every record of {topic}, partition {partition}, is answered: it ends at {end}"
            ),
            Some(record) if record.offset == *offset => Ok(record),
            Some(record) => bail!(
                "the partition stands at record {} of {topic}, partition {partition}, not at \
                 {offset}",
                record.offset
            ),
        }
    }

    async fn claim(&self, log: &dyn EventLog, codec: &Codec) -> anyhow::Result<Offset> {
        let claim = DecisionRecord::Claim(Claim {
            decider: format!("operator {}", self.by).into(),
            partitions: Some(log.partitions()),
        });
        append(log, self.partition, codec.encode_decision(claim)).await
    }
}

async fn append(
    log: &dyn EventLog,
    partition: Partition,
    value: Vec<u8>,
) -> anyhow::Result<Offset> {
    let record = NewRecord {
        value: Bytes::from(value),
        ..NewRecord::default()
    };
    let appended = log.append(Topic::StockDecisions, partition, vec![record]);
    appended.await.map_err(|error| match error {
        AppendError::Unknown(why) => anyhow!(
            "{why}; it is unknown whether the record was skipped: run the same command again"
        ),
        error => error.into(),
    })
}
