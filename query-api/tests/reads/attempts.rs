//! How an attempt stands, by its id.

use std::time::Duration;

use schemas::decision::{Event, OrderReleased, RefusalReason, ReleaseCause};
use schemas::ids::Offset;
use schemas::topics::Topic;
use serde_json::json;
use tokio::time::Instant;

use crate::support::{Shop, id, order, refused, repeated, sold};

#[tokio::test(start_paused = true)]
async fn an_undecided_attempt_is_queued_and_a_waiting_read_returns_once_it_is_decided() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    let at = shop.ask(0, "p", id(1));
    shop.settle().await;
    let answer = shop.get(&format!("/api/attempts/{}", id(1))).await;
    let expected = json!({
        "attempt_id": id(1).to_string(), "status": "queued", "product_id": "p", "quantity": 1,
        "position": {"partition": 0, "offset": 1}, "ahead": 0,
    });
    assert_eq!(answer.body, expected);
    assert_eq!(answer.headers["cache-control"], "private, no-store");

    let began = Instant::now();
    let path = format!("/api/attempts/{}?wait=30", id(1));
    let deciding = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        shop.decide(0, "p", at, sold(id(1), at));
    };
    let (answer, ()) = tokio::join!(shop.get(&path), deciding);
    assert_eq!(began.elapsed().as_secs(), 3);
    let expected = json!({
        "attempt_id": id(1).to_string(), "status": "sold", "product_id": "p", "quantity": 1,
        "position": {"partition": 0, "offset": 1}, "order_number": "0-1",
        "price": {"minor": 1500, "currency": "HUF", "minor_units": 2},
        "decided_at": "2026-11-21T08:00:00.000Z",
    });
    assert_eq!(answer.body, expected);
}

#[tokio::test(start_paused = true)]
async fn a_wait_ends_without_an_answer_when_its_time_is_over() {
    let shop = Shop::open();
    shop.ask(0, "p", id(1));
    shop.settle().await;
    let began = Instant::now();
    let answer = shop.get(&format!("/api/attempts/{}?wait=7", id(1))).await;
    assert_eq!(answer.body["status"], "queued");
    assert_eq!(began.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn ahead_counts_what_its_partition_decides_first() {
    let shop = Shop::open();
    let first = shop.ask(0, "p", id(1));
    let tick = shop.tick(0, "q");
    shop.ask(0, "q", id(2));
    shop.ask(1, "r", id(3));
    shop.settle().await;
    let ahead = async |n| shop.get(&format!("/api/attempts/{}", id(n))).await.body["ahead"].clone();
    assert_eq!(
        (ahead(1).await, ahead(2).await, ahead(3).await),
        (json!(0), json!(2), json!(0))
    );
    shop.decide(0, "p", first, refused(id(1), RefusalReason::UnknownProduct));
    shop.settle().await;
    assert_eq!(ahead(2).await, json!(1));
    shop.decide(0, "q", tick, vec![]);
    shop.settle().await;
    assert_eq!(ahead(2).await, json!(0));
}

#[tokio::test(start_paused = true)]
async fn decisions_of_a_superseded_decider_are_never_shown() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    let (first, second) = (shop.ask(0, "p", id(1)), shop.ask(0, "p", id(2)));
    shop.claim(0);
    // The decider of the claim at offset 0 continues unaware.
    shop.decide_under(
        Offset(0),
        0,
        "p",
        first,
        refused(id(1), RefusalReason::SoldOut),
    );
    shop.settle().await;
    assert_eq!(shop.status(id(1)).await, "queued");
    assert_eq!(
        shop.get("/api/flash-sales/p").await.body["attempts"]["refused"],
        0
    );
    shop.decide(0, "p", first, sold(id(1), first));
    // The same attempt is decided a second time.
    shop.decide(0, "p", first, refused(id(1), RefusalReason::SoldOut));
    shop.decide_under(Offset(0), 0, "p", second, sold(id(2), second));
    shop.settle().await;
    assert_eq!(shop.status(id(1)).await, "sold");
    assert_eq!(shop.status(id(2)).await, "queued");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_is_unknown_only_when_everything_before_the_question_has_been_read() {
    let shop = Shop::open();
    shop.settle().await;
    assert_eq!(shop.status(id(1)).await, "unknown_attempt");

    shop.log.hold_back(Topic::PurchaseAttempts);
    shop.ask(1, "p", id(1));
    assert_eq!(shop.status(id(1)).await, "not_caught_up");
    let release = async {
        tokio::time::sleep(Duration::from_millis(500)).await;
        shop.log.release();
    };
    let (status, ()) = tokio::join!(shop.status(id(1)), release);
    assert_eq!(status, "queued");
    assert_eq!(shop.status(id(2)).await, "unknown_attempt");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_partition_does_not_block_answers_from_others() {
    let shop = Shop::open();
    shop.settle().await;
    shop.put_unreadable(0);
    let began = Instant::now();
    shop.ask(1, "p", id(1));
    assert_eq!(shop.status(id(1)).await, "queued");
    assert!(began.elapsed() < Duration::from_secs(1));
    assert_eq!(shop.status(id(2)).await, "not_caught_up");
}

#[tokio::test(start_paused = true)]
async fn a_repeated_attempt_has_its_first_answer_before_and_after_the_repeat_is_decided() {
    let shop = Shop::closed();
    shop.claim(0);
    shop.put_sale(0, "p", 5);
    let first = shop.ask(0, "p", id(1));
    shop.decide(0, "p", first, sold(id(1), first));
    shop.project(0).await;
    // From here on only the store has the first answer.
    let shop = shop.started();
    let again = shop.ask(0, "p", id(1));
    shop.settle().await;
    let answer = shop.get(&format!("/api/attempts/{}", id(1))).await;
    assert_eq!(
        (&answer.body["status"], &answer.body["position"]["offset"]),
        (&json!("sold"), &json!(1))
    );
    let path = format!("/api/attempts/{}?wait=30", id(1));
    let deciding = async { shop.decide(0, "p", again, repeated(id(1))) };
    let (answer, ()) = tokio::join!(shop.get(&path), deciding);
    assert_eq!(answer.body["status"], "sold");
}

#[tokio::test(start_paused = true)]
async fn a_refusal_has_its_reason_and_whether_a_retry_can_help() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 1);
    let held = |id, at| {
        let mut held = order(id, at);
        held.hold_until_ms = Some(crate::support::NOW + 60_000);
        held
    };
    let refuse = async |n, reason, helps| {
        let at = shop.ask(0, "p", id(n));
        shop.decide(0, "p", at, refused(id(n), reason));
        shop.settle().await;
        let body = shop.get(&format!("/api/attempts/{}", id(n))).await.body;
        assert_eq!(body["status"], "refused");
        assert_eq!(body["reason"], reason.as_str());
        assert_eq!(body["retry_can_help"], helps, "{reason}");
        assert_eq!(body.get("order_number"), None);
    };
    refuse(1, RefusalReason::NotOpenYet, true).await;
    // The terms have no limit any more.
    refuse(2, RefusalReason::OverBuyerLimit, true).await;
    refuse(3, RefusalReason::InvalidQuantity, false).await;
    let at = shop.ask(0, "p", id(4));
    shop.decide(
        0,
        "p",
        at,
        vec![Event::OrderAccepted(schemas::decision::OrderAccepted {
            order: held(id(4), at),
        })],
    );
    // The only unit is held, so it may come back.
    refuse(5, RefusalReason::SoldOut, true).await;
    let at = shop.tick(0, "p");
    shop.decide(0, "p", at, vec![Event::SaleClosed]);
    refuse(6, RefusalReason::SoldOut, false).await;
    refuse(7, RefusalReason::Paused, false).await;
}

#[tokio::test(start_paused = true)]
async fn a_read_with_at_least_is_no_older_than_that_position() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    let at = shop.ask(0, "p", id(1));
    shop.decide(0, "p", at, sold(id(1), at));
    shop.settle().await;
    let cancel = shop.tick(0, "p");
    let path = format!("/api/attempts/{}?at_least=0:{cancel}", id(1));
    let cancelling = async {
        tokio::time::sleep(Duration::from_secs(4)).await;
        let released = OrderReleased {
            order: order(id(1), at),
            cause: ReleaseCause::Cancelled,
        };
        shop.decide(0, "p", cancel, vec![Event::OrderReleased(released)]);
    };
    let (answer, ()) = tokio::join!(shop.get(&path), cancelling);
    assert_eq!(answer.body["status"], "cancelled");
    assert_eq!(answer.body["order_number"], "0-1");

    let began = Instant::now();
    let answer = shop
        .get(&format!("/api/attempts/{}?at_least=0:99", id(1)))
        .await;
    assert_eq!(
        (answer.status.as_u16(), &answer.body["code"]),
        (503, &json!("not_caught_up"))
    );
    assert_eq!(answer.headers["retry-after"], "1");
    assert_eq!(began.elapsed().as_secs(), 10);
}

/// The store's search is expensive, and anybody may make it search for an id that does not exist.
#[tokio::test(start_paused = true)]
async fn the_store_is_searched_once_for_an_id_that_does_not_exist() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    shop.settle().await;
    let searches = || shop.store.calls().get("attempt").copied().unwrap_or(0);
    let before = searches();
    assert_eq!(shop.status(id(99)).await, "unknown_attempt");
    assert_eq!(searches() - before, 1);
}
