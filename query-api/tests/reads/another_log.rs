//! The log is not the one that the read models were made from, or not the one that was read.

use schemas::ids::Partition;
use schemas::topics::Topic;

use crate::support::{Shop, id, sold};

/// An operator must act, and no attempt is called unknown: it may be in the log that is missing.
async fn is_red(shop: &Shop, reason: &str) {
    let report = shop.health.report();
    let broken: Vec<_> = report.iter().filter(|part| !part.alive).collect();
    assert!(!broken.is_empty(), "{report:?}");
    for part in broken {
        assert!(part.detail.contains(reason), "{}", part.detail);
    }
    assert!(!shop.health.is_ready());
    let answer = shop.get(&format!("/api/attempts/{}", id(9))).await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.body["code"], "log_unavailable");
}

#[tokio::test(start_paused = true)]
async fn a_log_that_ends_before_the_read_models_is_refused() {
    for topic in [Topic::StockDecisions, Topic::PurchaseAttempts] {
        let shop = Shop::closed();
        shop.claim(0);
        shop.put_sale(0, "p", 5);
        let first = shop.ask(0, "p", id(1));
        shop.decide(0, "p", first, sold(id(1), first));
        shop.project(0).await;
        shop.log.lose(topic, Partition(0), 1);
        let shop = shop.started();
        shop.settle().await;
        is_red(&shop, "has lost its end").await;
        assert_eq!(shop.status(id(1)).await, "sold", "the store has it");
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_lost_while_it_is_read_stays_red() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    let first = shop.ask(0, "p", id(1));
    shop.decide(0, "p", first, sold(id(1), first));
    shop.settle().await;
    assert!(shop.health.is_ready());
    for topic in Topic::ALL {
        shop.log.lose(topic, Partition(0), 0);
    }
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    is_red(&shop, "has lost its end").await;
    // The topics fill again, but not with what was lost.
    for n in 20..40 {
        shop.claim(0);
        shop.ask(0, "p", id(n));
    }
    tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    is_red(&shop, "has lost its end").await;
}
