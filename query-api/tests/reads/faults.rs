//! The store or the log fails.

use std::time::Duration;

use query_api::live::LiveSettings;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use tokio::time::{Instant, sleep};

use crate::support::{Shop, id, sold};

#[tokio::test(start_paused = true)]
async fn live_answers_continue_when_the_store_fails() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    let first = shop.ask(0, "p", id(1));
    shop.decide(0, "p", first, sold(id(1), first));
    shop.settle().await;
    assert!(shop.health.is_ready());

    shop.store.fail(true);
    let second = shop.ask(0, "p", id(2));
    shop.settle().await;
    assert_eq!(shop.status(id(1)).await, "sold");
    assert_eq!(shop.status(id(2)).await, "queued");
    shop.decide(0, "p", second, sold(id(2), second));
    shop.settle().await;
    assert_eq!(shop.status(id(2)).await, "sold");
    assert_eq!(
        shop.get("/api/flash-sales/p").await.body["stock"]["sold"],
        2
    );
    // An attempt that only the store could have is not reported as unknown.
    assert_eq!(shop.status(id(3)).await, "read_model_unavailable");
    let orders = shop
        .get_with("/api/buyers/me/orders", &[("x-buyer-id", "b")])
        .await;
    assert_eq!(orders.body["code"], "read_model_unavailable");
    // The service stays ready, and its health names the failure.
    assert!(shop.health.is_ready());
    let failing = shop
        .health
        .report()
        .into_iter()
        .find(|component| component.degraded)
        .unwrap();
    assert_eq!(failing.name, "live store");
    assert!(
        failing.detail.contains("the test made it fail"),
        "{}",
        failing.detail
    );

    shop.store.fail(false);
    shop.settle().await;
    assert!(
        shop.health
            .report()
            .iter()
            .all(|part| part.ready && !part.degraded)
    );
    assert_eq!(shop.status(id(3)).await, "unknown_attempt");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_does_not_answer_delays_no_live_answer() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 50);
    shop.settle().await;
    shop.store.keep_silent(true);
    sleep(Duration::from_secs(3)).await;
    for n in 1..=12 {
        let begun = Instant::now();
        let at = shop.ask(0, "p", id(n));
        assert_eq!(shop.status(id(n)).await, "queued");
        shop.decide(0, "p", at, sold(id(n), at));
        shop.settle().await;
        assert_eq!(shop.status(id(n)).await, "sold");
        assert!(begun.elapsed() < Duration::from_secs(1));
        // Its health reports the store all the time, and never becomes unready itself.
        let parts = shop.health.report();
        assert!(parts.iter().all(|part| part.ready), "{parts:?}");
        assert!(parts.iter().any(|part| part.degraded), "{parts:?}");
        sleep(Duration::from_secs(1)).await;
    }
    shop.store.keep_silent(false);
    sleep(Duration::from_secs(3)).await;
    assert!(shop.health.report().iter().all(|part| !part.degraded));
    assert_eq!(shop.status(id(99)).await, "unknown_attempt");
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_before_the_store_was_read_once() {
    let mut shop = Shop::closed();
    shop.claim(0);
    shop.put_sale(0, "p", 5);
    shop.store.fail(true);
    shop.start(LiveSettings::default());
    shop.settle().await;
    for path in ["/api/flash-sales", "/api/flash-sales/p"] {
        assert_eq!(
            shop.get(path).await.body["code"],
            "read_model_unavailable",
            "{path}"
        );
    }
    assert_eq!(shop.status(id(1)).await, "read_model_unavailable");
    assert!(!shop.health.is_ready());
    shop.store.fail(false);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(shop.get("/api/flash-sales/p").await.status, 200);
    assert!(shop.health.is_ready());
}

#[tokio::test(start_paused = true)]
async fn a_damaged_record_is_not_skipped() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    let first = shop.ask(0, "p", id(1));
    shop.decide(0, "p", first, sold(id(1), first));
    let second = shop.ask(0, "p", id(2));
    shop.decide(0, "p", second, sold(id(2), second));
    // The claim and the sale are before it.
    let damaged = Offset(2);
    let good = shop.log.overwrite(
        Topic::StockDecisions,
        Partition(0),
        damaged,
        b"\0\0\0\0\x02junk"[..].into(),
    );
    sleep(Duration::from_secs(8)).await;
    let sale = shop.get("/api/flash-sales/p").await.body;
    assert_eq!(
        sale["version"], 1,
        "the records before the damaged one are good"
    );
    assert_eq!(shop.status(id(1)).await, "queued");
    assert_eq!(shop.status(id(2)).await, "queued");
    let failing: Vec<_> = shop
        .health
        .report()
        .into_iter()
        .filter(|component| !component.ready)
        .collect();
    assert_eq!(failing.len(), 1);
    assert_eq!(failing[0].name, "tail 0");
    let detail = &failing[0].detail;
    assert!(
        detail.contains("record 2 of stock-decisions, partition 0"),
        "{detail}"
    );

    // The other partition is not affected.
    let other = shop.ask(1, "q", id(9));
    shop.decide(1, "q", other, vec![]);
    shop.settle().await;
    assert_eq!(shop.get("/api/flash-sales?at_least=1:0").await.status, 200);

    // Once it can be read again, no record is taken twice or skipped.
    shop.log
        .overwrite(Topic::StockDecisions, Partition(0), damaged, good);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(shop.get("/api/flash-sales/p").await.body["version"], 3);
    assert_eq!(shop.status(id(2)).await, "sold");
    assert!(shop.health.is_ready());
}

#[tokio::test(start_paused = true)]
async fn tails_catch_up_after_the_log_could_not_be_read_for_a_while() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    shop.settle().await;
    let waiting = shop.ask(1, "q", id(2));
    shop.settle().await;
    shop.log.fail_reads(true);
    shop.ask(1, "q", id(3));
    let at = shop.ask(0, "p", id(1));
    shop.decide(0, "p", at, sold(id(1), at));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(
        shop.get("/api/flash-sales/p").await.body["stock"]["sold"],
        0
    );
    assert_eq!(shop.status(id(1)).await, "log_unavailable");
    assert!(!shop.health.is_ready());
    shop.log.fail_reads(false);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(shop.status(id(1)).await, "sold");
    assert!(shop.health.is_ready());
    // What was read before is not read again.
    let path = format!("/api/attempts/{}", id(3));
    assert_eq!(shop.get(&path).await.body["ahead"], 1);
    shop.decide(1, "q", waiting, vec![]);
    shop.settle().await;
    assert_eq!(shop.get(&path).await.body["ahead"], 0);
}

#[tokio::test]
async fn tails_report_their_health_when_nothing_arrives() {
    let shop = Shop::open();
    sleep(runtime::health::READY_SILENCE + Duration::from_millis(500)).await;
    let silent: Vec<_> = shop
        .health
        .report()
        .into_iter()
        .filter(|component| !component.ready)
        .collect();
    assert!(silent.is_empty(), "{silent:?}");
    let names: Vec<_> = shop
        .health
        .report()
        .into_iter()
        .map(|component| component.name)
        .collect();
    assert_eq!(
        names,
        ["live store", "tail 0", "queue 0", "tail 1", "queue 1"]
    );
    shop.stop();
    let ended = async {
        while !shop.health.report().is_empty() {
            sleep(Duration::from_millis(5)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await;
    assert!(ended.is_ok(), "tasks end when they are stopped");
}
