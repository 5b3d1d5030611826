//! Deadlines: a sale opens and closes, a hold runs out.

use schemas::decision::{Event, Order, OrderReleased, ReleaseCause};
use schemas::ids::{AttemptId, BuyerId, TimestampMs};

use crate::product::{Phase, Product};

/// The most holds that run out in one decision, so that a decision stays one small record.
/// The rest run out in the decisions that follow at once, and count towards their buyers'
/// limits until then. An attempt on a sale with holds asks for no more units than this, so what
/// it asks for is free if enough of it is due.
pub const MAX_EXPIRIES: usize = 1_000;

/// What is due, and the product's figures once it has taken effect.
pub struct Due {
    /// What happens by time alone.
    pub events: Vec<Event>,
    /// The phase after it.
    pub phase: Phase,
    /// Units that nobody has after it.
    pub available: u32,
    /// Units held after it.
    pub reserved: u32,
}

/// The deadlines of a product that are due.
pub fn due(product: &Product, now: TimestampMs) -> Due {
    let mut due = Due {
        events: Vec::new(),
        phase: product.figures().phase,
        available: product.stock.available,
        reserved: product.stock.reserved,
    };
    let Some(terms) = &product.terms else {
        return due;
    };
    for (deadline, attempt) in product.holds.iter().take(MAX_EXPIRIES) {
        if *deadline > now {
            break;
        }
        let order = product.orders[attempt].clone();
        due.available += order.quantity;
        due.reserved -= order.quantity;
        due.events.push(Event::OrderReleased(OrderReleased {
            order,
            cause: ReleaseCause::Expired,
        }));
    }
    if due.phase == Phase::Scheduled && terms.opens_at_ms <= now {
        due.phase = Phase::Open;
        due.events.push(Event::SaleOpened);
    }
    if due.phase != Phase::Closed && terms.closes_at_ms.is_some_and(|closes| closes <= now) {
        due.phase = Phase::Closed;
        due.events.push(Event::SaleClosed);
    }
    due
}

impl Due {
    /// Units of a buyer's holds that run out.
    pub fn units_of(&self, buyer: &BuyerId) -> u32 {
        self.expired()
            .filter(|order| order.buyer_id == *buyer)
            .map(|order| order.quantity)
            .sum()
    }

    /// Whether this attempt's hold runs out.
    pub fn expires(&self, attempt: &AttemptId) -> bool {
        self.expired().any(|order| order.attempt_id == *attempt)
    }

    fn expired(&self) -> impl Iterator<Item = &Order> {
        self.events.iter().filter_map(|event| match event {
            Event::OrderReleased(released) => Some(&released.order),
            _ => None,
        })
    }
}

#[cfg(test)]
mod tests;
