use schemas::command::CommandBody::{CloseSale, OpenSale, PauseSale, TimeAdvanced};
use schemas::decision::Event::{SaleClosed, SaleOpened, SalePaused};
use schemas::decision::RefusalReason::{NotOpenYet, Paused, SoldOut};
use schemas::decision::ReleaseCause::Expired;
use schemas::decision::SaleChangeRefusalReason::*;

use schemas::command::SaleTerms;
use schemas::ids::MAX_STOCK;

use super::{MAX_HOLD_MS, MAX_NAME_BYTES, MAX_PRICE_MINOR, MAX_TIME_MS, check_terms};
use crate::testing::*;

#[test]
fn the_first_terms_begin_the_first_round() {
    given([])
        .when(0, put(terms(10)))
        .then([sale_set(terms(10), 1)])
        .stock(10, 0, 0);
    given([])
        .when(OPENS, put(terms(10)))
        .then([sale_set(terms(10), 1), SaleOpened]);
}

#[test]
fn a_product_without_a_sale_cannot_be_opened_paused_closed_or_stocked() {
    for body in [
        OpenSale,
        PauseSale,
        CloseSale,
        set_stock(1),
        set_stock(u32::MAX),
    ] {
        given([]).when(0, body).then([unchanged(UnknownProduct)]);
    }
}

#[test]
fn a_closed_sale_cannot_be_opened_paused_closed_or_stocked() {
    for body in [
        OpenSale,
        PauseSale,
        CloseSale,
        set_stock(1),
        set_stock(u32::MAX),
    ] {
        on_sale(terms(1))
            .when(0, CloseSale)
            .then([SaleClosed])
            .when(0, body)
            .then([unchanged(Closed)]);
    }
}

#[test]
fn a_sale_is_opened_paused_and_resumed_by_hand() {
    on_sale(terms(1))
        .when(0, attempt(1, "ann", 1))
        .then([refused(1, "ann", 1, NotOpenYet)])
        .when(0, OpenSale)
        .then([SaleOpened])
        .when(0, PauseSale)
        .then([SalePaused])
        .when(0, attempt(2, "ann", 1))
        .then([refused(2, "ann", 1, Paused)])
        .when(0, OpenSale)
        .then([SaleOpened])
        .when(0, attempt(3, "ann", 1))
        .then([accepted(sold(3, "ann", 1, 6, 0))]);
}

#[test]
fn every_term_has_bounds_and_the_bounds_themselves_are_good() {
    let change = |change: fn(&mut SaleTerms)| {
        let mut terms = terms(10);
        change(&mut terms);
        terms
    };
    let good: [fn(&mut SaleTerms); 10] = [
        |t| t.name = "x".repeat(MAX_NAME_BYTES).into(),
        |t| t.price.minor = 0,
        |t| t.price.minor = MAX_PRICE_MINOR,
        |t| t.stock = 0,
        |t| t.stock = MAX_STOCK,
        |t| t.limit_per_buyer = Some(1),
        |t| t.limit_per_buyer = Some(MAX_STOCK),
        |t| t.hold_ms = Some(1),
        |t| t.hold_ms = Some(MAX_HOLD_MS),
        |t| t.closes_at_ms = Some(MAX_TIME_MS),
    ];
    for terms in good.map(change) {
        assert_eq!(check_terms(&terms), Ok(()), "{terms:?}");
        given([])
            .when(0, put(terms.clone()))
            .then([sale_set(terms, 1)]);
    }
    type Change = fn(&mut SaleTerms);
    let bad: [(&str, Change); 18] = [
        ("name", |t| t.name = "".into()),
        ("name", |t| t.name = "x".repeat(MAX_NAME_BYTES + 1).into()),
        ("price.minor", |t| t.price.minor = -1),
        ("price.minor", |t| t.price.minor = MAX_PRICE_MINOR + 1),
        ("price.currency", |t| t.price.currency = "".into()),
        ("price.currency", |t| t.price.currency = "gbp".into()),
        ("price.currency", |t| t.price.currency = "GBPS".into()),
        ("stock", |t| t.stock = MAX_STOCK + 1),
        ("stock", |t| t.stock = u32::MAX),
        ("limit_per_buyer", |t| t.limit_per_buyer = Some(0)),
        ("limit_per_buyer", |t| t.limit_per_buyer = Some(u32::MAX)),
        ("hold_ms", |t| t.hold_ms = Some(0)),
        ("hold_ms", |t| t.hold_ms = Some(i64::MAX)),
        ("opens_at", |t| t.opens_at_ms = -1),
        ("opens_at", |t| t.opens_at_ms = i64::MAX),
        ("closes_at", |t| t.closes_at_ms = Some(i64::MIN)),
        ("closes_at", |t| t.closes_at_ms = Some(i64::MAX)),
        ("closes_at", |t| t.closes_at_ms = Some(OPENS)),
    ];
    for (field, terms) in bad.map(|(field, by)| (field, change(by))) {
        let error = check_terms(&terms).expect_err("a term is out of its bounds");
        assert_eq!(error.field, field, "{terms:?}");
        given([])
            .when(0, put(terms))
            .then([unchanged(InvalidTerms)]);
    }
}

#[test]
fn a_window_that_is_over_is_refused() {
    let mut over = terms(1);
    over.closes_at_ms = Some(OPENS + 100);
    given([])
        .when(OPENS + 100, put(over.clone()))
        .then([unchanged(InvalidTerms)])
        // Nothing is left of that, not even its time.
        .when(OPENS + 99, put(over.clone()))
        .then([sale_set(over.clone(), 1), SaleOpened])
        .when(OPENS + 100, TimeAdvanced)
        .then([SaleClosed])
        // Time does not go back, so it is still over.
        .when(OPENS + 99, begin_round(over))
        .then([unchanged(InvalidTerms)]);
}

#[test]
fn terms_change_while_the_sale_goes_on() {
    let mut dearer = terms(20);
    dearer.price.minor = 1;
    on_sale(terms(10))
        .when(OPENS, attempt(1, "ann", 4))
        .when(OPENS, put(dearer.clone()))
        .then([sale_set(dearer, 1), SaleOpened])
        .stock(16, 0, 4)
        .when(OPENS, attempt(1, "ann", 4))
        .then([repeated(1)]);
}

#[test]
fn less_stock_than_is_held_and_sold_is_refused() {
    for (terms_of, reserved, sold) in [(held(10, 500), 4, 0), (terms(10), 0, 4)] {
        let stock_of = |stock| SaleTerms {
            stock,
            ..terms_of.clone()
        };
        on_sale(terms_of.clone())
            .when(OPENS, attempt(1, "ann", 4))
            .when(OPENS, put(stock_of(3)))
            .then([unchanged(StockBelowCommitted)])
            .when(OPENS, set_stock(3))
            .then([unchanged(StockBelowCommitted)])
            .stock(6, reserved, sold)
            .when(OPENS, put(stock_of(4)))
            .then([sale_set(stock_of(4), 1), SaleOpened])
            .stock(0, reserved, sold)
            .when(OPENS, set_stock(7))
            .then([stock_set(7)])
            .stock(3, reserved, sold);
    }
}

#[test]
fn holds_that_run_out_make_room_for_less_stock_at_once() {
    let order = until(sold(1, "ann", 4, 1, OPENS), OPENS + 500);
    on_sale(held(10, 500))
        .when(OPENS, attempt(1, "ann", 4))
        .when(OPENS + 500, set_stock(0))
        .then([released(order, Expired), stock_set(0)])
        .stock(0, 0, 0);
}

#[test]
fn stock_may_be_set_to_its_bound_and_not_beyond() {
    on_sale(terms(0))
        .when(OPENS, attempt(1, "ann", 1))
        .then([SaleOpened, refused(1, "ann", 1, SoldOut)])
        .when(OPENS, set_stock(MAX_STOCK))
        .stock(MAX_STOCK, 0, 0)
        .when(OPENS, set_stock(MAX_STOCK + 1))
        .then([unchanged(InvalidTerms)])
        .when(OPENS, set_stock(u32::MAX))
        .then([unchanged(InvalidTerms)])
        .stock(MAX_STOCK, 0, 0);
}

#[test]
fn a_window_moved_into_the_future_stops_the_sale_until_then() {
    let mut later = terms(10);
    later.opens_at_ms = OPENS + 100;
    on_sale(terms(10))
        .when(OPENS, put(later.clone()))
        .then([SaleOpened, sale_set(later, 1)])
        .when(OPENS + 99, attempt(1, "ann", 1))
        .then([refused(1, "ann", 1, NotOpenYet)])
        .when(OPENS + 100, attempt(2, "ann", 1))
        .then([SaleOpened, accepted(sold(2, "ann", 1, 3, OPENS + 100))]);
}

#[test]
fn a_sale_opened_by_hand_stays_open_when_its_price_changes() {
    let mut dearer = terms(10);
    dearer.price.minor = 1;
    on_sale(terms(10))
        .when(0, OpenSale)
        .when(0, put(dearer.clone()))
        .then([sale_set(dearer, 1), SaleOpened])
        .when(0, attempt(1, "ann", 1))
        .stock(9, 0, 1);
}

#[test]
fn a_paused_sale_stays_paused_when_its_terms_change() {
    on_sale(terms(10))
        .when(OPENS, PauseSale)
        .when(OPENS, put(terms(20)))
        .then([sale_set(terms(20), 1)])
        .when(OPENS, attempt(1, "ann", 1))
        .then([refused(1, "ann", 1, Paused)]);
}

#[test]
fn holds_cannot_be_given_up_while_some_stand() {
    let order = until(sold(1, "ann", 1, 1, OPENS), OPENS + 500);
    on_sale(held(10, 500))
        .when(OPENS, attempt(1, "ann", 1))
        .when(OPENS, put(terms(10)))
        .then([unchanged(HoldsOutstanding)])
        .when(OPENS, put(held(10, 9)))
        .then([sale_set(held(10, 9), 1), SaleOpened])
        .when(OPENS + 500, put(terms(10)))
        .then([released(order, Expired), sale_set(terms(10), 1), SaleOpened]);
}

#[test]
fn a_new_round_forgets_ids_limits_stock_and_counts() {
    let then = on_sale(limited(2, 1))
        .when(OPENS, attempt(1, "ann", 1))
        .when(OPENS, attempt(2, "ann", 1))
        .when(OPENS, cancel(1, "ann"))
        .when(OPENS, attempt(3, "ann", 1))
        .when(OPENS, CloseSale)
        .when(OPENS, begin_round(limited(5, 1)))
        .then([sale_set(limited(5, 1), 2), SaleOpened])
        .stock(5, 0, 0);
    assert_eq!(then.product().head.tally, Default::default());
    assert_eq!(then.product().remembered(), 0);
    then.when(OPENS, attempt(1, "ann", 1))
        .then([accepted(sold(1, "ann", 1, 7, OPENS))])
        .stock(4, 0, 1);
}

#[test]
fn a_new_round_waits_for_the_holds_of_the_old_one() {
    let order = until(sold(1, "ann", 1, 1, OPENS), OPENS + 500);
    on_sale(held(10, 500))
        .when(OPENS, attempt(1, "ann", 1))
        .when(OPENS, CloseSale)
        .when(OPENS + 499, begin_round(terms(5)))
        .then([unchanged(HoldsOutstanding)])
        .when(OPENS + 500, begin_round(terms(5)))
        .then([released(order, Expired), sale_set(terms(5), 2), SaleOpened])
        .stock(5, 0, 0);
}

#[test]
fn terms_that_arrive_after_the_end_begin_no_round() {
    let ends_at = |closes_at_ms| SaleTerms {
        closes_at_ms: Some(closes_at_ms),
        ..terms(3)
    };
    let (sale, later) = (ends_at(OPENS + 100), ends_at(OPENS + 900));
    on_sale(sale)
        .when(OPENS, attempt(1, "ann", 3))
        .when(OPENS + 150, put(later.clone()))
        .then([SaleClosed, unchanged(Closed)])
        .stock(0, 0, 3)
        .when(OPENS + 151, put(later.clone()))
        .then([unchanged(Closed)])
        .when(OPENS + 152, begin_round(later.clone()))
        .then([sale_set(later, 2), SaleOpened])
        .stock(3, 0, 0);
}

#[test]
fn a_round_begins_only_after_a_closed_one() {
    given([])
        .when(0, begin_round(terms(1)))
        .then([unchanged(NoClosedRound)]);
    on_sale(terms(1))
        .when(0, begin_round(terms(1)))
        .then([unchanged(NoClosedRound)])
        .when(OPENS, begin_round(terms(1)))
        .then([SaleOpened, unchanged(NoClosedRound)])
        .when(OPENS, PauseSale)
        .when(OPENS, begin_round(terms(1)))
        .then([unchanged(NoClosedRound)])
        .when(OPENS, CloseSale)
        .when(OPENS, begin_round(terms(MAX_STOCK + 1)))
        .then([unchanged(InvalidTerms)])
        .when(OPENS, begin_round(terms(2)))
        .then([sale_set(terms(2), 2), SaleOpened])
        // The command again does not begin a third.
        .when(OPENS, begin_round(terms(2)))
        .then([unchanged(NoClosedRound)]);
}

#[test]
fn a_change_made_for_another_version_of_the_sale_is_refused() {
    // Version 0: there is no sale yet.
    given([])
        .when_if(0, put(terms(1)), Some(1))
        .then([unchanged(VersionDiffers)])
        .when_if(0, put(terms(10)), 0)
        .then([sale_set(terms(10), 1)])
        .when_if(0, put(terms(20)), 0)
        .then([unchanged(VersionDiffers)])
        .when_if(0, put(terms(20)), 1)
        .then([sale_set(terms(20), 1)])
        // The sale opens, as its fourth decision; attempts, cancellations and refusals do not change it.
        .when(OPENS, attempt(1, "ann", 1))
        .when(OPENS, attempt(2, "ann", 30))
        .when(OPENS, cancel(1, "ann"))
        .when_if(OPENS, set_stock(5), 3)
        .then([unchanged(VersionDiffers)])
        .when_if(OPENS, set_stock(5), 4)
        .then([stock_set(5)]);
}

#[test]
fn every_kind_of_change_can_be_made_for_a_version() {
    for body in [
        put(terms(2)),
        begin_round(terms(2)),
        OpenSale,
        PauseSale,
        CloseSale,
        set_stock(2),
    ] {
        on_sale(terms(1))
            .when(0, set_stock(3))
            .when_if(0, body, 1)
            .then([unchanged(VersionDiffers)]);
    }
}

#[test]
fn what_time_changes_is_newer_than_any_version_a_seller_has_read() {
    on_sale(terms(1))
        .when(0, set_stock(3))
        .when_if(OPENS, set_stock(4), 2)
        .then([SaleOpened, unchanged(VersionDiffers)])
        .when_if(OPENS, set_stock(4), 3)
        .then([stock_set(4)]);
}

#[test]
fn a_version_that_an_older_checkpoint_does_not_have_is_unknown_until_the_sale_changes() {
    let mut given = given([(0, put(terms(1))), (0, set_stock(3))]).product;
    given.head.sale_version = None;
    let due = |product: &_| crate::time::due(product, 0);
    assert!(super::is_at_version(&given, &due(&given), Some(2)));
    assert!(super::is_at_version(&given, &due(&given), None));
}
