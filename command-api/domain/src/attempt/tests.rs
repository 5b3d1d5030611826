use schemas::command::CommandBody::{CloseSale, OpenSale, PauseSale, TimeAdvanced};
use schemas::decision::Event::{SaleClosed, SaleOpened};
use schemas::decision::RefusalReason::*;
use schemas::decision::ReleaseCause::{Cancelled, Expired};
use schemas::ids::{MAX_QUANTITY, MAX_STOCK};

use crate::product::Product;
use crate::testing::*;

#[test]
fn units_are_sold_at_once_without_a_hold() {
    on_sale(terms(10))
        .when(OPENS, attempt(1, "ann", 3))
        .then([SaleOpened, accepted(sold(1, "ann", 3, 1, OPENS))])
        .stock(7, 0, 3);
}

#[test]
fn units_are_held_until_a_deadline_with_one() {
    on_sale(held(10, 500))
        .when(OPENS, attempt(1, "ann", 3))
        .then([
            SaleOpened,
            accepted(until(sold(1, "ann", 3, 1, OPENS), OPENS + 500)),
        ])
        .stock(7, 3, 0);
}

#[test]
fn the_last_unit_is_sold_and_not_one_more() {
    on_sale(terms(3))
        .when(OPENS, attempt(1, "ann", 2))
        .when(OPENS, attempt(2, "bob", 2))
        .then([refused(2, "bob", 2, NotEnoughLeft)])
        .when(OPENS, attempt(3, "bob", 1))
        .then([accepted(sold(3, "bob", 1, 3, OPENS))])
        .stock(0, 0, 3)
        .when(OPENS, attempt(4, "cy", 2))
        .then([refused(4, "cy", 2, SoldOut)])
        .stock(0, 0, 3);
}

#[test]
fn a_product_nobody_put_on_sale_is_unknown() {
    given([])
        .when(OPENS, attempt(1, "ann", 0))
        .then([refused(1, "ann", 0, UnknownProduct)]);
}

#[test]
fn the_phase_comes_before_all_other_reasons() {
    let nothing_left = || limited(0, 1);
    on_sale(nothing_left())
        .when(OPENS - 1, attempt(1, "ann", 0))
        .then([refused(1, "ann", 0, NotOpenYet)])
        .when(OPENS, PauseSale)
        .when(OPENS, attempt(2, "ann", 0))
        .then([refused(2, "ann", 0, Paused)])
        .when(OPENS, CloseSale)
        .when(OPENS, attempt(3, "ann", 0))
        .then([refused(3, "ann", 0, Closed)]);
}

#[test]
fn a_paused_sale_that_is_over_is_closed() {
    on_sale(terms(1))
        .when(OPENS, PauseSale)
        .when(OPENS, CloseSale)
        .when(OPENS, attempt(1, "ann", 1))
        .then([refused(1, "ann", 1, Closed)]);
}

#[test]
fn an_impossible_quantity_comes_before_the_limit_and_the_limit_before_the_stock() {
    on_sale(limited(0, 5))
        .when(OPENS, attempt(1, "ann", 0))
        .then([SaleOpened, refused(1, "ann", 0, InvalidQuantity)])
        .when(OPENS, attempt(2, "ann", MAX_QUANTITY + 1))
        .then([refused(2, "ann", MAX_QUANTITY + 1, InvalidQuantity)])
        .when(OPENS, attempt(3, "ann", 6))
        .then([refused(3, "ann", 6, OverBuyerLimit)])
        .when(OPENS, attempt(4, "ann", 5))
        .then([refused(4, "ann", 5, SoldOut)]);
}

#[test]
fn the_largest_quantities_are_accepted_and_one_more_is_not() {
    on_sale(terms(MAX_STOCK))
        .when(OPENS, attempt(1, "ann", MAX_QUANTITY))
        .stock(MAX_STOCK - MAX_QUANTITY, 0, MAX_QUANTITY)
        .when(OPENS, attempt(2, "ann", u32::MAX))
        .then([refused(2, "ann", u32::MAX, InvalidQuantity)]);
    on_sale(held(MAX_STOCK, 1))
        .when(OPENS, attempt(1, "ann", 1_000))
        .stock(MAX_STOCK - 1_000, 1_000, 0)
        .when(OPENS, attempt(2, "ann", 1_001))
        .then([refused(2, "ann", 1_001, InvalidQuantity)]);
}

#[test]
fn a_buyer_gets_as_much_as_the_limit_and_not_more() {
    on_sale(limited(100, 3))
        .when(OPENS, attempt(1, "ann", 2))
        .when(OPENS, attempt(2, "ann", 2))
        .then([refused(2, "ann", 2, OverBuyerLimit)])
        .when(OPENS, attempt(3, "ann", 1))
        .then([accepted(sold(3, "ann", 1, 3, OPENS))])
        .when(OPENS, attempt(4, "ann", 1))
        .then([refused(4, "ann", 1, OverBuyerLimit)])
        .when(OPENS, attempt(5, "bob", 3))
        .then([accepted(sold(5, "bob", 3, 5, OPENS))]);
}

#[test]
fn a_cancelled_order_leaves_the_limit() {
    on_sale(limited(100, 2))
        .when(OPENS, attempt(1, "ann", 2))
        .when(OPENS, cancel(1, "ann"))
        .when(OPENS, attempt(2, "ann", 2))
        .then([accepted(sold(2, "ann", 2, 3, OPENS))]);
}

#[test]
fn a_hold_that_runs_out_leaves_the_limit_in_the_same_decision() {
    let mut terms = held(100, 500);
    terms.limit_per_buyer = Some(2);
    let first = until(sold(1, "ann", 2, 1, OPENS), OPENS + 500);
    on_sale(terms)
        .when(OPENS, attempt(1, "ann", 2))
        .when(OPENS + 499, attempt(2, "ann", 1))
        .then([refused(2, "ann", 1, OverBuyerLimit)])
        .when(OPENS + 500, attempt(3, "ann", 2))
        .then([
            released(first, Expired),
            accepted(until(sold(3, "ann", 2, 3, OPENS + 500), OPENS + 1_000)),
        ])
        .stock(98, 2, 0);
}

#[test]
fn limits_as_high_as_a_sale_take_every_quantity() {
    on_sale(limited(MAX_STOCK, MAX_STOCK))
        .when(OPENS, attempt(1, "ann", MAX_QUANTITY))
        .when(OPENS, attempt(2, "ann", u32::MAX))
        .then([refused(2, "ann", u32::MAX, InvalidQuantity)])
        .when(OPENS, attempt(3, "ann", MAX_QUANTITY))
        .stock(MAX_STOCK - 2 * MAX_QUANTITY, 0, 2 * MAX_QUANTITY);
}

#[test]
fn the_same_attempt_again_gets_no_second_answer_in_any_state() {
    let ann = until(sold(1, "ann", 1, 1, OPENS), OPENS + 500);
    let bob = until(sold(2, "bob", 1, 2, OPENS), OPENS + 500);
    on_sale(held(2, 500))
        .when(OPENS, attempt(1, "ann", 1))
        .when(OPENS, attempt(2, "bob", 1))
        .when(OPENS, attempt(3, "cy", 1))
        .then([refused(3, "cy", 1, SoldOut)])
        // Accepted, refused, and sent again by another buyer.
        .when(OPENS, attempt(1, "ann", 1))
        .then([repeated(1)])
        .when(OPENS, attempt(3, "cy", 1))
        .then([repeated(3)])
        .when(OPENS, attempt(1, "eve", 1))
        .then([repeated(1)])
        // Given back: units are free, but not for the same attempt.
        .when(OPENS, cancel(1, "ann"))
        .then([released(ann, Cancelled)])
        .when(OPENS, attempt(1, "ann", 1))
        .then([repeated(1)])
        // Run out, and in the very decision in which it runs out.
        .when(OPENS + 500, attempt(2, "bob", 1))
        .then([released(bob, Expired), repeated(2)])
        .when(OPENS + 500, PauseSale)
        .when(OPENS + 500, attempt(2, "bob", 1))
        .then([repeated(2)])
        .when(OPENS + 500, OpenSale)
        .when(OPENS + 500, CloseSale)
        .then([SaleClosed])
        .when(OPENS + 500, attempt(1, "ann", 1))
        .then([repeated(1)])
        .when(OPENS + 500, attempt(2, "bob", 1))
        .then([repeated(2)])
        .when(OPENS + 500, attempt(3, "cy", 1))
        .then([repeated(3)])
        .stock(2, 0, 0);
}

#[test]
fn an_attempt_refused_before_the_sale_opens_is_answered_for_good() {
    on_sale(terms(1))
        .when(OPENS - 1, attempt(1, "ann", 1))
        .then([refused(1, "ann", 1, NotOpenYet)])
        .when(OPENS, attempt(1, "ann", 1))
        .then([SaleOpened, repeated(1)])
        .when(OPENS, attempt(2, "ann", 1))
        .stock(0, 0, 1);
}

#[test]
fn commands_on_an_unknown_product_leave_nothing_behind() {
    let unknown = || refused(1, "ann", 1, UnknownProduct);
    let then = given([(9_000, set_stock(7)), (9_000, cancel(1, "ann"))])
        .when(9_000, attempt(1, "ann", 1))
        .then([unknown()])
        .when(9_000, attempt(1, "ann", 1))
        .then([unknown()]);
    assert_eq!(*then.product(), Product::default());
    then.when(0, put(terms(1)))
        .when(OPENS, attempt(1, "ann", 1))
        .then([SaleOpened, accepted(sold(1, "ann", 1, 5, OPENS))]);
}

#[test]
fn the_order_of_two_attempts_is_the_order_of_their_places() {
    for (first, second) in [("ann", "bob"), ("bob", "ann")] {
        on_sale(terms(1))
            .when(OPENS, TimeAdvanced)
            .when(OPENS, attempt(1, first, 1))
            .then([accepted(sold(1, first, 1, 2, OPENS))])
            .when(OPENS, attempt(2, second, 1))
            .then([refused(2, second, 1, SoldOut)]);
    }
}

#[test]
fn an_attempt_of_another_round_is_refused_and_leaves_nothing_behind() {
    let second = || {
        on_sale(terms(3))
            .when(OPENS, attempt_in(Some(1), 1, "ann", 1))
            .then([SaleOpened, accepted(sold(1, "ann", 1, 1, OPENS))])
            .when(OPENS, CloseSale)
            .when(OPENS, begin_round(terms(3)))
    };
    let then = second()
        // The same key, sent by a client or a server that has not learned of the new round.
        .when(OPENS, attempt_in(Some(1), 1, "ann", 1))
        .then([refused(1, "ann", 1, AnotherRound)])
        .stock(3, 0, 0);
    assert_eq!(then.product().remembered(), 0);
    assert_eq!(then.product().head.tally, Default::default());
    then.when(OPENS, attempt_in(Some(1), 1, "ann", 1))
        .then([refused(1, "ann", 1, AnotherRound)])
        .when(OPENS, attempt_in(Some(3), 2, "ann", 1))
        .then([refused(2, "ann", 1, AnotherRound)])
        .when(OPENS, attempt_in(Some(2), 3, "ann", 1))
        .then([accepted(sold(3, "ann", 1, 7, OPENS))])
        // The round's own attempt again is a repetition, whichever round the record names.
        .when(OPENS, attempt_in(Some(1), 3, "ann", 1))
        .then([repeated(3)]);
    // Before the first sale there is no round that it could be another one than.
    given([])
        .when(0, attempt_in(Some(1), 1, "ann", 1))
        .then([refused(1, "ann", 1, UnknownProduct)]);
}

#[test]
fn the_same_attempt_for_another_quantity_is_a_conflict() {
    on_sale(limited(10, 3))
        .when(OPENS, attempt(1, "ann", 2))
        .when(OPENS, attempt(1, "ann", 1))
        .then([conflicted(1, 1)])
        .when(OPENS, attempt(1, "ann", 2))
        .then([repeated(1)])
        // Refused ones, of one unit and of several.
        .when(OPENS, attempt(2, "ann", 5))
        .then([refused(2, "ann", 5, OverBuyerLimit)])
        .when(OPENS, attempt(2, "ann", 1))
        .then([conflicted(2, 1)])
        .when(OPENS, attempt(2, "ann", 5))
        .then([repeated(2)])
        .when(OPENS, PauseSale)
        .when(OPENS, attempt(3, "bob", 1))
        .then([refused(3, "bob", 1, Paused)])
        .when(OPENS, attempt(3, "bob", 2))
        .then([conflicted(3, 2)])
        // Cancelled ones.
        .when(OPENS, cancel(1, "ann"))
        .when(OPENS, attempt(1, "ann", 1))
        .then([conflicted(1, 1)])
        .when(OPENS, attempt(1, "ann", 2))
        .then([repeated(1)])
        .stock(10, 0, 0);
}

#[test]
fn an_order_keeps_its_price_when_the_terms_change() {
    let mut dearer = terms(10);
    dearer.price.minor = 1;
    let order = sold(1, "ann", 3, 1, OPENS);
    on_sale(terms(10))
        .when(OPENS, attempt(1, "ann", 3))
        .when(OPENS, put(dearer.clone()))
        .when(OPENS, cancel(1, "ann"))
        .then([released(order, Cancelled)])
        .when(OPENS, attempt(2, "bob", 1))
        .then([accepted(schemas::decision::Order {
            price: Some(dearer.price),
            ..sold(2, "bob", 1, 4, OPENS)
        })]);
}
