use schemas::command::CommandBody::{CloseSale, CorrectClock, OpenSale, PauseSale, TimeAdvanced};
use schemas::decision::Event::{SaleClosed, SaleOpened};
use schemas::decision::RefusalReason::{Closed, NotOpenYet};
use schemas::decision::ReleaseCause::Expired;
use schemas::decision::SaleChangeRefusalReason;

use super::{MAX_EXPIRIES, MAX_TIME_MS};
use crate::testing::*;

/// Buyers who each hold one unit from the opening on, for 500 ms.
fn many_holds(buyers: u32) -> Given {
    let attempts = (0..buyers).map(|n| (OPENS, attempt(n, &format!("buyer {n}"), 1)));
    given(std::iter::once((0, put(held(buyers, 500)))).chain(attempts))
}

#[test]
fn a_window_opens_and_closes_at_its_very_milliseconds() {
    let mut window = terms(10);
    window.closes_at_ms = Some(OPENS + 100);
    on_sale(window)
        .when(OPENS - 1, attempt(1, "ann", 1))
        .then([refused(1, "ann", 1, NotOpenYet)])
        .when(OPENS, attempt(2, "ann", 1))
        .then([SaleOpened, accepted(sold(2, "ann", 1, 2, OPENS))])
        .when(OPENS + 99, attempt(3, "ann", 1))
        .then([accepted(sold(3, "ann", 1, 3, OPENS + 99))])
        .when(OPENS + 100, attempt(4, "ann", 1))
        .then([SaleClosed, refused(4, "ann", 1, Closed)]);
}

#[test]
fn a_window_that_nobody_saw_open_opens_and_closes() {
    let mut window = terms(10);
    window.closes_at_ms = Some(OPENS + 100);
    on_sale(window)
        .when(OPENS + 100, attempt(1, "ann", 1))
        .then([SaleOpened, SaleClosed, refused(1, "ann", 1, Closed)]);
}

#[test]
fn time_alone_opens_closes_and_lets_holds_run_out_once() {
    let mut window = held(10, 50);
    window.closes_at_ms = Some(OPENS + 100);
    let order = until(sold(1, "ann", 2, 2, OPENS), OPENS + 50);
    on_sale(window)
        .when(OPENS, TimeAdvanced)
        .then([SaleOpened])
        .when(OPENS, attempt(1, "ann", 2))
        .when(OPENS + 49, TimeAdvanced)
        .then([])
        .stock(8, 2, 0)
        .when(OPENS + 50, TimeAdvanced)
        .then([released(order, Expired)])
        .stock(10, 0, 0)
        .when(OPENS + 50, TimeAdvanced)
        .then([])
        .when(OPENS + 100, TimeAdvanced)
        .then([SaleClosed])
        .when(OPENS + 1_000, TimeAdvanced)
        .then([]);
}

#[test]
fn time_does_nothing_to_a_product_without_a_sale() {
    given([]).when(OPENS, TimeAdvanced).then([]);
}

#[test]
fn a_paused_sale_does_not_open_by_time_but_closes() {
    let mut window = terms(10);
    window.closes_at_ms = Some(OPENS + 100);
    let then = on_sale(window)
        .when(0, PauseSale)
        .when(OPENS, TimeAdvanced)
        .then([]);
    assert_eq!(then.product().next_deadline(), Some(OPENS + 100));
    then.when(OPENS + 100, OpenSale)
        .then([SaleClosed, unchanged(SaleChangeRefusalReason::Closed)]);
}

#[test]
fn holds_run_out_in_a_paused_and_in_a_closed_sale() {
    for body in [PauseSale, CloseSale] {
        let order = until(sold(1, "ann", 2, 1, OPENS), OPENS + 500);
        on_sale(held(10, 500))
            .when(OPENS, attempt(1, "ann", 2))
            .when(OPENS, body)
            .when(OPENS + 500, TimeAdvanced)
            .then([released(order, Expired)])
            .stock(10, 0, 0);
    }
}

#[test]
fn the_next_deadline_is_the_earliest() {
    let mut window = held(10, 500);
    window.closes_at_ms = Some(OPENS + 400);
    let then = on_sale(window).when(0, TimeAdvanced);
    assert_eq!(then.product().next_deadline(), Some(OPENS));
    let then = then.when(OPENS, attempt(1, "ann", 1));
    assert_eq!(then.product().next_deadline(), Some(OPENS + 400));
    let then = then.when(OPENS + 400, TimeAdvanced);
    assert_eq!(then.product().next_deadline(), Some(OPENS + 500));
    let then = then.when(OPENS + 500, TimeAdvanced);
    assert_eq!(then.product().next_deadline(), None);
}

#[test]
fn holds_run_out_in_the_order_of_their_deadlines() {
    let first = until(sold(2, "bob", 1, 1, OPENS), OPENS + 500);
    let second = until(sold(1, "ann", 1, 2, OPENS + 1), OPENS + 501);
    on_sale(held(10, 500))
        .when(OPENS, attempt(2, "bob", 1))
        .when(OPENS + 1, attempt(1, "ann", 1))
        .when(OPENS + 900, TimeAdvanced)
        .then([released(first, Expired), released(second, Expired)]);
}

#[test]
fn more_holds_than_one_decision_takes_run_out_in_the_next_ones() {
    let then = many_holds(2_500).when(OPENS + 500, TimeAdvanced);
    assert_eq!(then.count(), MAX_EXPIRIES);
    let then = then
        .stock(1_000, 1_500, 0)
        .when(OPENS + 500, TimeAdvanced)
        .stock(2_000, 500, 0);
    assert_eq!(then.product().next_deadline(), Some(OPENS + 500));
    let then = then.when(OPENS + 500, TimeAdvanced).stock(2_500, 0, 0);
    assert_eq!(then.count(), 500);
    assert_eq!(then.product().head.tally.expired, 2_500);
}

#[test]
fn the_largest_attempt_meets_free_stock_when_many_holds_are_due() {
    let then = many_holds(1_500)
        .when(OPENS + 500, attempt(9_999, "late", 1_000))
        .stock(0, 1_500, 0);
    assert_eq!(then.count(), MAX_EXPIRIES + 1);
}

#[test]
fn a_due_hold_counts_towards_its_buyers_limit_until_it_runs_out() {
    let mut terms = held(1_001, 500);
    terms.limit_per_buyer = Some(1);
    let attempts = (0..1_001).map(|n| (OPENS, attempt(n, &format!("buyer {n}"), 1)));
    let given = given(std::iter::once((0, put(terms))).chain(attempts));
    let then = given.when(OPENS + 500, attempt(5_000, "buyer 1000", 1));
    assert_eq!(then.count(), MAX_EXPIRIES + 1);
    let then = then.when(OPENS + 500, attempt(5_001, "buyer 1000", 1));
    assert_eq!(then.count(), 2);
    then.stock(1_000, 1, 0);
}

#[test]
fn a_clock_that_goes_back_is_held_at_the_latest_time_seen() {
    let then = on_sale(terms(10))
        .when(OPENS, TimeAdvanced)
        .when(OPENS - 500, attempt(1, "ann", 1))
        .then([accepted(sold(1, "ann", 1, 2, OPENS))])
        .when(i64::MIN, attempt(2, "ann", 1))
        .then([accepted(sold(2, "ann", 1, 3, OPENS))]);
    assert_eq!(then.product().head.decided_at_ms, OPENS);
}

/// The distance by which time is wrong in these tests.
const HOUR: i64 = 3_600_000;

#[test]
fn a_correction_sets_the_time_back_and_leaves_what_was_left_of_the_holds() {
    let before = until(sold(1, "ann", 1, 1, OPENS), OPENS + 500);
    // The clock is ahead from here on; this hold is moved.
    let ahead = OPENS + 100 + HOUR;
    let moved = until(sold(2, "bob", 1, 3, OPENS + 200), OPENS + 200 + 450);
    on_sale(held(10, 500))
        .when(OPENS, attempt(1, "ann", 1))
        .then([SaleOpened, accepted(before.clone())])
        .when(ahead, TimeAdvanced)
        .then([released(before, Expired)])
        .when(ahead + 50, attempt(2, "bob", 1))
        .when(ahead + 100, TimeAdvanced)
        .then([])
        .when(OPENS + 200, CorrectClock)
        .then([clock_corrected(ahead + 100, OPENS + 200)])
        .stock(9, 1, 0)
        .when(OPENS + 649, TimeAdvanced)
        .then([])
        .when(OPENS + 650, TimeAdvanced)
        .then([released(moved, Expired)])
        .stock(10, 0, 0);
}

#[test]
fn holds_of_the_true_time_keep_their_deadlines_in_a_correction() {
    let early = until(sold(1, "ann", 1, 1, OPENS), OPENS + 500);
    on_sale(held(10, 500))
        .when(OPENS, attempt(1, "ann", 1))
        .when(OPENS + 400, TimeAdvanced)
        .when(OPENS + 100, CorrectClock)
        .then([clock_corrected(OPENS + 400, OPENS + 100)])
        .when(OPENS + 499, TimeAdvanced)
        .then([])
        .when(OPENS + 500, cancel(1, "ann"))
        .then([
            released(early, Expired),
            kept(
                1,
                "ann",
                schemas::decision::CancelRefusalReason::UnknownOrder,
            ),
        ]);
}

#[test]
fn a_second_correction_moves_no_hold_that_the_first_one_moved() {
    let moved = until(sold(1, "ann", 1, 1, OPENS + 1), OPENS + 501);
    on_sale(held(10, 500))
        .when(OPENS + HOUR, attempt(1, "ann", 1))
        .when(OPENS + 1, CorrectClock)
        .when(OPENS + 2 + 2 * HOUR, put(held(10, 400)))
        .then([
            released(moved.clone(), Expired),
            sale_set(held(10, 400), 1),
            SaleOpened,
        ]);
    on_sale(held(10, 500))
        .when(OPENS + HOUR, attempt(1, "ann", 1))
        .when(OPENS + 1, CorrectClock)
        .when(OPENS + 100, TimeAdvanced)
        .when(OPENS + 50, CorrectClock)
        .then([clock_corrected(OPENS + 100, OPENS + 50)])
        .when(OPENS + 501, TimeAdvanced)
        .then([released(moved, Expired)]);
}

#[test]
fn a_correction_where_the_time_is_right_is_the_passing_of_time() {
    let order = until(sold(1, "ann", 1, 1, OPENS), OPENS + 500);
    on_sale(held(10, 500))
        .when(OPENS, attempt(1, "ann", 1))
        .when(OPENS + 500, CorrectClock)
        .then([
            released(order, Expired),
            clock_corrected(OPENS + 500, OPENS + 500),
        ]);
    given([])
        .when(OPENS, CorrectClock)
        .then([clock_corrected(OPENS, OPENS)]);
}

#[test]
fn what_a_wrong_time_opened_or_closed_stays_so_and_a_new_window_opens_in_its_time() {
    let mut window = terms(10);
    window.closes_at_ms = Some(OPENS + 100);
    let mut next = terms(10);
    next.opens_at_ms = OPENS + 200;
    on_sale(window)
        .when(OPENS + HOUR, TimeAdvanced)
        .then([SaleOpened, SaleClosed])
        .when(OPENS + 1, CorrectClock)
        .when(OPENS + 2, attempt(1, "ann", 1))
        .then([refused(1, "ann", 1, Closed)])
        .when(OPENS + 3, begin_round(next.clone()))
        .then([sale_set(next, 2)])
        .when(OPENS + 199, attempt(1, "ann", 1))
        .then([refused(1, "ann", 1, NotOpenYet)])
        .when(OPENS + 200, attempt(2, "ann", 1))
        .then([SaleOpened, accepted(sold(2, "ann", 1, 6, OPENS + 200))]);
}

#[test]
fn holds_that_were_overdue_when_the_time_was_corrected_end_right_after_it() {
    let then = many_holds(1_500)
        .when(OPENS - 10, CorrectClock)
        .when(OPENS + 10 + HOUR, TimeAdvanced)
        .stock(1_000, 500, 0)
        .when(OPENS + 20, CorrectClock)
        .then([clock_corrected(OPENS + 10 + HOUR, OPENS + 20)]);
    // They were accepted at the true time, so their deadlines stand.
    assert_eq!(then.product().next_deadline(), Some(OPENS - 10 + 500));
    let attempts = (0..1_500).map(|n| (OPENS + HOUR, attempt(n, &format!("buyer {n}"), 1)));
    let then = given(std::iter::once((0, put(held(1_500, 500)))).chain(attempts))
        .when(OPENS + 2 * HOUR, TimeAdvanced)
        .stock(1_000, 500, 0)
        .when(OPENS, CorrectClock)
        .stock(1_000, 500, 0);
    assert_eq!(then.product().next_deadline(), Some(OPENS + 1));
    then.when(OPENS + 1, TimeAdvanced).stock(1_500, 0, 0);
}

#[test]
fn corrections_at_the_ends_of_time_overflow_nothing() {
    on_sale(held(10, crate::sale::MAX_HOLD_MS))
        .when(i64::MAX, attempt(1, "ann", 1))
        .when(i64::MIN, CorrectClock)
        .then([clock_corrected(MAX_TIME_MS, 0)])
        .stock(9, 1, 0)
        .when(crate::sale::MAX_HOLD_MS, TimeAdvanced)
        .stock(10, 0, 0)
        .when(i64::MAX, CorrectClock)
        .then([clock_corrected(MAX_TIME_MS, MAX_TIME_MS)]);
}

#[test]
fn the_last_of_all_times_overflows_no_deadline() {
    on_sale(held(10, crate::sale::MAX_HOLD_MS))
        .when(i64::MAX, attempt(1, "ann", 1))
        .then([
            SaleOpened,
            accepted(until(
                sold(1, "ann", 1, 1, MAX_TIME_MS),
                MAX_TIME_MS + crate::sale::MAX_HOLD_MS,
            )),
        ])
        .when(i64::MAX, TimeAdvanced)
        .then([])
        .stock(9, 1, 0);
}
