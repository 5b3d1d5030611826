//! Histories of the real decider over a failing log, with random commands.

use std::sync::Arc;
use std::time::Duration;

use audit::report::ReadModels;
use kit::{Faults, FaultyLog, MemoryStore};
use ports::{EventLog, ReadStore};
use projector::run::{self, Projector};
use schemas::topics::Topic;
use tokio_util::sync::CancellationToken;

use crate::forge::audited;
use crate::support::{Bench, PARTITION, Shoppers};

const FAULTS: Faults = Faults {
    slow_before: 100,
    slow_after: 100,
    lost: 20,
    unacknowledged: 20,
    doubled: 40,
    slow_read: 50,
    failed_read: 5,
    longest: Duration::from_millis(2_000),
    full: 0,
};

#[tokio::test(start_paused = true)]
async fn the_audit_passes_for_deciders_over_a_failing_log() {
    let mut dropped = 0;
    for seed in 0..20 {
        let bench = Bench::new();
        let mut shoppers = Shoppers::new(seed);
        let connection = |of: u64| -> Arc<dyn EventLog> {
            Arc::new(FaultyLog::new(bench.log.clone(), FAULTS, seed * 10 + of))
        };
        // Two at once, so that their claims alternate.
        let first = bench.start("first", connection(1), 50);
        let second = bench.start("second", connection(2), 50);
        for _ in 0..400 {
            bench.put(shoppers.next(kit_now(&bench)));
            tokio::time::sleep(Duration::from_millis(shoppers.pause_ms())).await;
        }
        first.stop().await;
        second.stop().await;
        let last = bench.start("last", bench.log.clone(), 50);
        bench.all_answered().await;
        last.stop().await;

        let store = Arc::new(MemoryStore::default());
        project(&bench, store.clone()).await;
        let report = audited(bench.log.clone(), Some(store)).await;
        assert_eq!(report.violation, None, "seed {seed}");
        assert!(
            matches!(report.read_models, ReadModels::Equal { .. }),
            "seed {seed}"
        );
        let of = &report.partitions[0];
        assert_eq!((of.undecided, of.not_applied), (0, 0), "seed {seed}");
        assert!(of.decisions >= 400, "seed {seed}: {of:?}");
        dropped += of.dropped;
    }
    assert!(
        dropped > 0,
        "no run dropped a decision: the faults had no effect"
    );
}

fn kit_now(bench: &Bench) -> i64 {
    use ports::Clock;
    bench.clock.now_ms()
}

/// Runs the real projector until everything is projected.
async fn project(bench: &Bench, store: Arc<MemoryStore>) {
    let projector = Projector {
        log: bench.log.clone(),
        store: store.clone(),
        codec: bench.codec.clone(),
        health: bench.health.clone(),
    };
    let stop = CancellationToken::new();
    let running = tokio::spawn(run::run(projector, stop.clone()));
    let end = bench
        .log
        .end(Topic::StockDecisions, PARTITION)
        .await
        .unwrap();
    let done = async {
        while store
            .progress()
            .await
            .unwrap()
            .get(&PARTITION)
            .is_none_or(|at| at.next < end)
        {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), done)
        .await
        .expect("it is projected");
    stop.cancel();
    running.await.unwrap();
}
