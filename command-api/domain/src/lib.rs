//! The pure core: from a product's state and one record of `purchase-attempts` to the events
//! that it causes.
//!
//! Nothing here has a clock, randomness, I/O, logging or async. [`answer`] decides on a command,
//! evolves the product by the decision and checks the result against the [`invariants`].
//! [`absorb`] does the same with a decision that is already in the log.
//!
//! One file a command family: [`attempt`] (a buyer places an attempt), [`order`] (a buyer
//! cancels), [`sale`] (the seller changes the sale), [`time`] (deadlines take effect).

pub mod figures;
pub mod product;

pub mod attempt;
pub mod order;
pub mod sale;
pub mod time;

pub mod invariants;
pub mod snapshot;

mod attempt_set;
mod hashing;

#[cfg(test)]
mod testing;

use schemas::command::{Command, CommandBody};
use schemas::decision::{Decision, Event, SaleChangeRefusalReason};
use schemas::ids::{ChainHash, Offset, TimestampMs};

use crate::invariants::Violation;
use crate::product::{Product, evolve};

/// The log position, the log time and the claim under which a command is decided.
#[derive(Debug, Clone, Copy)]
pub struct DecisionContext {
    /// The claim it is decided under.
    pub claim: Offset,
    /// Its offset in `purchase-attempts`.
    pub offset: Offset,
    /// The offset answered before it in the partition; -1 when there is none.
    pub follows: Offset,
    /// Its append time in `purchase-attempts`.
    pub appended_at_ms: TimestampMs,
}

/// The events that a command causes at a product.
///
/// Deadlines that are due take effect first, so every command meets the product as it is now.
pub fn decide(
    product: &Product,
    command: &Command,
    offset: Offset,
    now: TimestampMs,
) -> Vec<Event> {
    let mut due = time::due(product, now);
    let event = match &command.body {
        CommandBody::PlaceAttempt(place) => {
            Some(attempt::decide(product, &due, place, offset, now))
        }
        CommandBody::CancelOrder(cancel) => Some(order::decide(product, &due, cancel)),
        CommandBody::TimeAdvanced => None,
        CommandBody::CorrectClock => Some(time::correct(product, now)),
        _ if !sale::is_at_version(product, &due, command.if_version) => {
            Some(sale::refused(SaleChangeRefusalReason::VersionDiffers))
        }
        CommandBody::PutSale(terms) => return sale::put(product, due, terms, now),
        CommandBody::BeginRound(terms) => return sale::begin_round(product, due, terms, now),
        CommandBody::OpenSale => Some(sale::open(&due)),
        CommandBody::PauseSale => Some(sale::pause(&due)),
        CommandBody::CloseSale => Some(sale::close(&due)),
        CommandBody::SetStock(set) => Some(sale::set_stock(product, &due, set)),
    };
    due.events.extend(event);
    due.events
}

/// Decides on a command and changes the product accordingly. A product that has no sale stays as it
/// is until it gets one.
///
/// The decision's chain hash stays empty: the code that encodes the decision computes it. Fails,
/// with the product unusable, when the decision breaks an invariant; the decider must then stop
/// and append nothing.
pub fn answer(
    product: &mut Product,
    command: &Command,
    context: DecisionContext,
) -> Result<Decision, Violation> {
    let now = time::now(product, &command.body, context.appended_at_ms);
    let events = decide(product, command, context.offset, now);
    let before = product.figures();
    let begins = |event: &Event| matches!(event, Event::SaleSet(_));
    let leaves_state = product.head.terms.is_some() || events.iter().any(begins);
    if leaves_state {
        for event in &events {
            evolve(product, event);
        }
        product.head.version += 1;
        product.head.decided_at_ms = now;
        remember_sale_version(product, &events);
    }
    let decision = Decision {
        claim: context.claim,
        answers: context.offset,
        follows: context.follows,
        product_id: command.product_id.clone(),
        version: if leaves_state {
            product.head.version
        } else {
            0
        },
        decided_at_ms: now,
        events,
        stock: product.head.stock,
        tally: product.head.tally,
        command: command.body.kind(),
        chain: ChainHash::default(),
    };
    invariants::check_decision(before, &decision)?;
    Ok(decision)
}

/// Applies a decision from the log to the product. Fails, with the product unusable, when the
/// decision does not follow from the ones before it.
pub fn absorb(product: &mut Product, decision: &Decision) -> Result<(), Violation> {
    invariants::check_decision(product.figures(), decision)?;
    if !decision.leaves_state() {
        return Ok(());
    }
    for event in &decision.events {
        check_known(product, event)?;
        evolve(product, event);
    }
    product.head.version = decision.version;
    product.head.decided_at_ms = decision.decided_at_ms;
    product.head.chain = decision.chain;
    remember_sale_version(product, &decision.events);
    if product.head.stock != decision.stock {
        return Err(Violation::StockDiffers {
            computed: product.head.stock,
            stated: decision.stock,
        });
    }
    Ok(())
}

/// Sets the version of the sale to that of the product if the decision's events changed the sale.
fn remember_sale_version(product: &mut Product, events: &[Event]) {
    if events.iter().any(Event::changes_sale) {
        product.head.sale_version = Some(product.head.version);
    }
}

/// An event from the log fits the attempts and orders that the product knows.
fn check_known(product: &Product, event: &Event) -> Result<(), Violation> {
    let first = match event {
        Event::OrderAccepted(accepted) => accepted.order.attempt_id,
        Event::AttemptRefused(refused) if refused.is_outcome() => refused.attempt_id,
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
