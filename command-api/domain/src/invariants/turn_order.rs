//! The order of a partition's decisions: first come, first served.

use std::collections::BTreeSet;

use schemas::command::Command;
use schemas::decision::{Decision, DecisionRecord};
use schemas::ids::Offset;

use super::Violation;
use schemas::fence::{DecisionLink, Fence, Verdict};

/// Checks the decisions of one partition against the order of its `purchase-attempts`: every
/// record up to the last one answered has exactly one answer that counts, a decision or a skipped
/// record, in the same order, and none is missing from `stock-decisions`.
#[derive(Debug, Default)]
pub struct TurnOrder {
    /// Tells which decisions count.
    pub fence: Fence,
    claims: BTreeSet<Offset>,
    gap: Option<Gap>,
}

/// A place in `stock-decisions` before which decisions seem to be missing.
#[derive(Debug)]
struct Gap {
    /// The first decision that does not count because of it.
    at: Offset,
    claim: Offset,
    violation: Violation,
}

impl TurnOrder {
    /// Checks the next record of `stock-decisions`. Fails on a decision under a claim that was
    /// never made. If decisions were missing before, the offset returned is that of the first
    /// decision that shows it.
    pub fn observe(
        &mut self,
        offset: Offset,
        record: &DecisionRecord,
    ) -> Result<Verdict, (Offset, Violation)> {
        let before = self.fence;
        let verdict = self.fence.pass(offset, record);
        let decision: DecisionLink = match record {
            DecisionRecord::Claim(_) => {
                self.claims.insert(offset);
                return Ok(verdict);
            }
            DecisionRecord::Decision(decision) => decision.into(),
            DecisionRecord::Skipped(skipped) => skipped.into(),
        };
        if !self.claims.contains(&decision.claim) {
            self.finish()?;
            return Err((offset, Violation::NoSuchClaim(decision.claim)));
        }
        match verdict {
            // A later claim continues after the last decision that counts, so the lost decisions
            // before it were made again, as they should be.
            Verdict::Counts
                if self
                    .gap
                    .as_ref()
                    .is_some_and(|gap| gap.claim < decision.claim) =>
            {
                self.gap = None;
            }
            Verdict::Dropped
                if self.gap.is_none()
                    && decision.claim == before.claim
                    && decision.answers > before.answered =>
            {
                let violation = Violation::DecisionsMissing {
                    follows: decision.follows,
                    answered: before.answered,
                };
                self.gap = Some(Gap {
                    at: offset,
                    claim: before.claim,
                    violation,
                });
            }
            _ => {}
        }
        Ok(verdict)
    }

    /// Ends the check. Fails, with the offset in `stock-decisions`, if decisions are missing that
    /// were not made again.
    pub fn finish(&self) -> Result<(), (Offset, Violation)> {
        match &self.gap {
            Some(gap) => Err((gap.at, gap.violation.clone())),
            None => Ok(()),
        }
    }
}

/// A decision that counts answers the next record of `purchase-attempts`. `next` is that record's
/// offset; none at the end of the topic.
pub fn check_answers_next(decision: &Decision, next: Option<Offset>) -> Result<(), Violation> {
    match next {
        Some(next) if next == decision.answers => Ok(()),
        Some(next) if next < decision.answers => Err(Violation::Unanswered),
        _ => Err(Violation::AnswersNothing(decision.answers)),
    }
}

/// A decision and the command it answers are about the same product.
pub fn check_product(decision: &Decision, command: &Command) -> Result<(), Violation> {
    if decision.product_id == command.product_id {
        Ok(())
    } else {
        Err(Violation::AnswersAnotherProduct(command.product_id.clone()))
    }
}

#[cfg(test)]
mod tests {
    use schemas::command::CommandBody;
    use schemas::decision::{Claim, Stock, Tally};
    use schemas::ids::ChainHash;

    use super::*;

    fn claim() -> DecisionRecord {
        DecisionRecord::Claim(Claim {
            decider: "test".into(),
            partitions: None,
        })
    }

    fn decided(claim: i64, follows: i64, answers: i64) -> Decision {
        Decision {
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
        }
    }

    fn decision(claim: i64, follows: i64, answers: i64) -> DecisionRecord {
        DecisionRecord::Decision(decided(claim, follows, answers))
    }

    fn walk(log: &[DecisionRecord]) -> Result<(), (Offset, Violation)> {
        let mut order = TurnOrder::default();
        for (offset, record) in log.iter().enumerate() {
            order.observe(Offset(offset as i64), record)?;
        }
        order.finish()
    }

    fn missing(at: i64, follows: i64, answered: i64) -> Result<(), (Offset, Violation)> {
        let (follows, answered) = (Offset(follows), Offset(answered));
        Err((
            Offset(at),
            Violation::DecisionsMissing { follows, answered },
        ))
    }

    #[test]
    fn decisions_that_the_fence_drops_are_no_violation() {
        let log = [
            claim(),
            decision(0, -1, 0),
            decision(0, -1, 0), // The same write arrived twice.
            claim(),
            decision(0, 0, 1), // The first decider continues unaware.
            decision(3, 0, 1),
            decision(3, 2, 3), // A write before it was lost,
            claim(),           // so the decider claims anew,
            decision(7, 1, 2), // and decides again what was lost.
            decision(7, 2, 3),
        ];
        assert_eq!(walk(&log), Ok(()));
    }

    #[test]
    fn removed_decisions_are_noticed_at_the_first_gap() {
        assert_eq!(
            walk(&[claim(), decision(0, -1, 0), decision(0, 1, 2)]),
            missing(2, 1, 0)
        );
        let swapped = [
            claim(),
            decision(0, 0, 1),
            decision(0, -1, 0),
            decision(0, 1, 2),
            claim(),
        ];
        assert_eq!(walk(&swapped), missing(1, 0, -1));
        // Every later claim is one offset off, too; the first one is named.
        let shifted = [claim(), decision(0, 0, 1), claim(), decision(3, 1, 2)];
        assert_eq!(walk(&shifted), missing(1, 0, -1));
        let no_claim = [claim(), decision(0, -1, 0), decision(2, 0, 1)];
        assert_eq!(
            walk(&no_claim),
            Err((Offset(2), Violation::NoSuchClaim(Offset(2))))
        );
    }

    #[test]
    fn every_record_is_answered_in_its_order() {
        let decision = decided(0, 3, 5);
        assert_eq!(check_answers_next(&decision, Some(Offset(5))), Ok(()));
        assert_eq!(
            check_answers_next(&decision, Some(Offset(4))),
            Err(Violation::Unanswered)
        );
        let nothing = Err(Violation::AnswersNothing(Offset(5)));
        assert_eq!(check_answers_next(&decision, Some(Offset(6))), nothing);
        assert_eq!(check_answers_next(&decision, None), nothing);
        let command = |product_id: &str| Command {
            product_id: product_id.parse().unwrap(),
            body: CommandBody::TimeAdvanced,
            if_version: None,
        };
        assert_eq!(check_product(&decision, &command("p")), Ok(()));
        let other = Violation::AnswersAnotherProduct("q".parse().unwrap());
        assert_eq!(check_product(&decision, &command("q")), Err(other));
    }
}
