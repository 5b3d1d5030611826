//! Everything is bounded; at the limit there is a clear refusal.

use std::time::Duration;

use query_api::live::LiveSettings;
use schemas::decision::RefusalReason;

use crate::support::{PARTITIONS, Shop, id, refused};

#[tokio::test(start_paused = true)]
async fn no_more_requests_wait_than_the_limit_allows() {
    let shop = Shop::with(LiveSettings {
        max_waiters: 2,
        ..LiveSettings::default()
    });
    let at = shop.ask(0, "p", id(1));
    shop.settle().await;
    let path = format!("/api/attempts/{}?wait=20", id(1));
    let after_two = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let third = shop.get(&path).await;
        assert_eq!(
            (third.status.as_u16(), third.body["code"].as_str()),
            (503, Some("too_many_waiters"))
        );
        assert!(third.headers.contains_key("retry-after"));
        let position = shop.get("/api/flash-sales?at_least=0:99").await;
        assert_eq!(position.body["code"], "too_many_waiters");
        // A request that does not wait is answered.
        assert_eq!(shop.status(id(1)).await, "queued");
        shop.decide(0, "p", at, refused(id(1), RefusalReason::UnknownProduct));
    };
    let (first, second, ()) = tokio::join!(shop.get(&path), shop.get(&path), after_two);
    assert_eq!(
        (&first.body["status"], &second.body["status"]),
        (&"refused".into(), &"refused".into())
    );
    // Both may wait again.
    shop.ask(0, "p", id(2));
    let path = format!("/api/attempts/{}?wait=1", id(2));
    let (first, second) = tokio::join!(shop.get(&path), shop.get(&path));
    assert_eq!((first.status.as_u16(), second.status.as_u16()), (200, 200));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_hangs_up_frees_its_waiter() {
    let shop = Shop::with(LiveSettings {
        max_waiters: 1,
        ..LiveSettings::default()
    });
    shop.ask(0, "p", id(1));
    shop.settle().await;
    let path = format!("/api/attempts/{}?wait=30", id(1));
    for _ in 0..3 {
        let hung_up = tokio::time::timeout(Duration::from_secs(1), shop.get(&path)).await;
        assert!(hung_up.is_err());
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_reads_on_as_its_records_are_decided() {
    let two_each = LiveSettings {
        max_undecided: 2 * PARTITIONS as usize,
        ..LiveSettings::default()
    };
    let shop = Shop::with(two_each);
    shop.settle().await;
    let first = shop.ask(0, "p", id(1));
    shop.ask(0, "p", id(2));
    shop.settle().await;
    shop.ask(0, "p", id(3));
    shop.settle().await;
    // One more may have been in flight when the queue became full.
    shop.ask(0, "p", id(4));
    shop.settle().await;
    assert_eq!(shop.status(id(2)).await, "queued");
    assert_eq!(shop.status(id(4)).await, "not_caught_up");
    shop.decide(0, "p", first, refused(id(1), RefusalReason::UnknownProduct));
    let second = schemas::ids::Offset(1);
    shop.decide(
        0,
        "p",
        second,
        refused(id(2), RefusalReason::UnknownProduct),
    );
    shop.settle().await;
    assert_eq!(shop.status(id(4)).await, "queued");
}

#[tokio::test(start_paused = true)]
async fn memory_evicts_what_the_store_has() {
    let none = LiveSettings {
        keep_attempts: 0,
        ..LiveSettings::default()
    };
    let shop = Shop::with(none);
    for n in 1..=5 {
        let at = shop.ask(0, "p", id(n));
        shop.decide(0, "p", at, refused(id(n), RefusalReason::UnknownProduct));
    }
    shop.settle().await;
    let store_reads = || shop.store.calls().get("attempt").copied().unwrap_or(0);
    assert_eq!(shop.status(id(1)).await, "refused");
    assert_eq!(
        store_reads(),
        0,
        "the store has nothing yet, so memory answers"
    );
    shop.project(0).await;
    shop.settle().await;
    assert_eq!(shop.status(id(1)).await, "refused");
    assert_eq!(
        store_reads(),
        1,
        "the store has it, so memory has evicted it"
    );
    assert_eq!(shop.status(id(5)).await, "refused");
    assert_eq!(store_reads(), 1, "the last one is kept");
}

#[tokio::test(start_paused = true)]
async fn an_attempt_evicted_before_it_is_stored_is_not_unknown() {
    let few = LiveSettings {
        keep_attempts: PARTITIONS as usize,
        max_attempts: 3 * PARTITIONS as usize,
        ..LiveSettings::default()
    };
    let shop = Shop::with(few);
    for n in 1..=5 {
        let at = shop.ask(0, "p", id(n));
        shop.decide(0, "p", at, refused(id(n), RefusalReason::UnknownProduct));
    }
    shop.settle().await;
    assert_eq!(shop.status(id(5)).await, "refused");
    assert_eq!(shop.status(id(1)).await, "read_model_unavailable");
    // It cannot be distinguished from an id that never existed.
    assert_eq!(shop.status(id(77)).await, "read_model_unavailable");
    shop.project(0).await;
    shop.settle().await;
    assert_eq!(shop.status(id(1)).await, "refused");
    assert_eq!(shop.status(id(77)).await, "unknown_attempt");
}
