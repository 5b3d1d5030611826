//! A partition's line: whoever comes first has the first turn.

use std::collections::BTreeSet;

use schemas::command::Command;
use schemas::decision::{Decision, DecisionRecord};
use schemas::ids::Offset;

use super::Violation;
use schemas::fence::{Fence, Verdict};

/// A partition's two logs side by side, record by record: every record of log 1 up to the last
/// answered has exactly one decision that counts, in their order, and nothing is missing from
/// log 2.
#[derive(Debug, Default)]
pub struct Line {
    /// What tells which decisions count.
    pub fence: Fence,
    claims: BTreeSet<Offset>,
    gap: Option<Gap>,
}

/// Where decisions seem to be missing from log 2.
#[derive(Debug)]
struct Gap {
    /// The first decision that does not count because of it.
    at: Offset,
    claim: Offset,
    violation: Violation,
}

impl Line {
    /// Takes the next record of log 2. Fails on a decision under a claim that was never made;
    /// where decisions were missing before it, the place is that of the first sign of it.
    pub fn take(
        &mut self,
        offset: Offset,
        record: &DecisionRecord,
    ) -> Result<Verdict, (Offset, Violation)> {
        let before = self.fence;
        let verdict = self.fence.pass(offset, record);
        let decision = match record {
            DecisionRecord::Claim(_) => {
                self.claims.insert(offset);
                return Ok(verdict);
            }
            DecisionRecord::Decision(decision) => decision,
        };
        if !self.claims.contains(&decision.claim) {
            self.end()?;
            return Err((offset, Violation::NoSuchClaim(decision.claim)));
        }
        match verdict {
            // A later claim began after the last decision that counts, so what was lost before
            // it was decided again, as is right.
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

    /// Whether all that was taken holds up to here: fails, with the place in log 2, where
    /// decisions are missing that were not made again.
    pub fn end(&self) -> Result<(), (Offset, Violation)> {
        match &self.gap {
            Some(gap) => Err((gap.at, gap.violation.clone())),
            None => Ok(()),
        }
    }
}

/// The record of log 1 that is next in line is the one that a counting decision answers.
/// `next` is its offset; none at the end of log 1.
pub fn check_turn(decision: &Decision, next: Option<Offset>) -> Result<(), Violation> {
    match next {
        Some(next) if next == decision.answers => Ok(()),
        Some(next) if next < decision.answers => Err(Violation::Unanswered),
        _ => Err(Violation::AnswersNothing(decision.answers)),
    }
}

/// The command that a decision answers is about the same product.
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
            chain: ChainHash::default(),
        }
    }

    fn decision(claim: i64, follows: i64, answers: i64) -> DecisionRecord {
        DecisionRecord::Decision(decided(claim, follows, answers))
    }

    fn walk(log: &[DecisionRecord]) -> Result<(), (Offset, Violation)> {
        let mut line = Line::default();
        for (offset, record) in log.iter().enumerate() {
            line.take(Offset(offset as i64), record)?;
        }
        line.end()
    }

    fn missing(at: i64, follows: i64, answered: i64) -> Result<(), (Offset, Violation)> {
        let (follows, answered) = (Offset(follows), Offset(answered));
        Err((
            Offset(at),
            Violation::DecisionsMissing { follows, answered },
        ))
    }

    #[test]
    fn what_the_fence_drops_rightly_is_no_violation() {
        let log = [
            claim(),
            decision(0, -1, 0),
            decision(0, -1, 0), // The same write arrived twice.
            claim(),
            decision(0, 0, 1), // The first decider goes on unaware.
            decision(3, 0, 1),
            decision(3, 2, 3), // A write before it was lost,
            claim(),           // so the decider claims anew,
            decision(7, 1, 2), // and decides again what was lost.
            decision(7, 2, 3),
        ];
        assert_eq!(walk(&log), Ok(()));
    }

    #[test]
    fn decisions_taken_out_are_noticed_at_the_first_sign() {
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
        // Every later claim is one place off, too; what came first is named.
        let shifted = [claim(), decision(0, 0, 1), claim(), decision(3, 1, 2)];
        assert_eq!(walk(&shifted), missing(1, 0, -1));
        let no_claim = [claim(), decision(0, -1, 0), decision(2, 0, 1)];
        assert_eq!(
            walk(&no_claim),
            Err((Offset(2), Violation::NoSuchClaim(Offset(2))))
        );
    }

    #[test]
    fn everyone_has_a_turn() {
        let decision = decided(0, 3, 5);
        assert_eq!(check_turn(&decision, Some(Offset(5))), Ok(()));
        assert_eq!(
            check_turn(&decision, Some(Offset(4))),
            Err(Violation::Unanswered)
        );
        let nothing = Err(Violation::AnswersNothing(Offset(5)));
        assert_eq!(check_turn(&decision, Some(Offset(6))), nothing);
        assert_eq!(check_turn(&decision, None), nothing);
        let asked = |product_id: &str| Command {
            product_id: product_id.parse().unwrap(),
            body: CommandBody::TimeAdvanced,
        };
        assert_eq!(check_product(&decision, &asked("p")), Ok(()));
        let other = Violation::AnswersAnotherProduct("q".parse().unwrap());
        assert_eq!(check_product(&decision, &asked("q")), Err(other));
    }
}
