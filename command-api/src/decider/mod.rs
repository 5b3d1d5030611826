//! The decider of products: answers every record of `purchase-attempts` with a decision in
//! `stock-decisions`.
//!
//! In the order of a partition's life: [`recover`] claims it and rebuilds its [`products`],
//! [`decide`] answers commands until the decider is stopped or superseded. What is not about
//! products is done by the shell in [`crate::partition`].

mod recover;

mod decide;
mod outcomes;

mod products;

use std::sync::Arc;
use std::time::Duration;

use ports::{Clock, EventLog, Group};
use runtime::health::{Component, Health, REPORT_EVERY};
use runtime::metrics::DECIDER_LAG;
use runtime::{partitions, retry};
use schemas::codec::Codec;
use schemas::ids::{Partition, RecordHash};
use schemas::topics::Topic;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::info;

use self::decide::PartitionDecider;
pub use crate::partition::checkpoint::CheckpointPolicy;
use crate::partition::progress;
use crate::partition::undecodable::stands_at;
use crate::partition::{CoreTopics, PartitionError, PartitionLog, WaitingAppends};

/// The topics of products.
const TOPICS: CoreTopics = CoreTopics {
    commands: Topic::PurchaseAttempts,
    decisions: Topic::StockDecisions,
    snapshots: Topic::ProductSnapshots,
    group: Group::Deciders,
};

/// The dependencies and settings of a decider.
#[derive(Clone)]
pub struct Decider {
    /// The log with all topics.
    pub log: Arc<dyn EventLog>,
    /// The records' codec.
    pub codec: Arc<Codec>,
    /// Tells when a deadline may have passed.
    pub clock: Arc<dyn Clock>,
    /// Where its partitions report.
    pub health: Health,
    /// Its name, written into its claims.
    pub name: Arc<str>,
    /// How much is decided between two checkpoints of a partition.
    pub checkpoints: CheckpointPolicy,
}

impl Decider {
    fn partition_log(&self, partition: Partition) -> PartitionLog {
        PartitionLog {
            log: self.log.clone(),
            codec: self.codec.clone(),
            topics: TOPICS,
            partition,
            waiting: WaitingAppends::default(),
        }
    }
}

/// Decides on the partitions assigned to this process until `stop`.
pub async fn run(decider: Decider, stop: CancellationToken) {
    let assigned = decider.log.assignment(TOPICS.group);
    let work = |partition, stop| keep_deciding(decider.clone(), partition, stop);
    partitions::run_each(assigned, stop, work).await;
}

/// The longest pause before a partition is claimed again whose records violate an invariant, or whose
/// decisions a newer version has written. Only another program or an operator can change that.
const MAX_PAUSE: Duration = Duration::from_secs(60);

/// Decides on one partition until `stop`. After a failure it claims the partition anew and
/// recovers, since its state may no longer be what the log has. In another log than before, or than
/// that of its checkpoint, it makes no claim and stops until the process ends.
async fn keep_deciding(decider: Decider, partition: Partition, stop: CancellationToken) {
    let component = decider
        .health
        .partition("decider", partition, Some(DECIDER_LAG));
    let mut known = None;
    let mut standing = String::new();
    let mut pause = retry::RETRY_AFTER;
    while let Err(error) =
        decide_partition(&decider, partition, &mut known, &component, &stop).await
    {
        if let Some((topic, offset)) = error.stands_at() {
            let why = stands_at(topic, partition, offset, &error);
            pause = match why == standing {
                true => (2 * pause).min(MAX_PAUSE),
                false => retry::RETRY_AFTER,
            };
            component.failed(&why);
            standing = why;
            if pause_degraded(&component, &standing, pause, &stop).await {
                return;
            }
            continue;
        }
        match error {
            PartitionError::Read(error) if error.is_of_another_log() => {
                component.broken(&error);
                return stop.cancelled().await;
            }
            PartitionError::Superseded(_) => {
                info!(%partition, reason = %error, "stepped down");
                component.failing(error.to_string());
            }
            error if error.needs_restart() => component.broken(&error),
            error => component.failed(&error),
        }
        if retry::pause_or_stop(&stop).await {
            return;
        }
    }
}

/// Waits, and reports all the while that this partition is not decided on, which leaves the others
/// ready; returns whether `stop` was cancelled.
async fn pause_degraded(
    component: &Component,
    why: &str,
    pause: Duration,
    stop: &CancellationToken,
) -> bool {
    let until = Instant::now() + pause;
    while Instant::now() < until {
        component.blocked(why, 1);
        tokio::select! {
            () = sleep_until(until.min(Instant::now() + REPORT_EVERY)) => {}
            () = stop.cancelled() => return true,
        }
    }
    false
}

/// Claims and recovers a partition and decides on it until `stop`. `known` is the log in which this
/// process has decided on it.
async fn decide_partition(
    decider: &Decider,
    partition: Partition,
    known: &mut Option<RecordHash>,
    component: &Component,
    stop: &CancellationToken,
) -> Result<(), PartitionError> {
    let log = decider.partition_log(partition);
    let (recovered, products) = tokio::select! {
        recovered = recover::recover(&log, &decider.name, *known, component) => recovered?,
        never = progress::report_waiting(&log, component) => match never {},
        () = stop.cancelled() => return Ok(()),
    };
    *known = Some(recovered.identity());
    let partition = PartitionDecider::start(decider, recovered, products).await?;
    partition.run(component, stop).await
}
