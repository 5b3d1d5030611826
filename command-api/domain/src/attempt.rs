//! A buyer places an attempt.

use schemas::command::{PlaceAttempt, SaleTerms};
use schemas::decision::{
    AttemptConflicted, AttemptRefused, AttemptRepeated, Event, Order, OrderAccepted, RefusalReason,
};
use schemas::ids::{MAX_QUANTITY, Offset, TimestampMs};

use crate::figures::Phase;
use crate::product::Product;
use crate::time::{Due, MAX_EXPIRIES};

/// The outcome of an attempt. The same attempt again gets no second one, and one that was made for
/// another round gets none.
pub fn decide(
    product: &Product,
    due: &Due,
    place: &PlaceAttempt,
    offset: Offset,
    now: TimestampMs,
) -> Event {
    if product.has_answered(&place.attempt_id) {
        return again(product, place);
    }
    let current = product.head.round;
    let accepted = match place.round {
        // Before the first sale there is no round: the product is unknown.
        Some(round) if current > 0 && round != current => Err(RefusalReason::AnotherRound),
        _ => accepts(product, due, place),
    };
    let terms = match accepted {
        Ok(terms) => terms,
        Err(reason) => {
            return Event::AttemptRefused(AttemptRefused {
                attempt_id: place.attempt_id,
                buyer_id: place.buyer_id.clone(),
                quantity: place.quantity,
                reason,
            });
        }
    };
    let order = Order {
        attempt_id: place.attempt_id,
        buyer_id: place.buyer_id.clone(),
        quantity: place.quantity,
        attempt_offset: offset,
        accepted_at_ms: now,
        hold_until_ms: terms.hold_ms.map(|hold| now.saturating_add(hold)),
        price: Some(terms.price.clone()),
    };
    Event::OrderAccepted(OrderAccepted { order })
}

/// The event of an attempt that has its outcome already. The outcome is no answer to a request for
/// another quantity.
fn again(product: &Product, place: &PlaceAttempt) -> Event {
    let attempt_id = place.attempt_id;
    match product.requested(&attempt_id) {
        Some(quantity) if quantity != place.quantity => {
            Event::AttemptConflicted(AttemptConflicted {
                attempt_id,
                quantity: place.quantity,
            })
        }
        _ => Event::AttemptRepeated(AttemptRepeated { attempt_id }),
    }
}

/// The terms under which an attempt is accepted, or the first reason to refuse it.
fn accepts<'a>(
    product: &'a Product,
    due: &Due,
    place: &PlaceAttempt,
) -> Result<&'a SaleTerms, RefusalReason> {
    let terms = product
        .head
        .terms
        .as_ref()
        .ok_or(RefusalReason::UnknownProduct)?;
    match due.phase {
        Phase::Open => {}
        Phase::None => return Err(RefusalReason::UnknownProduct),
        Phase::Scheduled => return Err(RefusalReason::NotOpenYet),
        Phase::Paused => return Err(RefusalReason::Paused),
        Phase::Closed => return Err(RefusalReason::Closed),
    }
    if !(1..=most_units(terms)).contains(&place.quantity) {
        return Err(RefusalReason::InvalidQuantity);
    }
    if let Some(limit) = terms.limit_per_buyer {
        let has = product.units_of(&place.buyer_id) - due.units_of(&place.buyer_id);
        if u64::from(has) + u64::from(place.quantity) > u64::from(limit) {
            return Err(RefusalReason::OverBuyerLimit);
        }
    }
    if due.available == 0 {
        return Err(RefusalReason::SoldOut);
    }
    if due.available < place.quantity {
        return Err(RefusalReason::NotEnoughLeft);
    }
    Ok(terms)
}

/// The most units one attempt may ask for.
pub fn most_units(terms: &SaleTerms) -> u32 {
    match terms.hold_ms {
        Some(_) => MAX_EXPIRIES as u32,
        None => MAX_QUANTITY,
    }
}

#[cfg(test)]
mod tests;
