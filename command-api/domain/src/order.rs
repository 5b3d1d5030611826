//! A buyer gives an order back, held or sold.

use schemas::command::CancelOrder;
use schemas::decision::{CancelRefusalReason, CancelRefused, Event, OrderReleased, ReleaseCause};

use crate::product::Product;
use crate::time::Due;

/// The answer to giving an order back. A sale that is paused or over still takes orders back.
pub fn decide(product: &Product, due: &Due, cancel: &CancelOrder) -> Event {
    let standing = product
        .order(&cancel.attempt_id)
        .filter(|_| !due.expires(&cancel.attempt_id));
    let reason = match standing {
        None => CancelRefusalReason::UnknownOrder,
        Some(order) if order.buyer_id != cancel.buyer_id => CancelRefusalReason::NotYours,
        Some(order) => {
            let cause = ReleaseCause::Cancelled;
            return Event::OrderReleased(OrderReleased {
                order: order.clone(),
                cause,
            });
        }
    };
    Event::CancelRefused(CancelRefused {
        attempt_id: cancel.attempt_id,
        buyer_id: cancel.buyer_id.clone(),
        reason,
    })
}
