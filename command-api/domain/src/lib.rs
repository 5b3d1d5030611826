//! The pure core: from a product's state and one record of log 1 to what happened.
//!
//! Nothing here has a clock, randomness, I/O, logging or async. [`answer`] takes a product's
//! turn: it decides, evolves the product by what was decided and holds the result against the
//! [`invariants`]. [`absorb`] does the same with a decision that is already history.
//!
//! One file a command family: [`attempt`] (a buyer asks), [`order`] (a buyer gives back),
//! [`sale`] (the seller changes the sale), [`time`] (deadlines take effect).

pub mod product;

pub mod attempt;
pub mod order;
pub mod sale;
pub mod time;

pub mod invariants;
pub mod snapshot;

mod seen;

#[cfg(test)]
mod testing;

use schemas::command::{Command, CommandBody};
use schemas::decision::{Decision, Event};
use schemas::ids::{ChainHash, Offset, TimestampMs};

use crate::invariants::Violation;
use crate::product::{Product, evolve};

/// When and where a command has its turn.
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// The claim it is decided under.
    pub claim: Offset,
    /// Its offset in log 1.
    pub offset: Offset,
    /// The offset answered before it in the partition; -1 when there is none.
    pub follows: Offset,
    /// Its append time in log 1.
    pub appended_at_ms: TimestampMs,
}

/// What happens to a product when a command has its turn.
///
/// Deadlines that are due take effect first, so every command meets the product as it is now.
pub fn decide(
    product: &Product,
    body: &CommandBody,
    offset: Offset,
    now: TimestampMs,
) -> Vec<Event> {
    let mut due = time::due(product, now);
    let event = match body {
        CommandBody::PlaceAttempt(place) => {
            Some(attempt::decide(product, &due, place, offset, now))
        }
        CommandBody::CancelOrder(cancel) => Some(order::decide(product, &due, cancel)),
        CommandBody::PutSale(terms) => return sale::put(product, due, terms, now),
        CommandBody::OpenSale => Some(sale::open(&due)),
        CommandBody::PauseSale => Some(sale::pause(&due)),
        CommandBody::CloseSale => Some(sale::close(&due)),
        CommandBody::SetStock(set) => Some(sale::set_stock(product, &due, set)),
        CommandBody::TimeAdvanced => None,
    };
    due.events.extend(event);
    due.events
}

/// Gives a command its turn: decides, and changes the product accordingly.
///
/// The decision's chain hash is left for whoever turns it into bytes. Fails, with the product
/// unusable, when the decision breaks an invariant: then the decider must stop, not write.
pub fn answer(product: &mut Product, command: &Command, turn: Turn) -> Result<Decision, Violation> {
    // A log's time past the last that a window can name counts as that one, so that every hold
    // has a deadline after it.
    let appended = turn.appended_at_ms.min(sale::MAX_TIME_MS);
    let now = appended.max(product.decided_at_ms);
    let events = decide(product, &command.body, turn.offset, now);
    let before = product.figures();
    for event in &events {
        evolve(product, event);
    }
    product.version += 1;
    product.decided_at_ms = now;
    let decision = Decision {
        claim: turn.claim,
        answers: turn.offset,
        follows: turn.follows,
        product_id: command.product_id.clone(),
        version: product.version,
        decided_at_ms: now,
        events,
        stock: product.stock,
        tally: product.tally,
        chain: ChainHash::default(),
    };
    invariants::check_decision(before, &decision)?;
    Ok(decision)
}

/// Takes a decision of the past into the product. Fails, with the product unusable, when the
/// decision does not follow from the ones before it.
pub fn absorb(product: &mut Product, decision: &Decision) -> Result<(), Violation> {
    invariants::check_decision(product.figures(), decision)?;
    for event in &decision.events {
        known(product, event)?;
        evolve(product, event);
    }
    product.version = decision.version;
    product.decided_at_ms = decision.decided_at_ms;
    product.chain = decision.chain;
    if product.stock != decision.stock {
        return Err(Violation::StockDiffers {
            kept: product.stock,
            said: decision.stock,
        });
    }
    Ok(())
}

/// Whether an event of the past fits the attempts and orders that the product knows.
fn known(product: &Product, event: &Event) -> Result<(), Violation> {
    let first = match event {
        Event::OrderAccepted(accepted) => accepted.order.attempt_id,
        Event::AttemptRefused(refused) => refused.attempt_id,
        Event::OrderReleased(released) => {
            let order = &released.order;
            return match product.order(&order.attempt_id) {
                Some(standing) if standing == order => Ok(()),
                _ => Err(Violation::NoSuchOrder(order.attempt_id)),
            };
        }
        _ => return Ok(()),
    };
    if product.has_answered(&first) {
        Err(Violation::SecondOutcome(first))
    } else {
        Ok(())
    }
}
