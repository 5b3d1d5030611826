//! A decider over a log that is not the one of its checkpoint, or not the one it worked in, claims
//! nothing and decides nothing.

use std::time::Duration;

use ports::{EventLog, NewRecord};
use schemas::decision::{Claim, DecisionRecord};
use schemas::topics::Topic;

use crate::support::{BEGIN_MS, Bench, PARTITION, Shoppers};

/// A partition with decisions and checkpoints, whose decider has stopped.
async fn decided() -> Bench {
    let bench = Bench::new();
    let mut shoppers = Shoppers::new(11);
    for _ in 0..200 {
        bench.put(shoppers.next(BEGIN_MS));
    }
    let decider = bench.start("one", bench.log.clone(), 50);
    bench.all_answered().await;
    // A checkpoint is written in the background.
    tokio::time::sleep(Duration::from_secs(2)).await;
    decider.stop().await;
    assert!(
        !bench
            .log
            .records(Topic::ProductSnapshots, PARTITION)
            .is_empty()
    );
    bench
}

fn put_claim(bench: &Bench, partitions: Option<u32>) {
    let claim = DecisionRecord::Claim(Claim {
        decider: "other".into(),
        partitions,
    });
    let record = NewRecord {
        value: bench.codec.encode_decision(claim).into(),
        ..NewRecord::default()
    };
    bench
        .log
        .put(Topic::StockDecisions, PARTITION, vec![record]);
}

/// Waits until health shows that an operator must act, for this reason.
async fn broken_by(bench: &Bench, reason: &str) {
    for _ in 0..200 {
        let report = bench.health.report();
        if report.iter().any(|part| part.detail.contains(reason)) {
            assert!(
                !bench.health.is_ready() && !bench.health.is_alive(),
                "{report:?}"
            );
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("not broken by {reason:?}: {:?}", bench.health.report());
}

/// A decider that starts refuses the log, and appends nothing to it.
async fn refused_at_the_start(bench: &Bench, reason: &str) {
    let ends = async || {
        let end = |topic| bench.log.end(topic, PARTITION);
        (
            end(Topic::StockDecisions).await.unwrap(),
            end(Topic::PurchaseAttempts).await.unwrap(),
        )
    };
    let before = ends().await;
    let decider = bench.start("two", bench.log.clone(), 50);
    broken_by(bench, reason).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    broken_by(bench, reason).await;
    assert_eq!(ends().await, before, "nothing was appended");
    decider.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_log_that_ends_before_its_checkpoint_is_refused() {
    for topic in [Topic::StockDecisions, Topic::PurchaseAttempts] {
        let bench = decided().await;
        bench.log.lose(topic, PARTITION, 40);
        refused_at_the_start(&bench, "has lost its end").await;
    }
}

/// Topics that were deleted and created again soon have as many records as before.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_of_another_log_is_refused() {
    let bench = decided().await;
    let decisions = bench.log.records(Topic::StockDecisions, PARTITION).len();
    bench.log.lose(Topic::StockDecisions, PARTITION, 0);
    for _ in 0..=decisions {
        put_claim(&bench, None);
    }
    refused_at_the_start(&bench, "the checkpoint is of log").await;
}

#[tokio::test(start_paused = true)]
async fn a_log_begun_with_another_number_of_partitions_is_refused() {
    let bench = Bench::new();
    put_claim(&bench, Some(8));
    bench.put(Shoppers::new(1).next(BEGIN_MS));
    refused_at_the_start(&bench, "begun with 8 partitions").await;
}

#[tokio::test(start_paused = true)]
async fn claims_have_the_number_of_partitions() {
    let bench = decided().await;
    let first = &bench.log.records(Topic::StockDecisions, PARTITION)[0];
    let first = bench.codec.decode_decision(&first.value).unwrap();
    let DecisionRecord::Claim(claim) = first else {
        panic!("the first record is a claim: {first:?}");
    };
    assert_eq!(claim.partitions, Some(bench.log.partitions()));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_is_replaced_under_a_decider_stops_it_for_good() {
    let reason = "has lost its end";
    for lost in [&[Topic::PurchaseAttempts][..], &Topic::ALL] {
        let bench = decided().await;
        let decider = bench.start("two", bench.log.clone(), 1_000_000);
        bench.put(Shoppers::new(1).next(BEGIN_MS));
        bench.all_answered().await;
        for topic in lost {
            bench.log.lose(*topic, PARTITION, 0);
        }
        broken_by(&bench, reason).await;
        let claims = bench.claims();
        // The topics fill again, but not with what was lost.
        for _ in 0..300 {
            put_claim(&bench, None);
            bench.put(Shoppers::new(2).next(BEGIN_MS));
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
        broken_by(&bench, reason).await;
        assert_eq!(bench.claims(), claims + 300, "it claims nothing");
        decider.stop().await;
    }
}
