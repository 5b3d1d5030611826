//! The store or the log fails.

use std::time::Duration;

use ports::NewRecord;
use query_api::live::LiveSettings;
use runtime::telemetry;
use schemas::decision::RefusalReason;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use tokio::time::{Instant, sleep};

use crate::support::{Shop, id, refused, sold};

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
async fn a_record_of_a_newer_version_is_not_skipped() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    let first = shop.ask(0, "p", id(1));
    shop.decide(0, "p", first, sold(id(1), first));
    let second = shop.ask(0, "p", id(2));
    shop.decide(0, "p", second, sold(id(2), second));
    // The claim and the sale are before it.
    let newer = Offset(2);
    let good = shop.log.overwrite(
        Topic::StockDecisions,
        Partition(0),
        newer,
        b"\0\0\0\0\x63newer"[..].into(),
    );
    sleep(Duration::from_secs(8)).await;
    let sale = shop.get("/api/flash-sales/p").await.body;
    assert_eq!(
        sale["version"], 1,
        "the records before the newer one are good"
    );
    assert_eq!(shop.status(id(1)).await, "queued");
    assert_eq!(shop.status(id(2)).await, "queued");
    let failing: Vec<_> = shop
        .health
        .report()
        .into_iter()
        .filter(|component| component.degraded)
        .collect();
    assert!(shop.health.is_ready(), "the other partition is well");
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
        .overwrite(Topic::StockDecisions, Partition(0), newer, good);
    sleep(Duration::from_secs(2)).await;
    assert_eq!(shop.get("/api/flash-sales/p").await.body["version"], 3);
    assert_eq!(shop.status(id(2)).await, "sold");
    assert!(shop.health.report().iter().all(|part| !part.degraded));
}

/// Its attempt may be in the store; what became of the request itself is in memory.
#[tokio::test(start_paused = true)]
async fn a_request_without_an_outcome_of_its_own_is_answered_when_the_store_fails() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    shop.settle().await;
    shop.store.fail(true);
    let late = shop.ask(0, "p", id(1));
    shop.decide(0, "p", late, refused(id(1), RefusalReason::AnotherRound));
    sleep(Duration::from_secs(1)).await;
    assert_eq!(shop.status(id(1)).await, "read_model_unavailable");
    let at_position = format!("/api/attempts/{}?at_least=0:{late}", id(1));
    let body = shop.get(&at_position).await.body;
    assert_eq!(body["reason"], "another_round", "{body}");
}

/// What stands behind it is known, and what may be in it is not called unknown.
#[tokio::test(start_paused = true)]
async fn an_undecided_record_of_a_newer_version_hides_no_other() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    let newer = NewRecord {
        value: b"\0\0\0\0\x63newer"[..].into(),
        ..NewRecord::default()
    };
    let newer = shop
        .log
        .put(Topic::PurchaseAttempts, Partition(0), vec![newer]);
    let behind = shop.ask(0, "p", id(1));
    let other = shop.ask(1, "q", id(2));
    shop.settle().await;
    assert_eq!(shop.status(id(1)).await, "queued");
    assert_eq!(shop.status(id(2)).await, "queued");
    assert_eq!(shop.status(id(9)).await, "not_caught_up");
    let command = format!("/api/commands/0-{newer}");
    assert_eq!(shop.get(&command).await.body["code"], "not_caught_up");
    assert!(shop.health.is_ready());

    shop.skip(0, newer);
    shop.decide(0, "p", behind, sold(id(1), behind));
    shop.decide(1, "q", other, vec![]);
    shop.settle().await;
    assert_eq!(shop.status(id(1)).await, "sold");
    assert_eq!(shop.status(id(9)).await, "unknown_attempt");
    assert_eq!(shop.get(&command).await.body["reason"], "undecodable");
}

/// What cannot be decoded in either topic stops nobody: it never counts, and nobody can ask for it.
#[tokio::test(start_paused = true)]
async fn garbage_is_dropped() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    for garbage in [&b""[..], b"garbage", b"\0\0\0\0\x02junk"] {
        let record = NewRecord {
            value: garbage.into(),
            ..NewRecord::default()
        };
        for topic in [Topic::PurchaseAttempts, Topic::StockDecisions] {
            shop.log.put(topic, Partition(0), vec![record.clone()]);
        }
    }
    let behind = shop.ask(0, "p", id(1));
    shop.settle().await;
    assert_eq!(shop.status(id(1)).await, "queued");
    let answer = shop.get(&format!("/api/attempts/{}", id(1))).await;
    assert_eq!(answer.body["ahead"], 3, "garbage waits for its answer, too");
    for offset in 1..=3 {
        shop.skip(0, Offset(offset));
    }
    shop.decide(0, "p", behind, sold(id(1), behind));
    shop.settle().await;
    assert_eq!(shop.status(id(1)).await, "sold");
    assert_eq!(shop.get("/api/flash-sales?at_least=0:3").await.status, 200);
    assert_eq!(shop.status(id(9)).await, "unknown_attempt");
    assert!(
        shop.health
            .report()
            .iter()
            .all(|part| part.ready && !part.degraded)
    );
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
    sleep(runtime::health::STALLED_AFTER + Duration::from_millis(500)).await;
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

#[tokio::test(start_paused = true)]
async fn a_list_is_never_empty_because_its_store_is_behind_or_broken() {
    let buyer = [("x-buyer-id", "buyer")];
    let orders = "/api/buyers/me/orders";
    let mut shop = Shop::closed();
    (0..2).for_each(|partition| shop.claim(partition));
    shop.put_sale(0, "p", 5);
    let at = shop.ask(0, "p", id(1));
    shop.decide(0, "p", at, sold(id(1), at));
    // The read store is new, and the projector has not begun: the order is decided and not in it.
    shop.log.hold_back(Topic::StockDecisions);
    shop.start(LiveSettings::default());
    shop.settle().await;
    let unavailable = async |path| {
        let answer = shop.get_with(path, &buyer).await;
        assert_eq!(answer.status, 503, "{path}: {}", answer.body);
        assert_eq!(answer.body["code"], "read_model_unavailable", "{path}");
    };
    unavailable("/api/flash-sales").await;
    unavailable("/api/flash-sales?sort=busiest").await;
    unavailable(orders).await;
    shop.log.release();
    shop.settle().await;
    unavailable(orders).await;
    let sales = shop.get("/api/flash-sales").await;
    assert_eq!(sales.body["total"], 1, "{}", sales.body);
    shop.project(0).await;
    shop.settle().await;
    let list = async || shop.get_with(orders, &buyer).await.body["orders"].clone();
    assert_eq!(list().await.as_array().unwrap().len(), 1);

    // The store takes no rows for a while.
    let at = shop.ask(0, "p", id(2));
    shop.decide(0, "p", at, sold(id(2), at));
    sleep(Duration::from_secs(6)).await;
    unavailable(orders).await;
    shop.project(0).await;
    shop.settle().await;
    assert_eq!(list().await.as_array().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn undecided_attempts_are_known_without_a_decider() {
    let metrics = telemetry::metrics();
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    shop.ask(0, "p", id(1));
    shop.ask(0, "p", id(2));
    sleep(Duration::from_secs(5)).await;
    let metric = |name: &str| -> f64 {
        let text = metrics.render(&shop.health);
        let prefix = format!("{name}{{partition=\"0\"}} ");
        let value = text.lines().find_map(|line| line.strip_prefix(&prefix));
        value.expect(name).parse().unwrap()
    };
    assert_eq!(metric("doorbuster_undecided_attempts"), 2.0);
    let waits = metric("doorbuster_oldest_undecided_seconds");
    assert!((4.0..6.0).contains(&waits), "{waits}");
    assert!(shop.health.report().iter().all(|part| !part.degraded));

    sleep(Duration::from_secs(15)).await;
    assert!(shop.health.is_ready() && shop.health.is_alive());
    let parts = shop.health.report();
    let degraded: Vec<_> = parts.iter().filter(|part| part.degraded).collect();
    assert_eq!(degraded.len(), 1, "{degraded:?}");
    assert_eq!(degraded[0].name, "queue 0");
    let detail = &degraded[0].detail;
    assert!(
        detail.starts_with("2 records have no decision, the oldest for"),
        "{detail}"
    );

    shop.decide(0, "p", Offset(1), vec![]);
    shop.decide(0, "p", Offset(2), vec![]);
    sleep(Duration::from_secs(1)).await;
    assert_eq!(metric("doorbuster_undecided_attempts"), 0.0);
    assert_eq!(metric("doorbuster_oldest_undecided_seconds"), 0.0);
    assert!(shop.health.report().iter().all(|part| !part.degraded));
}
