//! Reading decisions back: a decision counts only when the log has it and the fence passes it.

use std::collections::VecDeque;

use bytes::Bytes;
use ports::{Clock, LogReader, LogRecord};
use schemas::decision::{Decision, DecisionRecord, Skipped};
use schemas::fence::{DecisionLink, Fence, Verdict};
use schemas::ids::Offset;

use super::log_time::LogTime;
use super::{PartitionError, PartitionLog};

/// Compares the decisions' topic with the decisions made here.
pub(super) struct ReadBack {
    /// The claim that this decider works under.
    claim: Offset,
    /// The fence after the records read back.
    pub(super) fence: Fence,
    /// Reads the decisions' topic after the claim.
    pub(super) decisions: Box<dyn LogReader>,
    /// Decisions not yet read back, in the order in which the log should have them: their bytes,
    /// shared with the record that is appended, and what the fence needs of them.
    unconfirmed: VecDeque<(Bytes, DecisionLink)>,
    /// What the decisions' times show about the log's clock.
    pub(super) log_time: LogTime,
    /// The offset after the last record that was read back.
    pub(super) next: Offset,
}

impl ReadBack {
    /// Begins after the claim.
    pub(super) fn new(claim: Offset, fence: Fence, decisions: Box<dyn LogReader>) -> Self {
        Self {
            claim,
            fence,
            decisions,
            unconfirmed: VecDeque::new(),
            log_time: LogTime::default(),
            next: claim.next(),
        }
    }

    /// Adds a decision that will be read back.
    pub(super) fn expect(&mut self, value: Bytes, link: DecisionLink, clock: &dyn Clock) {
        if self.unconfirmed.is_empty() {
            self.log_time.begin(clock.now_ms());
        }
        self.unconfirmed.push_back((value, link));
    }

    /// Compares records that were read back with the decisions made here, byte for byte. Only a
    /// record that is not the next own decision is decoded. Fails when the fence drops an own
    /// decision, or when another decider has claimed the partition.
    pub(super) fn confirm(
        &mut self,
        records: &[LogRecord],
        log: &PartitionLog,
        clock: &dyn Clock,
    ) -> Result<(), PartitionError> {
        let mut appended_at_ms = None;
        for record in records {
            let offset = record.offset;
            let own = self
                .unconfirmed
                .pop_front_if(|(value, _)| *value == record.value);
            match own {
                Some((_, link)) => {
                    if self.fence.pass_decision(link) == Verdict::Dropped {
                        return Err(PartitionError::Dropped(offset));
                    }
                    appended_at_ms = Some(record.appended_at_ms);
                }
                None => self.pass_other(record, log)?,
            }
            self.next = offset.next();
        }
        if let Some(appended_at_ms) = appended_at_ms {
            self.log_time.observe(appended_at_ms, clock.now_ms());
        }
        Ok(())
    }

    /// Passes a record through the fence that is not the next own decision.
    fn pass_other(&mut self, record: &LogRecord, log: &PartitionLog) -> Result<(), PartitionError> {
        let offset = record.offset;
        let Some(decoded) = log.decode_decision(record)? else {
            return Ok(());
        };
        match (self.fence.pass(offset, &decoded), decoded) {
            (Verdict::Claimed, _) => Err(PartitionError::Superseded(offset)),
            (Verdict::Dropped, DecisionRecord::Decision(Decision { claim, .. }))
            | (Verdict::Dropped, DecisionRecord::Skipped(Skipped { claim, .. }))
                if claim == self.claim =>
            {
                Err(PartitionError::Dropped(offset))
            }
            _ => Ok(()),
        }
    }
}
