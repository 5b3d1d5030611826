//! The decider: gives every record of log 1 its turn, and writes the decision to log 2.
//!
//! Read it in the order of its life: [`claim`] takes the partition and recovers the products,
//! [`work`] decides until it is stopped or superseded, [`checkpoint`] bounds the next recovery,
//! [`deadlines`] sees to it that time passes when nothing else does.

mod claim;
mod work;

mod checkpoint;
mod deadlines;
mod products;

use std::sync::Arc;
use std::time::Duration;

use domain::invariants::Violation;
use ports::{AppendError, Clock, EventLog, Group, LogRecord, ReadError};
use runtime::health::Health;
use runtime::partitions;
use schemas::codec::{Codec, DecodeError};
use schemas::decision::DecisionRecord;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

/// How long a partition rests after its decider failed or was superseded.
const RETRY_AFTER: Duration = Duration::from_millis(500);

/// What a decider works with.
#[derive(Clone)]
pub struct Decider {
    /// Both logs.
    pub log: Arc<dyn EventLog>,
    /// The records' codec.
    pub codec: Arc<Codec>,
    /// Tells when a deadline may be due.
    pub clock: Arc<dyn Clock>,
    /// Where its partitions report.
    pub health: Health,
    /// Its name, written into its claims.
    pub name: Arc<str>,
    /// How much is decided between two checkpoints of a partition.
    pub checkpoints: CheckpointPolicy,
}

impl Decider {
    /// The claim or decision that a record of log 2 is.
    fn decision(&self, record: &LogRecord) -> Result<DecisionRecord, DeciderError> {
        let (topic, offset) = (Topic::StockDecisions, record.offset);
        let decoded = self.codec.decode_decision(&record.value);
        decoded.map_err(|error| DeciderError::Decode {
            topic,
            offset,
            error,
        })
    }
}

/// When a checkpoint is due: after this many decisions, and no sooner than a quarter of what
/// is remembered has been decided anew, so that its cost stays in proportion.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointPolicy {
    /// The fewest decisions between two checkpoints.
    pub min_decisions: u64,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            min_decisions: 100_000,
        }
    }
}

/// Why a decider ended its work on a partition.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DeciderError {
    /// Another decider took the partition.
    #[error("another decider has taken the partition with claim {0}")]
    Superseded(Offset),
    /// A decision of its own does not count, so what it remembers is not what is true.
    #[error("its decision at {0} of stock-decisions does not count")]
    Dropped(Offset),
    /// A record could not be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A record could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record is none that is known here.
    #[error("record {offset} of {topic}: {error}")]
    Decode {
        /// Its topic.
        topic: Topic,
        /// Its offset.
        offset: Offset,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// What must hold did not; nothing was written.
    #[error("record {offset} of {topic}: {violation}")]
    Violation {
        /// The topic of the record at fault.
        topic: Topic,
        /// Its offset.
        offset: Offset,
        /// What did not hold.
        violation: Violation,
    },
}

/// Decides on the partitions assigned to this process until `stop`.
pub async fn run(decider: Decider, stop: CancellationToken) {
    let assigned = decider.log.assignment(Group::Deciders);
    let work = |partition, stop| keep_deciding(decider.clone(), partition, stop);
    partitions::run_each(assigned, stop, work).await;
}

/// Decides on one partition; after a failure it claims and recovers anew, since what it then
/// remembers may not be what is true.
async fn keep_deciding(decider: Decider, partition: Partition, stop: CancellationToken) {
    let component = decider.health.component(format!("decider {partition}"));
    loop {
        match decide_partition(&decider, partition, &component, &stop).await {
            Ok(()) => return,
            Err(error @ DeciderError::Superseded(_)) => {
                info!(%partition, reason = %error, "stepped down");
                component.failing(error.to_string());
            }
            Err(error) => {
                error!(%partition, %error, "deciding failed; the partition is claimed anew");
                component.failing(error.to_string());
            }
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_AFTER) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn decide_partition(
    decider: &Decider,
    partition: Partition,
    component: &runtime::health::Component,
    stop: &CancellationToken,
) -> Result<(), DeciderError> {
    let held = tokio::select! {
        held = claim::take(decider, partition, component) => held?,
        () = stop.cancelled() => return Ok(()),
    };
    work::decide(decider, held, component, stop).await
}
