//! A full append queue, or a log that cannot be reached: the decider waits, keeps its state, and claims nothing anew.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kit::{Faults, FaultyLog, OnAppend, QueueBound};
use ports::AppendError;
use schemas::decision::Event;
use schemas::topics::Topic;

use crate::support::{BEGIN_MS, Bench, PARTITION, Shoppers, attempt, sale, substance};

/// The smallest queue that the settings allow.
const SMALLEST_QUEUE: QueueBound = QueueBound {
    records: 1,
    bytes: 1_024 << 10,
};

fn assert_decided_as_if_undisturbed(bench: &Bench) {
    let counting: Vec<_> = bench.counting().iter().map(substance).collect();
    let undisturbed: Vec<_> = bench.undisturbed().iter().map(substance).collect();
    assert_eq!(counting, undisturbed);
}

#[tokio::test(start_paused = true)]
async fn a_decider_waits_while_the_queue_is_full_and_keeps_its_claim() {
    waits_and_keeps_its_claim(AppendError::Full).await;
}

#[tokio::test(start_paused = true)]
async fn a_decider_waits_while_the_log_cannot_be_reached_and_keeps_its_claim() {
    waits_and_keeps_its_claim(AppendError::Unavailable("no broker answers".into())).await;
}

async fn waits_and_keeps_its_claim(refusal: AppendError) {
    let bench = Bench::new();
    // So many checkpoints that one is being written most of the time.
    let decider = bench.start("one", bench.log.clone(), 10);
    let mut shoppers = Shoppers::new(3);
    bench.put(shoppers.next(BEGIN_MS));
    bench.all_answered().await;
    for _ in 0..5 {
        for _ in 0..100 {
            bench.put(shoppers.next(BEGIN_MS));
        }
        bench.log.on_append(OnAppend::Fail(refusal.clone()));
        for _ in 0..100 {
            bench.put(shoppers.next(BEGIN_MS));
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert!(bench.health.is_ready(), "{:?}", bench.health.report());
        assert!(bench.health.report()[0].degraded);
        // After a while nothing is decided any more, which a restart would not mend.
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert!(!bench.health.is_ready(), "{:?}", bench.health.report());
        assert!(bench.health.is_alive(), "{:?}", bench.health.report());
        bench.log.on_append(OnAppend::Take);
        bench.all_answered().await;
    }
    assert_eq!(bench.claims(), 1);
    decider.stop().await;
    assert_decided_as_if_undisturbed(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_decider_waits_for_room_also_before_it_claims_and_when_time_passes() {
    let bench = Bench::new();
    bench.put(sale("cap", 1, Some(5_000)));
    bench.put(attempt("cap", "first"));
    bench.log.on_append(OnAppend::Fail(AppendError::Full));
    let decider = bench.start("one", bench.log.clone(), 1_000);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(bench.claims(), 0);
    let report = bench.health.report().remove(0);
    assert!(!report.ready, "{report:?}");
    assert!(report.detail.contains("append queue"), "{report:?}");
    bench.log.on_append(OnAppend::Take);
    bench.all_answered().await;
    // The hold ends while the queue is full.
    bench.log.on_append(OnAppend::Fail(AppendError::Full));
    tokio::time::sleep(Duration::from_secs(10)).await;
    let report = bench.health.report().remove(0);
    assert!(report.degraded, "{report:?}");
    assert!(report.detail.contains("append queue"), "{report:?}");
    bench.log.on_append(OnAppend::Take);
    tokio::time::sleep(Duration::from_secs(2)).await;
    bench.all_answered().await;
    let mut events = bench
        .counting()
        .into_iter()
        .flat_map(|decision| decision.events);
    assert!(events.any(|event| matches!(event, Event::OrderReleased(_))));
    assert_eq!(bench.claims(), 1);
    let report = bench.health.report().remove(0);
    assert!(!report.degraded, "{report:?}");
    decider.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_backlog_is_decided_through_the_smallest_queue() {
    const BACKLOG: usize = 6_000;
    let bench = Bench::new();
    bench.put(sale("cap", 100, None));
    for n in 0..BACKLOG {
        // Each record carries a trace, as from a client that sends one.
        let mut record = bench.record(attempt("cap", &format!("buyer-{n:055}")));
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        record.headers = vec![(
            "traceparent".to_owned(),
            Bytes::from_static(trace.as_bytes()),
        )];
        bench
            .log
            .put(Topic::PurchaseAttempts, PARTITION, vec![record]);
    }
    let slow = Faults {
        slow_before: 1_000,
        longest: Duration::from_millis(40),
        ..Faults::default()
    };
    let line = FaultyLog::new(bench.log.clone(), slow, 1).with_queue(SMALLEST_QUEUE);
    let decider = bench.start("one", Arc::new(line), 1_000);
    bench.all_answered().await;
    assert_eq!(bench.claims(), 1);
    decider.stop().await;
    assert_decided_as_if_undisturbed(&bench);
}

#[tokio::test(start_paused = true)]
async fn a_decider_can_be_stopped_while_the_queue_is_full() {
    for (frees_after, finishes) in [(Some(Duration::from_secs(1)), true), (None, false)] {
        let bench = Bench::new();
        let decider = bench.start("one", bench.log.clone(), 1_000);
        bench.put(sale("cap", 5, None));
        bench.all_answered().await;
        bench.log.on_append(OnAppend::Fail(AppendError::Full));
        for n in 0..200 {
            bench.put(attempt("cap", &format!("buyer-{n}")));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let stopping = tokio::spawn(decider.stop());
        if let Some(frees_after) = frees_after {
            tokio::time::sleep(frees_after).await;
            bench.log.on_append(OnAppend::Take);
        }
        // It appends what it has decided if there is room in time, else it stops without.
        stopping.await.unwrap();
        assert_eq!(bench.counting().len() == 201, finishes);
        bench.log.on_append(OnAppend::Take);
        let next = bench.start("two", bench.log.clone(), 1_000);
        bench.all_answered().await;
        next.stop().await;
        assert_decided_as_if_undisturbed(&bench);
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_is_lost_or_doubled_when_the_queue_is_often_full() {
    for seed in 0..20 {
        let often_full = Faults {
            full: 400,
            slow_before: 300,
            slow_after: 300,
            longest: Duration::from_millis(200),
            ..Faults::default()
        };
        let bench = Bench::new();
        let line = FaultyLog::new(bench.log.clone(), often_full, seed);
        let decider = bench.start("one", Arc::new(line), 40);
        let mut shoppers = Shoppers::new(seed);
        for n in 0..300 {
            bench.put(shoppers.next(BEGIN_MS + 10 * n));
            tokio::time::sleep(Duration::from_millis(shoppers.pause_ms())).await;
        }
        bench.all_answered().await;
        assert_eq!(bench.claims(), 1, "seed {seed}");
        decider.stop().await;
        assert_decided_as_if_undisturbed(&bench);
    }
}
