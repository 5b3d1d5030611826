//! Log 1, `purchase-attempts`: everything that needs a product's turn.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{AttemptId, BuyerId, Money, ProductId, TimestampMs};

/// One record of log 1. Its append time is the decision's `now`.
#[derive(Debug, Clone, PartialEq)]
pub struct Command {
    /// Whose turn is asked for; also the record's key.
    pub product_id: ProductId,
    /// What is asked.
    pub body: CommandBody,
}

/// What can be asked of a product.
#[derive(Debug, Clone, PartialEq)]
pub enum CommandBody {
    /// A buyer asks for units.
    PlaceAttempt(PlaceAttempt),
    /// A buyer gives an order back.
    CancelOrder(CancelOrder),
    /// The seller creates a sale, changes its terms, or begins a new round after a closed one.
    PutSale(SaleTerms),
    /// The seller opens the sale now, or resumes it from a pause.
    OpenSale,
    /// The seller stops taking attempts for the time being.
    PauseSale,
    /// The seller ends the round.
    CloseSale,
    /// The seller sets the round's total units.
    SetStock(SetStock),
    /// Nothing is asked but that due deadlines take effect.
    TimeAdvanced,
}

/// A buyer asks for units of one sale.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PlaceAttempt {
    /// The attempt's name; the same name again gets the first answer.
    pub attempt_id: AttemptId,
    /// Who asks.
    pub buyer_id: BuyerId,
    /// Units asked for.
    pub quantity: u32,
}

/// A buyer gives an order back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CancelOrder {
    /// The attempt that became the order.
    pub attempt_id: AttemptId,
    /// Who asks; only the order's own buyer may.
    pub buyer_id: BuyerId,
}

/// What is offered, from when to when, to whom and how.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaleTerms {
    /// What shoppers see, 1 to 200 bytes.
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
    /// First moment at which they are no longer; none: until closed by hand.
    pub closes_at_ms: Option<TimestampMs>,
}

/// The seller sets the round's total units.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SetStock {
    /// The new total, sold and held units included.
    pub stock: u32,
}
