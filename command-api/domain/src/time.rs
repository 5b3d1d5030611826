//! A product's time, and its deadlines: a sale opens and closes, a hold runs out.

use schemas::command::CommandBody;
use schemas::decision::{ClockCorrected, Event, Order, OrderReleased, ReleaseCause};
use schemas::ids::{AttemptId, BuyerId, TimestampMs};

use crate::figures::Phase;
use crate::product::Product;

/// The most holds that run out in one decision, so that a decision stays one small record. The
/// rest run out in the decisions that follow at once, and count towards their buyers' limits until
/// then. An attempt on a sale with holds asks for at most this many units, so one decision can
/// free them all if enough holds are due.
pub const MAX_EXPIRIES: usize = 1_000;

/// The last moment that a sale's window can name, in the year 9999.
pub const MAX_TIME_MS: TimestampMs = 253_402_300_799_999;

/// The product's time when it decides on a command: that at which the log appended the command, or
/// that of the decision before if that is later. Only an operator's correction sets it back.
///
/// A time after the last one that a sale's window can name counts as that last one, so that every
/// hold has a deadline after it.
pub fn now(product: &Product, body: &CommandBody, appended_at_ms: TimestampMs) -> TimestampMs {
    let earliest = match body {
        CommandBody::CorrectClock => 0,
        _ => product.head.decided_at_ms,
    };
    appended_at_ms.min(MAX_TIME_MS).max(earliest)
}

/// The event of a correction that was appended at `now`.
pub fn correct(product: &Product, now: TimestampMs) -> Event {
    Event::ClockCorrected(ClockCorrected {
        from_ms: product.head.decided_at_ms.max(now),
        to_ms: now,
    })
}

/// The events that are due, and the product's figures after them.
pub struct Due {
    /// The events that time causes.
    pub events: Vec<Event>,
    /// The phase after them.
    pub phase: Phase,
    /// Available units after them.
    pub available: u32,
    /// Held units after them.
    pub reserved: u32,
}

/// The deadlines of a product that have passed, as events.
pub fn due(product: &Product, now: TimestampMs) -> Due {
    let mut due = Due {
        events: Vec::new(),
        phase: product.figures().phase,
        available: product.head.stock.available,
        reserved: product.head.stock.reserved,
    };
    let Some(terms) = &product.head.terms else {
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
