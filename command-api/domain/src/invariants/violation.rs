//! What must hold did not.

use schemas::decision::{RefusalReason, Stock, Tally};
use schemas::ids::{AttemptId, ChainHash, Offset, ProductId, TimestampMs};

use crate::product::Phase;

/// What must hold did not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// Units appeared or vanished: total is not available + reserved + sold.
    #[error(
        "units not conserved: total {} is not available {} + reserved {} + sold {}",
        .0.total, .0.available, .0.reserved, .0.sold
    )]
    UnitsNotConserved(Stock),
    /// The events do not lead to the stock that the decision says.
    #[error("the events lead to {kept:?}, but the decision says {said:?}")]
    StockDiffers {
        /// The stock worked out.
        kept: Stock,
        /// The stock said.
        said: Stock,
    },
    /// The events do not lead to the counts that the decision says.
    #[error("the events lead to {kept:?}, but the decision says {said:?}")]
    TallyDiffers {
        /// The counts worked out.
        kept: Tally,
        /// The counts said.
        said: Tally,
    },
    /// More units were given than there were.
    #[error("oversold: {quantity} units given, {available} available")]
    Oversold {
        /// Units given.
        quantity: u32,
        /// Units there were.
        available: u32,
    },
    /// An attempt was refused for a reason that did not hold: idle stock, or an open sale.
    #[error("attempt {attempt} was refused as {reason} with {available} units available")]
    WronglyRefused {
        /// The attempt.
        attempt: AttemptId,
        /// The reason given.
        reason: RefusalReason,
        /// Units there were.
        available: u32,
    },
    /// Giving an order back was refused for a reason that did not hold.
    #[error("giving back the order of attempt {0} was refused for a reason that did not hold")]
    CancelWronglyRefused(AttemptId),
    /// The decision is not the product's next one.
    #[error("the product's version should be {expected}, but is {found}")]
    VersionGap {
        /// The version expected.
        expected: u64,
        /// The version found.
        found: u64,
    },
    /// The terms belong to another round than the one under way, or the next after a closed one.
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
    /// The decision was not made at the time the log gave the record it answers.
    #[error("decided at {found} ms, but the log's time makes it {expected} ms")]
    NotTheLogsTime {
        /// The record's append time, or the product's last decision's if that is later.
        expected: TimestampMs,
        /// The decision's own.
        found: TimestampMs,
    },
    /// The sale opened or closed by time before it was due.
    #[error("the sale opened or closed by time at {0} ms, before that was due")]
    NotDue(TimestampMs),
    /// A hold was said to have run out before its deadline.
    #[error("the hold of attempt {0} was said to have run out before its deadline")]
    ExpiredEarly(AttemptId),
    /// A deadline had passed, but did not take effect: an opening, a closing or a hold.
    #[error("the deadline at {0} ms had passed, but did not take effect")]
    Overdue(TimestampMs),
    /// The chain hash does not follow from the one before and the bytes.
    #[error("the chain hash should be {expected}, but is {found}")]
    ChainBroken {
        /// The hash worked out.
        expected: ChainHash,
        /// The hash said.
        found: ChainHash,
    },
    /// An attempt has a second outcome.
    #[error("attempt {0} has a second outcome")]
    SecondOutcome(AttemptId),
    /// An order was released that did not stand so.
    #[error("the order of attempt {0} was released, but did not stand so")]
    NoSuchOrder(AttemptId),
    /// A buyer has more units than the sale allows.
    #[error("a buyer has {units} units where {limit} are allowed")]
    OverLimit {
        /// Units the buyer has.
        units: u32,
        /// Units allowed.
        limit: u32,
    },
    /// The decision does not answer the command it says it answers.
    #[error("the decision does not answer the command at the offset it names")]
    AnswersSomethingElse,
    /// A record of log 1 was passed over: later ones have decisions, it has none.
    #[error("the record has no decision that counts, though later ones have")]
    Unanswered,
    /// There is no record where the decision's answer points.
    #[error("there is no record at offset {0} that it could answer")]
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
        /// The offset of log 1 whose decision it follows.
        follows: Offset,
        /// The last offset of log 1 with a decision that counts.
        answered: Offset,
    },
    /// The decision names a claim that was never made.
    #[error("it was decided under claim {0}, which was never made")]
    NoSuchClaim(Offset),
    /// An event happened that the sale's phase does not allow.
    #[error("this cannot happen while the sale is {0:?}")]
    WrongPhase(Phase),
}
