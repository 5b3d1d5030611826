//! The invariants that can be violated, and their messages.

use schemas::decision::{ClockCorrected, RefusalReason, Stock, Tally};
use schemas::ids::{AttemptId, ChainHash, Offset, ProductId, TimestampMs};

use crate::figures::Phase;

/// An invariant that does not hold, with the values that show it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Units appeared or vanished: total is not available + reserved + sold.
    #[error(
        "units not conserved: total {} is not available {} + reserved {} + sold {}",
        .0.total, .0.available, .0.reserved, .0.sold
    )]
    UnitsNotConserved(Stock),
    /// The events do not lead to the stock that the decision states.
    #[error("the events lead to {computed:?}, but the decision states {stated:?}")]
    StockDiffers {
        /// The stock computed from the events.
        computed: Stock,
        /// The stock in the decision.
        stated: Stock,
    },
    /// The events do not lead to the counts that the decision states.
    #[error("the events lead to {computed:?}, but the decision states {stated:?}")]
    TallyDiffers {
        /// The counts computed from the events.
        computed: Tally,
        /// The counts in the decision.
        stated: Tally,
    },
    /// More units were given than were available.
    #[error("oversold: {quantity} units given, {available} available")]
    Oversold {
        /// Units given.
        quantity: u32,
        /// Units that were available.
        available: u32,
    },
    /// An attempt was refused for a reason that did not hold: idle stock, or an open sale.
    #[error("attempt {attempt} was refused as {reason} with {available} units available")]
    WronglyRefused {
        /// The attempt.
        attempt: AttemptId,
        /// The reason given.
        reason: RefusalReason,
        /// Units that were available.
        available: u32,
    },
    /// A cancellation was refused for a reason that did not hold.
    #[error("cancelling the order of attempt {0} was refused for a reason that did not hold")]
    CancelWronglyRefused(AttemptId),
    /// The decision is not the product's next one.
    #[error("the product's version should be {expected}, but is {found}")]
    VersionGap {
        /// The version expected.
        expected: u64,
        /// The version found.
        found: u64,
    },
    /// The terms belong neither to the current round nor, after a closed one, to the next.
    #[error("the sale's round should be {expected}, but is {found}")]
    RoundGap {
        /// The round expected.
        expected: u32,
        /// The round found.
        found: u32,
    },
    /// A round began while units of the one before were still held.
    #[error("a new round began while {0} units of the one before were still held")]
    HoldsForgotten(u32),
    /// The decision was made before the one before it.
    #[error("decided at {found} ms, before the decision before it at {before} ms")]
    TimeWentBack {
        /// The time of the one before.
        before: TimestampMs,
        /// The decision's own.
        found: TimestampMs,
    },
    /// The product's time was corrected from a time that it did not have, or to another one than the
    /// decision's.
    #[error(
        "the time was corrected from {} ms to {} ms, which are not the times before and after",
        .0.from_ms, .0.to_ms
    )]
    WronglyCorrected(ClockCorrected),
    /// The decision does not carry the time at which the log appended the record it answers.
    #[error("decided at {found} ms, but by the log's time it should be {expected} ms")]
    NotTheLogsTime {
        /// The record's append time, or the product's last decision's if that is later.
        expected: TimestampMs,
        /// The decision's own.
        found: TimestampMs,
    },
    /// The sale opened or closed by time before that was due.
    #[error("the sale opened or closed by time at {0} ms, before that was due")]
    NotDue(TimestampMs),
    /// A hold ran out before its deadline.
    #[error("the hold of attempt {0} ran out before its deadline")]
    ExpiredEarly(AttemptId),
    /// A deadline had passed, but did not take effect: an opening, a closing or a hold.
    #[error("the deadline at {0} ms had passed, but did not take effect")]
    Overdue(TimestampMs),
    /// The chain hash does not follow from the one before and the bytes.
    #[error("the chain hash should be {expected}, but is {found}")]
    ChainBroken {
        /// The hash computed.
        expected: ChainHash,
        /// The hash in the decision.
        found: ChainHash,
    },
    /// An attempt has a second outcome.
    #[error("attempt {0} has a second outcome")]
    SecondOutcome(AttemptId),
    /// An attempt has an outcome in a round that it was not made for, or has none in its own.
    #[error("attempt {0} has an outcome in another round than it was made for, or none in its own")]
    AnotherRound(AttemptId),
    /// An attempt is called a conflict with one for the same quantity, or with none.
    #[error("attempt {0} conflicts with no earlier attempt of that id")]
    NoConflict(AttemptId),
    /// A change of the sale took effect at another version than it was made for.
    #[error("a change of the sale took effect, but was made for another version of it")]
    AnotherVersion,
    /// An order was released that does not exist or differs from the one released.
    #[error("the order of attempt {0} was released, but no such order was held or sold")]
    NoSuchOrder(AttemptId),
    /// A buyer has more units than the sale allows.
    #[error("a buyer has {units} units where {limit} are allowed")]
    OverLimit {
        /// Units the buyer has.
        units: u32,
        /// Units allowed.
        limit: u32,
    },
    /// The decision does not answer the command at the offset it names.
    #[error("the decision does not answer the command at the offset it names")]
    AnswersSomethingElse,
    /// A record of `purchase-attempts` was skipped: later ones have decisions, it has none.
    #[error("the record has no decision that counts, though later ones have")]
    Unanswered,
    /// There is no record at the offset that the decision answers.
    #[error("there is no record at offset {0}, which the decision answers")]
    AnswersNothing(Offset),
    /// The record that the decision answers is about another product.
    #[error("it answers a record about product {0}")]
    AnswersAnotherProduct(ProductId),
    /// Decisions before this one are missing, so it does not count.
    #[error(
        "decisions are missing before it: it follows the one on offset {follows}, but the last \
         that counts is on offset {answered}"
    )]
    DecisionsMissing {
        /// The offset of `purchase-attempts` whose decision it follows.
        follows: Offset,
        /// The last offset of `purchase-attempts` with a decision that counts.
        answered: Offset,
    },
    /// The decision names a claim that was never made.
    #[error("it was decided under claim {0}, which was never made")]
    NoSuchClaim(Offset),
    /// The sale's phase does not allow the event.
    #[error("an event of this kind cannot happen while the sale is {0:?}")]
    WrongPhase(Phase),
}
