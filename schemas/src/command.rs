//! Topic `purchase-attempts`: the commands that products decide on.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, BuyerId, Money, ProductId, TimestampMs};

/// One record of `purchase-attempts`. Its append time is the decision's `now`, unless the product's
/// time is later.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// The product that decides on it; also the record's key.
    pub product_id: ProductId,
    /// What the product has to decide on.
    pub body: CommandBody,
    /// The version of the sale ([`crate::snapshot::ProductHead::sale_version`]) that a change of it
    /// was made for, 0 if there is no sale yet: at any other version the change is refused. None:
    /// whatever the version is.
    pub if_version: Option<u64>,
}

/// What a product can decide on.
#[derive(Debug, Clone, PartialEq)]
pub enum CommandBody {
    /// A buyer places an attempt to get units.
    PlaceAttempt(PlaceAttempt),
    /// A buyer cancels an order.
    CancelOrder(CancelOrder),
    /// The seller creates a sale or changes its terms.
    PutSale(SaleTerms),
    /// The seller begins a new round after a closed one.
    BeginRound(SaleTerms),
    /// The seller opens the sale now, or resumes it from a pause.
    OpenSale,
    /// The seller pauses the sale: attempts are refused until it is resumed.
    PauseSale,
    /// The seller ends the round.
    CloseSale,
    /// The seller sets the round's total units.
    SetStock(SetStock),
    /// Time passed: deadlines that are due take effect, nothing else.
    TimeAdvanced,
    /// An operator corrects the product's time, which was ahead: this record's append time is true,
    /// though it is before that of records before it.
    CorrectClock,
}

/// A buyer places an attempt to get units of a sale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaceAttempt {
    /// The attempt's id; the same id again gets the first answer.
    pub attempt_id: AttemptId,
    /// The buyer.
    pub buyer_id: BuyerId,
    /// Units requested.
    pub quantity: u32,
    /// The round that it was made for: in any other it is refused, so that an id that was derived
    /// for a round has an outcome in that round only. None: whichever is current.
    pub round: Option<u32>,
}

/// A buyer cancels an order.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelOrder {
    /// The attempt that became the order.
    pub attempt_id: AttemptId,
    /// The buyer who cancels; only the order's own buyer may.
    pub buyer_id: BuyerId,
}

/// The terms of a sale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaleTerms {
    /// The name that shoppers see, 1 to 200 bytes.
    pub name: Arc<str>,
    /// Price of one unit.
    pub price: Money,
    /// Units of the round.
    pub stock: u32,
    /// Most units one buyer may hold and have bought in the round; none: no limit.
    pub limit_per_buyer: Option<u32>,
    /// How long units are held for a buyer; none: an accepted attempt is sold at once.
    pub hold_ms: Option<i64>,
    /// First moment at which attempts are accepted.
    pub opens_at_ms: TimestampMs,
    /// First moment at which attempts are no longer accepted; none: until closed by hand.
    pub closes_at_ms: Option<TimestampMs>,
}

/// The seller sets the round's total units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetStock {
    /// The new total, sold and held units included.
    pub stock: u32,
}
