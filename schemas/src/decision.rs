//! Topic `stock-decisions`: what was decided, the only truth about stock.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::{CommandBody, SaleTerms};
use crate::ids::{AttemptId, BuyerId, ChainHash, Money, Offset, ProductId, TimestampMs};

/// One record of `stock-decisions`.
#[derive(Debug, Clone, PartialEq)]
pub enum DecisionRecord {
    /// A decider claims the partition; the record's own offset is the claim's number.
    Claim(Claim),
    /// The answer to one record of `purchase-attempts`.
    Decision(Decision),
    /// A record of `purchase-attempts` on which no product decides.
    Skipped(Skipped),
}

/// A decider claims a partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The decider's name, for people who read the log; no rule depends on it.
    pub decider: Arc<str>,
    /// How many partitions the log's topics have. It determines each product's partition, so it is
    /// the same in all claims of a log; none in claims made before it was recorded.
    pub partitions: Option<u32>,
}

/// The whole answer to one record of `purchase-attempts`.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The claim it was made under: the offset of a [`Claim`] in this partition.
    pub claim: Offset,
    /// The offset in `purchase-attempts` that it answers, in the partition of the same number.
    pub answers: Offset,
    /// The offset that the partition's decision before this one answers; -1 when there is
    /// none. A decision counts only if that one did, so a lost decision cannot go unnoticed.
    pub follows: Offset,
    /// The product decided upon.
    pub product_id: ProductId,
    /// How many decisions the product has had with this one: gapless, from 1. 0 if the product has no
    /// sale and gets none by this decision, which then leaves nothing behind: whatever names anyone
    /// may make up, products that were never on sale take no memory.
    pub version: u64,
    /// When it was decided: the command's append time. It falls within a product only by
    /// [`Event::ClockCorrected`].
    pub decided_at_ms: TimestampMs,
    /// What happened, in order; empty when nothing did.
    pub events: Vec<Event>,
    /// The product's units after the events.
    pub stock: Stock,
    /// The round's counts after the events.
    pub tally: Tally,
    /// The kind of the command that it answers, so that the command's outcome can be read at its
    /// position. None for an attempt, whose outcome is read by its id; for the passing of time; and
    /// in decisions made before the field existed.
    pub command: Option<CommandKind>,
    /// SHA-256 over the product's previous chain hash and this decision's bytes before it:
    /// [`crate::codec::chain_hash`].
    pub chain: ChainHash,
}

impl Decision {
    /// Whether the product is another one after it: all but decisions on a product without a sale.
    pub fn leaves_state(&self) -> bool {
        self.version > 0
    }
}

/// The answer to a record of `purchase-attempts` on which no product decides: one that cannot be
/// decoded, or one that an operator skipped. It passes the fence like a decision, so that the records
/// after it can be answered. It belongs to no product, and changes none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// The claim it was made under.
    pub claim: Offset,
    /// The offset in `purchase-attempts` that it answers.
    pub answers: Offset,
    /// The offset that the partition's record before this one answers; -1 when there is none.
    pub follows: Offset,
    /// Why, for people; at most [`MAX_SKIP_REASON_BYTES`].
    pub reason: Arc<str>,
    /// The operator who skipped it; none: the decider, because the record cannot be decoded.
    pub by: Option<Arc<str>>,
}

/// The longest reason of a skipped record: as much as a line of a log has.
pub const MAX_SKIP_REASON_BYTES: usize = 500;

/// A product's units: `total = available + reserved + sold`, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stock {
    /// Units of the round.
    pub total: u32,
    /// Units neither held nor sold.
    pub available: u32,
    /// Units held for buyers.
    pub reserved: u32,
    /// Units sold.
    pub sold: u32,
}

/// A round's counts of attempts and orders, absolute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Attempts that got units.
    pub accepted: u64,
    /// Attempts that were refused.
    pub refused: u64,
    /// Orders cancelled by their buyers.
    pub cancelled: u64,
    /// Holds that ran out.
    pub expired: u64,
}

/// What can happen to a product.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The sale's terms are these from now on.
    SaleSet(SaleSet),
    /// Attempts are accepted from now on.
    SaleOpened,
    /// Attempts are refused until the sale is resumed.
    SalePaused,
    /// The round is over.
    SaleClosed,
    /// The round's total is what the decision's stock states.
    StockSet(StockSet),
    /// An attempt got its units, held or sold.
    OrderAccepted(OrderAccepted),
    /// An attempt was refused.
    AttemptRefused(AttemptRefused),
    /// An attempt came again; its first answer stands.
    AttemptRepeated(AttemptRepeated),
    /// An attempt came again with another quantity; its first answer stands, but answers another
    /// request than this one.
    AttemptConflicted(AttemptConflicted),
    /// An order's units went back to the stock.
    OrderReleased(OrderReleased),
    /// A cancellation was refused: the order stays as it is.
    CancelRefused(CancelRefused),
    /// A change to the sale was refused.
    SaleChangeRefused(SaleChangeRefused),
    /// The product's time was set back to the true one.
    ClockCorrected(ClockCorrected),
}

impl Event {
    /// Whether the sale is another one to its seller: its terms, its stock or its phase changed. The
    /// version of the sale is that of the last decision with such an event.
    pub fn changes_sale(&self) -> bool {
        matches!(
            self,
            Event::SaleSet(_)
                | Event::SaleOpened
                | Event::SalePaused
                | Event::SaleClosed
                | Event::StockSet(_)
        )
    }
}

/// The sale's terms are these from now on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaleSet {
    /// The terms.
    pub terms: SaleTerms,
    /// The round they belong to, from 1; a higher one than before begins a new round.
    pub round: u32,
}

/// The round's total changed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StockSet {
    /// The new total.
    pub stock: u32,
}

/// An attempt that got its units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// The attempt that became the order.
    pub attempt_id: AttemptId,
    /// The buyer.
    pub buyer_id: BuyerId,
    /// Units.
    pub quantity: u32,
    /// The attempt's offset in `purchase-attempts`, its place in the queue.
    pub attempt_offset: Offset,
    /// When it was accepted.
    pub accepted_at_ms: TimestampMs,
    /// Until when its units are held; none: they are sold.
    pub hold_until_ms: Option<TimestampMs>,
    /// The price of one unit when it was accepted, which later terms do not change; none: it was
    /// accepted by a version that did not record it.
    pub price: Option<Money>,
}

/// An attempt got its units, held or sold, as the order shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderAccepted {
    /// The order.
    pub order: Order,
}

/// An attempt was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRefused {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The buyer.
    pub buyer_id: BuyerId,
    /// Units requested.
    pub quantity: u32,
    /// Why it was refused.
    pub reason: RefusalReason,
}

impl AttemptRefused {
    /// Whether it is the attempt's outcome in the current round. An attempt that was made for another
    /// round has none here: it is neither counted nor remembered, and its id keeps the outcome that it
    /// has in its own round.
    pub fn is_outcome(&self) -> bool {
        self.reason != RefusalReason::AnotherRound
    }
}

/// An attempt came again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRepeated {
    /// The attempt.
    pub attempt_id: AttemptId,
}

/// An attempt came again with another quantity.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptConflicted {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The units requested this time; the attempt has its outcome for another quantity.
    pub quantity: u32,
}

/// An order's units went back to the stock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderReleased {
    /// The order as it was.
    pub order: Order,
    /// Why.
    pub cause: ReleaseCause,
}

/// A cancellation was refused: the order stays as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelRefused {
    /// The attempt whose order was to be cancelled.
    pub attempt_id: AttemptId,
    /// The buyer.
    pub buyer_id: BuyerId,
    /// Why.
    pub reason: CancelRefusalReason,
}

/// A change to the sale was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaleChangeRefused {
    /// Why.
    pub reason: SaleChangeRefusalReason,
}

/// The product's time was set back to the true one. Holds that were accepted after it are moved back
/// by the difference, so that what was left of them is left, and end after `to_ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClockCorrected {
    /// The product's time before; `to_ms` if it was not ahead, and nothing had to be corrected.
    pub from_ms: TimestampMs,
    /// The product's time from now on: the append time of the correction.
    pub to_ms: TimestampMs,
}

/// A closed list of names, the same in Avro, JSON and text.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every name of the list.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The name.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
            }
        }
    };
}

words! {
    /// The kinds of commands whose outcomes are read at their positions.
    CommandKind {
        /// A buyer places an attempt. No decision names this kind: the outcome of an attempt is read
        /// by its id, unless the same id came before with another quantity.
        PlaceAttempt = "place_attempt",
        /// A buyer cancels an order.
        CancelOrder = "cancel_order",
        /// The seller creates a sale or changes its terms.
        PutSale = "put_sale",
        /// The seller opens or resumes the sale.
        OpenSale = "open_sale",
        /// The seller pauses the sale.
        PauseSale = "pause_sale",
        /// The seller ends the round.
        CloseSale = "close_sale",
        /// The seller sets the round's total.
        SetStock = "set_stock",
        /// The seller begins a new round.
        BeginRound = "begin_round",
        /// An operator corrects the product's time.
        CorrectClock = "correct_clock",
    }
}

impl CommandBody {
    /// The kind of a command whose outcome is read at its position; none for an attempt and for the
    /// passing of time.
    pub fn kind(&self) -> Option<CommandKind> {
        match self {
            CommandBody::PlaceAttempt(_) | CommandBody::TimeAdvanced => None,
            CommandBody::CancelOrder(_) => Some(CommandKind::CancelOrder),
            CommandBody::PutSale(_) => Some(CommandKind::PutSale),
            CommandBody::BeginRound(_) => Some(CommandKind::BeginRound),
            CommandBody::OpenSale => Some(CommandKind::OpenSale),
            CommandBody::PauseSale => Some(CommandKind::PauseSale),
            CommandBody::CloseSale => Some(CommandKind::CloseSale),
            CommandBody::SetStock(_) => Some(CommandKind::SetStock),
            CommandBody::CorrectClock => Some(CommandKind::CorrectClock),
        }
    }
}

words! {
    /// Why an attempt was refused.
    RefusalReason {
        /// No such sale.
        UnknownProduct = "unknown_product",
        /// The sale has not opened.
        NotOpenYet = "not_open_yet",
        /// The sale is over.
        Closed = "closed",
        /// The seller has paused the sale.
        Paused = "paused",
        /// The quantity is zero, or more than one attempt may request.
        InvalidQuantity = "invalid_quantity",
        /// The buyer would have more units than the sale allows one buyer.
        OverBuyerLimit = "over_buyer_limit",
        /// No unit is left.
        SoldOut = "sold_out",
        /// Fewer units are left than were requested.
        NotEnoughLeft = "not_enough_left",
        /// The attempt was made for a round that is not the current one.
        AnotherRound = "another_round",
    }
}

words! {
    /// Why an order's units went back.
    ReleaseCause {
        /// Its buyer cancelled it.
        Cancelled = "cancelled",
        /// Its hold ran out.
        Expired = "expired",
    }
}

words! {
    /// Why a cancellation was refused.
    CancelRefusalReason {
        /// No order of that attempt is held or sold in this round.
        UnknownOrder = "unknown_order",
        /// The order is another buyer's.
        NotYours = "not_yours",
    }
}

words! {
    /// Why a change to the sale was refused.
    SaleChangeRefusalReason {
        /// No such sale.
        UnknownProduct = "unknown_product",
        /// The round is over; a new one begins by a command of its own.
        Closed = "closed",
        /// A term is out of its bounds.
        InvalidTerms = "invalid_terms",
        /// More units are held and sold than the new total has.
        StockBelowCommitted = "stock_below_committed",
        /// A new round cannot begin while units of the last one are held.
        HoldsOutstanding = "holds_outstanding",
        /// The sale has changed since the version that the change was made for.
        VersionDiffers = "version_differs",
        /// A new round begins only after a closed one.
        NoClosedRound = "no_closed_round",
    }
}
