//! Reading decisions back: a decision counts only when the log has it and the fence passes it.

use std::collections::VecDeque;

use bytes::Bytes;
use ports::{LogReader, LogRecord};
use schemas::decision::{Decision, DecisionRecord, Skipped};
use schemas::fence::{DecisionLink, Fence, Verdict};
use schemas::ids::Offset;

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
            next: claim.next(),
        }
    }

    /// Adds a decision that will be read back.
    pub(super) fn expect(&mut self, value: Bytes, link: DecisionLink) {
        self.unconfirmed.push_back((value, link));
    }

    /// Compares records that were read back with the decisions made here, byte for byte. Only a
    /// record that is not the next own decision is decoded. Fails when the fence drops an own
    /// decision, or when another decider has claimed the partition.
    pub(super) fn confirm(
        &mut self,
        records: &[LogRecord],
        log: &PartitionLog,
    ) -> Result<(), PartitionError> {
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
                }
                None => self.pass_other(record, log)?,
            }
            self.next = offset.next();
        }
        Ok(())
    }

    /// Passes a record through the fence that is not the next own decision.
    fn pass_other(&mut self, record: &LogRecord, log: &PartitionLog) -> Result<(), PartitionError> {
        let offset = record.offset;
        let decoded = log.decode_decision(record)?;
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
