//! A buyer cancels an order, held or sold.

use schemas::command::CancelOrder;
use schemas::decision::{CancelRefusalReason, CancelRefused, Event, OrderReleased, ReleaseCause};

use crate::product::Product;
use crate::time::Due;

/// The event of cancelling an order. A sale that is paused or closed still takes orders back.
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

#[cfg(test)]
mod tests {
    use schemas::command::CommandBody::{CloseSale, PauseSale};
    use schemas::decision::CancelRefusalReason::{NotYours, UnknownOrder};
    use schemas::decision::Event::SaleOpened;
    use schemas::decision::ReleaseCause::{Cancelled, Expired};
    use schemas::ids::MAX_STOCK;

    use crate::testing::*;

    #[test]
    fn a_cancelled_order_goes_back_to_the_stock() {
        let order = sold(1, "ann", 3, 1, OPENS);
        let then = on_sale(terms(10))
            .when(OPENS, attempt(1, "ann", 3))
            .when(OPENS + 1, cancel(1, "ann"))
            .then([released(order, Cancelled)])
            .stock(10, 0, 0);
        assert_eq!(then.product().head.tally.cancelled, 1);
        assert_eq!(then.product().head.tally.accepted, 1);
    }

    #[test]
    fn a_cancelled_hold_has_no_deadline_any_more() {
        let order = until(sold(1, "ann", 3, 1, OPENS), OPENS + 500);
        let then = on_sale(held(10, 500))
            .when(OPENS, attempt(1, "ann", 3))
            .when(OPENS + 499, cancel(1, "ann"))
            .then([released(order, Cancelled)])
            .stock(10, 0, 0);
        assert_eq!(then.product().next_deadline(), None);
        then.when(OPENS + 500, cancel(1, "ann"))
            .then([kept(1, "ann", UnknownOrder)]);
    }

    #[test]
    fn a_hold_that_has_run_out_cannot_be_cancelled() {
        let order = until(sold(1, "ann", 3, 1, OPENS), OPENS + 500);
        let then = on_sale(held(10, 500))
            .when(OPENS, attempt(1, "ann", 3))
            .when(OPENS + 500, cancel(1, "ann"))
            .then([released(order, Expired), kept(1, "ann", UnknownOrder)]);
        assert_eq!(then.product().head.tally.expired, 1);
        assert_eq!(then.product().head.tally.cancelled, 0);
    }

    #[test]
    fn only_the_buyer_of_an_order_can_cancel_it() {
        on_sale(terms(10))
            .when(OPENS, attempt(1, "ann", 3))
            .when(OPENS, cancel(1, "bob"))
            .then([kept(1, "bob", NotYours)])
            .stock(7, 0, 3);
    }

    #[test]
    fn orders_that_never_existed_or_were_released_are_unknown() {
        given([])
            .when(0, cancel(1, "ann"))
            .then([kept(1, "ann", UnknownOrder)]);
        on_sale(terms(1))
            .when(OPENS, cancel(1, "ann"))
            .then([SaleOpened, kept(1, "ann", UnknownOrder)])
            .when(OPENS, attempt(2, "ann", 2))
            .when(OPENS, cancel(2, "ann"))
            .then([kept(2, "ann", UnknownOrder)])
            .when(OPENS, attempt(3, "ann", 1))
            .when(OPENS, cancel(3, "ann"))
            .when(OPENS, cancel(3, "ann"))
            .then([kept(3, "ann", UnknownOrder)])
            // To another buyer, too, the order is unknown once it is gone.
            .when(OPENS, cancel(3, "bob"))
            .then([kept(3, "bob", UnknownOrder)])
            .stock(1, 0, 0);
    }

    #[test]
    fn a_paused_and_a_closed_sale_take_orders_back() {
        let [ann, bob] = [(1, "ann"), (2, "bob")]
            .map(|(number, buyer)| sold(number, buyer, 1, number.into(), OPENS));
        on_sale(terms(MAX_STOCK))
            .when(OPENS, attempt(1, "ann", 1))
            .when(OPENS, attempt(2, "bob", 1))
            .when(OPENS, PauseSale)
            .when(OPENS, cancel(1, "ann"))
            .then([released(ann, Cancelled)])
            .when(OPENS, CloseSale)
            .when(OPENS, cancel(2, "bob"))
            .then([released(bob, Cancelled)])
            .stock(MAX_STOCK, 0, 0);
    }

    #[test]
    fn an_order_of_the_round_before_is_unknown() {
        on_sale(terms(1))
            .when(OPENS, attempt(1, "ann", 1))
            .when(OPENS, CloseSale)
            .when(OPENS, begin_round(terms(1)))
            .when(OPENS, cancel(1, "ann"))
            .then([kept(1, "ann", UnknownOrder)])
            .stock(1, 0, 0);
    }
}
