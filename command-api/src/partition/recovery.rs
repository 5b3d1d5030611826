//! Recovery: the decisions that count, from the last checkpoint up to the claim.

use std::time::Duration;

use ports::{LogReader, LogRecord};
use runtime::health::Component;
use runtime::metrics::{CLAIMS, DECISIONS_DROPPED, RECOVERY_SECONDS};
use schemas::decision::{Decision, DecisionRecord};
use schemas::fence::{Fence, Verdict};
use schemas::ids::{Offset, Partition, RecordHash};
use tracing::{debug, info};

use super::checkpoint::Checkpoint;
use super::{PartitionError, PartitionLog};

/// Reads the decisions from a checkpoint up to a claim.
pub(crate) struct Recovery {
    pub(super) log: PartitionLog,
    /// The claim to read up to.
    pub(super) claim: Offset,
    /// The identity of the log.
    pub(super) identity: RecordHash,
    /// The fence after the records read so far.
    pub(super) fence: Fence,
    /// Reads the decisions' topic, after recovery from the claim on.
    pub(super) decisions: Box<dyn LogReader>,
    /// The record that completes the last checkpoint; -1 when there is none.
    pub(super) checkpoint: Offset,
    /// The decisions since that checkpoint.
    pub(super) folded: u64,
    /// The last offset that was read.
    read: Offset,
    batch: Option<std::vec::IntoIter<LogRecord>>,
}

impl Recovery {
    /// Begins after a checkpoint.
    pub(crate) async fn start(
        log: &PartitionLog,
        claim: Offset,
        identity: RecordHash,
        checkpoint: Checkpoint,
    ) -> Result<Self, PartitionError> {
        let covers = checkpoint.covers;
        let decisions = log.read(log.topics.decisions, covers).await?;
        Ok(Self {
            log: log.clone(),
            claim,
            identity,
            fence: checkpoint.fence,
            decisions,
            checkpoint: checkpoint.completed_at,
            folded: 0,
            read: covers,
            batch: None,
        })
    }

    /// The next decision that counts, and its offset; none when the claim is reached.
    pub(crate) async fn next(
        &mut self,
        component: &Component,
    ) -> Result<Option<(Offset, Decision)>, PartitionError> {
        loop {
            if self.batch.is_some() {
                // A batch is read to its end, past the claim: it may show a later claim.
                while let Some(record) = self.batch.as_mut().and_then(Iterator::next) {
                    self.read = record.offset;
                    if let Some(decision) = self.pass(&record)? {
                        self.folded += 1;
                        return Ok(Some((record.offset, decision)));
                    }
                }
                self.batch = None;
                let (read, claim) = (self.read, self.claim);
                component.starting(format!(
                    "recovering: has read stock-decisions to offset {read} of {claim}"
                ));
            }
            if self.fence.claim >= self.claim {
                return Ok(None);
            }
            self.batch = Some(self.decisions.next().await?.into_iter());
        }
    }

    /// The decision of a record, if it counts.
    fn pass(&mut self, record: &LogRecord) -> Result<Option<Decision>, PartitionError> {
        let Some(decoded) = self.log.decode_decision(record)? else {
            self.count_dropped(1);
            return Ok(None);
        };
        match (self.fence.pass(record.offset, &decoded), decoded) {
            (Verdict::Counts, DecisionRecord::Decision(decision)) => return Ok(Some(decision)),
            (Verdict::Claimed, _) if record.offset > self.claim => {
                return Err(PartitionError::Superseded(record.offset));
            }
            (Verdict::Dropped, _) => self.count_dropped(1),
            _ => {}
        }
        Ok(None)
    }

    fn count_dropped(&self, decisions: u64) {
        let labels = [
            ("reader", "decider".into()),
            ("partition", self.log.partition.to_string()),
        ];
        metrics::counter!(DECISIONS_DROPPED, &labels).increment(decisions);
    }

    /// The identity of the log.
    pub(crate) fn identity(&self) -> RecordHash {
        self.identity
    }

    /// The partition.
    pub(crate) fn partition(&self) -> Partition {
        self.log.partition
    }

    /// Reports the partition as claimed and recovered, and how long that took.
    pub(crate) fn report(&self, took: Duration) {
        let (partition, claim) = (self.log.partition, self.claim);
        let label = [("partition", partition.to_string())];
        // What was not counted yet begins at zero.
        self.count_dropped(0);
        metrics::counter!(CLAIMS, &label).increment(1);
        metrics::histogram!(RECOVERY_SECONDS, &label).record(took.as_secs_f64());
        let took_ms = took.as_millis() as u64;
        let (answered, folded) = (self.fence.answered, self.folded);
        if answered.0 < 0 {
            debug!(%partition, %claim, took_ms, "claimed a new partition");
        } else {
            info!(%partition, %claim, %answered, folded, took_ms, "claimed the partition and recovered its state");
        }
    }
}
