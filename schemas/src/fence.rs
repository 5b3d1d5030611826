//! The fence: the one rule by which every reader of `stock-decisions` tells which decisions count.
//!
//! - A claim at offset c makes c the current claim.
//! - A decision counts only if its claim is the current one, it answers a later offset than
//!   the last that counted, and it names that last one as the one it follows. Any other is
//!   dropped. The same holds for a skipped record, which is an answer as well.
//! - What no version of the program can decode ([`crate::codec::DecodeError::is_garbage`]) is
//!   dropped: it can never count.
//!
//! Readers therefore ignore whatever a decider appends that was paused or cut off, and a decider
//! that lost a write cannot continue as if it had not.

use crate::decision::{Decision, DecisionRecord, Skipped};
use crate::ids::Offset;

/// What a reader of one partition of `stock-decisions` remembers to tell which decisions count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fence {
    /// The current claim; -1 before the first.
    pub claim: Offset,
    /// The last offset of `purchase-attempts` that a decision that counts answers; -1 before the
    /// first.
    pub answered: Offset,
}

impl Default for Fence {
    fn default() -> Self {
        Self {
            claim: Offset(-1),
            answered: Offset(-1),
        }
    }
}

/// What a record of `stock-decisions` means to its readers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// A decider claimed the partition.
    Claimed,
    /// The decision or the skipped record counts.
    Counts,
    /// It does not count.
    Dropped,
}

/// The place of an answer, a decision or a skipped record, in its partition, by which the fence tells
/// whether it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionLink {
    /// The claim it was made under.
    pub claim: Offset,
    /// The offset of `purchase-attempts` that it follows.
    pub follows: Offset,
    /// The offset of `purchase-attempts` that it answers.
    pub answers: Offset,
}

impl From<&Decision> for DecisionLink {
    fn from(decision: &Decision) -> Self {
        Self {
            claim: decision.claim,
            follows: decision.follows,
            answers: decision.answers,
        }
    }
}

impl From<&Skipped> for DecisionLink {
    fn from(skipped: &Skipped) -> Self {
        Self {
            claim: skipped.claim,
            follows: skipped.follows,
            answers: skipped.answers,
        }
    }
}

impl Fence {
    /// Passes the next record of the partition through the fence.
    pub fn pass(&mut self, offset: Offset, record: &DecisionRecord) -> Verdict {
        match record {
            DecisionRecord::Claim(_) => {
                self.claim = offset;
                Verdict::Claimed
            }
            DecisionRecord::Decision(decision) => self.pass_decision(decision.into()),
            DecisionRecord::Skipped(skipped) => self.pass_decision(skipped.into()),
        }
    }

    /// Passes the next record of the partition through the fence when that is a decision or a
    /// skipped record.
    pub fn pass_decision(&mut self, decision: DecisionLink) -> Verdict {
        let counts = decision.claim == self.claim
            && decision.claim.0 >= 0
            && decision.follows == self.answered
            && decision.answers > self.answered;
        if !counts {
            return Verdict::Dropped;
        }
        self.answered = decision.answers;
        Verdict::Counts
    }
}

#[cfg(test)]
mod tests {
    use crate::decision::{Claim, Decision, Stock, Tally};
    use crate::ids::ChainHash;

    use super::*;

    fn claim() -> DecisionRecord {
        DecisionRecord::Claim(Claim {
            decider: "test".into(),
            partitions: None,
        })
    }

    fn decision(claim: i64, follows: i64, answers: i64) -> DecisionRecord {
        DecisionRecord::Decision(Decision {
            claim: Offset(claim),
            answers: Offset(answers),
            follows: Offset(follows),
            product_id: "p".parse().unwrap(),
            version: 1,
            decided_at_ms: 0,
            events: vec![],
            stock: Stock::default(),
            tally: Tally::default(),
            command: None,
            chain: ChainHash::default(),
        })
    }

    fn skipped(claim: i64, follows: i64, answers: i64) -> DecisionRecord {
        DecisionRecord::Skipped(Skipped {
            claim: Offset(claim),
            answers: Offset(answers),
            follows: Offset(follows),
            reason: "garbage".into(),
            by: None,
        })
    }

    #[test]
    fn a_skipped_record_passes_like_a_decision() {
        use Verdict::{Claimed, Counts, Dropped};
        let log = [
            (skipped(-1, -1, 0), Dropped), // Before any claim nothing counts.
            (claim(), Claimed),            // 1
            (skipped(1, -1, 0), Counts),   //
            (decision(1, 0, 1), Counts),   // It follows the skipped record.
            (decision(1, 0, 2), Dropped),  // It does not.
            (skipped(1, 0, 2), Dropped),   //
            (claim(), Claimed),            // 6
            (skipped(1, 1, 2), Dropped),   // The first decider continues unaware.
            (skipped(6, 1, 2), Counts),    //
            (skipped(6, 1, 2), Dropped),   // The same write arrived twice.
            (decision(6, 2, 3), Counts),   //
        ];
        let mut fence = Fence::default();
        for (offset, (record, verdict)) in log.iter().enumerate() {
            let passed = fence.pass(Offset(offset as i64), record);
            assert_eq!(passed, *verdict, "at {offset}");
        }
    }

    #[test]
    fn only_the_current_claim_counts_and_each_offset_once_in_order() {
        use Verdict::{Claimed, Counts, Dropped};
        let log = [
            (decision(-1, -1, 0), Dropped), // Before any claim nothing counts.
            (claim(), Claimed),             // 1
            (decision(1, -1, 0), Counts),   //
            (decision(1, 0, 1), Counts),    //
            (decision(1, 0, 1), Dropped),   // The same write arrived twice.
            (decision(1, 1, 2), Counts),    //
            (claim(), Claimed),             // 6
            (decision(1, 2, 3), Dropped),   // The first decider continues unaware.
            (decision(6, 2, 3), Counts),    //
            (decision(1, 3, 4), Dropped),   //
            (decision(6, 3, 2), Dropped),   // Backwards.
            (decision(99, 3, 4), Dropped),  // A claim that was never made.
            (decision(6, 4, 5), Dropped),   // The one before it was lost, so it is too.
            (decision(6, 3, 7), Counts),    // Offsets may have gaps, decisions may not.
        ];
        let mut fence = Fence::default();
        for (offset, (record, verdict)) in log.iter().enumerate() {
            assert_eq!(
                fence.pass(Offset(offset as i64), record),
                *verdict,
                "at {offset}"
            );
        }
    }
}
