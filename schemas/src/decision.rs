//! Log 2, `stock-decisions`: what was decided, the only truth about stock.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::command::SaleTerms;
use crate::ids::{AttemptId, BuyerId, ChainHash, Offset, ProductId, TimestampMs};

/// One record of log 2.
#[derive(Debug, Clone, PartialEq)]
pub enum DecisionRecord {
    /// A decider takes the partition; the record's own offset is the claim's number.
    Claim(Claim),
    /// The answer to one record of log 1.
    Decision(Decision),
}

/// A decider takes a partition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Claim {
    /// The decider's name, for the reader of the log; no rule depends on it.
    pub decider: Arc<str>,
}

/// The answer to one record of log 1, whole in one record.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// The claim it was made under: the offset of a [`Claim`] in this partition.
    pub claim: Offset,
    /// The offset in log 1 that it answers, in the partition of the same number.
    pub answers: Offset,
    /// The offset that the partition's decision before this one answers; -1 when there is
    /// none. A decision counts only if that one did, so a lost one cannot go unnoticed.
    pub follows: Offset,
    /// The product decided upon.
    pub product_id: ProductId,
    /// How many decisions the product has had with this one: gapless, from 1.
    pub version: u64,
    /// The time decided at: the log's append time, never going backwards for a product.
    pub decided_at_ms: TimestampMs,
    /// What happened, in order; empty when nothing did.
    pub events: Vec<Event>,
    /// The product's units after the events.
    pub stock: Stock,
    /// The round's counts after the events.
    pub tally: Tally,
    /// SHA-256 over the product's previous chain hash and this decision's bytes before it:
    /// [`crate::codec::chain_hash`].
    pub chain: ChainHash,
}

/// A product's units: `total = available + reserved + sold`, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stock {
    /// Units of the round.
    pub total: u32,
    /// Units nobody has.
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
    /// Orders given back by their buyers.
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
    /// Attempts are refused for the time being.
    SalePaused,
    /// The round is over.
    SaleClosed,
    /// The round's total is what the decision's stock says.
    StockSet(StockSet),
    /// An attempt got its units, held or sold.
    OrderAccepted(OrderAccepted),
    /// An attempt was refused.
    AttemptRefused(AttemptRefused),
    /// An attempt came again; its first answer stands.
    AttemptRepeated(AttemptRepeated),
    /// An order's units went back to the stock.
    OrderReleased(OrderReleased),
    /// An order stays as it is, though giving it back was asked.
    CancelRefused(CancelRefused),
    /// A change to the sale was refused.
    SaleChangeRefused(SaleChangeRefused),
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
    /// Whose it is.
    pub buyer_id: BuyerId,
    /// Units.
    pub quantity: u32,
    /// The attempt's offset in log 1: its place in line.
    pub attempt_offset: Offset,
    /// When it was accepted.
    pub accepted_at_ms: TimestampMs,
    /// Until when its units are held; none: they are sold.
    pub hold_until_ms: Option<TimestampMs>,
}

/// An attempt got its units, held or sold as the order says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderAccepted {
    /// The order as it now stands.
    pub order: Order,
}

/// An attempt was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRefused {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// Who asked.
    pub buyer_id: BuyerId,
    /// For how many units.
    pub quantity: u32,
    /// Why it was refused.
    pub reason: RefusalReason,
}

/// An attempt came again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRepeated {
    /// The attempt.
    pub attempt_id: AttemptId,
}

/// An order's units went back to the stock.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct OrderReleased {
    /// The order as it stood.
    pub order: Order,
    /// Why.
    pub cause: ReleaseCause,
}

/// An order stays as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelRefused {
    /// The attempt named.
    pub attempt_id: AttemptId,
    /// Who asked.
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

/// A closed list of words, the same in Avro, JSON and text.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $word)] $variant,)+
        }

        impl $name {
            /// Every word of the list.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word.
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
        /// The quantity is none that can be asked for.
        InvalidQuantity = "invalid_quantity",
        /// The buyer would have more than the sale allows one buyer.
        OverBuyerLimit = "over_buyer_limit",
        /// Nothing is left.
        SoldOut = "sold_out",
        /// Fewer are left than were asked for.
        NotEnoughLeft = "not_enough_left",
    }
}

words! {
    /// Why an order's units went back.
    ReleaseCause {
        /// Its buyer gave it back.
        Cancelled = "cancelled",
        /// Its hold ran out.
        Expired = "expired",
    }
}

words! {
    /// Why giving back was refused.
    CancelRefusalReason {
        /// No order of that name stands in this round.
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
        /// The round is over; put new terms to begin another.
        Closed = "closed",
        /// A term is out of its bounds.
        InvalidTerms = "invalid_terms",
        /// More units are held and sold than the new total has.
        StockBelowCommitted = "stock_below_committed",
        /// A new round cannot begin while holds of the last one stand.
        HoldsOutstanding = "holds_outstanding",
    }
}
