//! A decider that starts recovers its predecessors' decisions, with checkpoints or without.

use std::time::Duration;

use kit::{Faults, FaultyLog};
use ports::{EventLog, LogRecord};
use schemas::decision::Event;
use schemas::ids::Offset;
use schemas::snapshot::SnapshotRecord;
use schemas::topics::Topic;

use crate::support::{BEGIN_MS, Bench, PARTITION, Shoppers, attempt, sale, substance};

async fn decide_all(bench: &Bench, checkpoint_every: u64) {
    let decider = bench.start("one", bench.log.clone(), checkpoint_every);
    bench.all_answered().await;
    // A checkpoint is written in the background.
    tokio::time::sleep(Duration::from_secs(2)).await;
    decider.stop().await;
}

fn fill(bench: &Bench, shoppers: &mut Shoppers, commands: usize) {
    for _ in 0..commands {
        bench.put(shoppers.next(BEGIN_MS));
    }
}

#[tokio::test(start_paused = true)]
async fn restarts_change_no_decision() {
    for seed in 0..20 {
        let bench = Bench::new();
        let mut shoppers = Shoppers::new(seed);
        for _ in 0..6 {
            fill(&bench, &mut shoppers, 100);
            decide_all(&bench, 30).await;
        }
        assert!(bench.log.records(Topic::ProductSnapshots, PARTITION).len() > 10);
        let counting: Vec<_> = bench.counting().iter().map(substance).collect();
        let undisturbed: Vec<_> = bench.undisturbed().iter().map(substance).collect();
        assert_eq!(counting, undisturbed, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_incomplete_checkpoint_is_skipped() {
    let bench = Bench::new();
    let mut shoppers = Shoppers::new(7);
    fill(&bench, &mut shoppers, 200);
    decide_all(&bench, 50).await;
    // The start of another checkpoint, without its completion.
    let whole = bench.log.records(Topic::ProductSnapshots, PARTITION);
    let last = bench
        .codec
        .decode_snapshot(&whole.last().unwrap().value)
        .unwrap();
    assert!(
        last.part.is_none(),
        "the last record completes a checkpoint"
    );
    let mut part = bench
        .codec
        .decode_snapshot(&whole[whole.len() - 2].value)
        .unwrap();
    assert!(part.part.is_some());
    part.previous = whole.last().unwrap().offset;
    let value = bench.codec.encode_snapshot(&part).into();
    let record = ports::NewRecord {
        value,
        ..Default::default()
    };
    bench
        .log
        .put(Topic::ProductSnapshots, PARTITION, vec![record]);

    fill(&bench, &mut shoppers, 100);
    decide_all(&bench, 1_000_000).await;
    let counting: Vec<_> = bench.counting().iter().map(substance).collect();
    let undisturbed: Vec<_> = bench.undisturbed().iter().map(substance).collect();
    assert_eq!(counting, undisturbed);
}

/// As by a retention that somebody set: no checkpoint is waited for.
#[tokio::test(start_paused = true)]
async fn checkpoints_that_were_deleted_are_done_without() {
    for keep in [0, 1] {
        let bench = Bench::new();
        let mut shoppers = Shoppers::new(5);
        fill(&bench, &mut shoppers, 200);
        decide_all(&bench, 50).await;
        let snapshots = bench.log.records(Topic::ProductSnapshots, PARTITION);
        assert!(snapshots.len() > keep + 1);
        for record in &snapshots[keep..] {
            let topic = Topic::ProductSnapshots;
            bench.log.delete(topic, PARTITION, record.offset);
        }
        fill(&bench, &mut shoppers, 100);
        decide_all(&bench, 1_000_000).await;
        let counting: Vec<_> = bench.counting().iter().map(substance).collect();
        let undisturbed: Vec<_> = bench.undisturbed().iter().map(substance).collect();
        assert_eq!(counting, undisturbed, "{keep} are kept");
    }
}

#[tokio::test(start_paused = true)]
async fn another_deciders_records_within_a_checkpoint_are_skipped() {
    let bench = Bench::new();
    let mut shoppers = Shoppers::new(11);
    fill(&bench, &mut shoppers, 200);
    decide_all(&bench, 50).await;
    let topic = Topic::ProductSnapshots;
    let whole: Vec<SnapshotRecord> = bench
        .log
        .records(topic, PARTITION)
        .iter()
        .map(|record| bench.codec.decode_snapshot(&record.value).unwrap())
        .collect();
    // The last checkpoint again, with a record of an older one by a superseded decider among its
    // own.
    let (completing, parts) = whole.split_last().unwrap();
    let mut stray = whole[0].clone();
    stray.claim = Offset(-1);
    let parts: Vec<_> = parts
        .iter()
        .filter(|part| part.covers == completing.covers)
        .collect();
    let put = |record: &SnapshotRecord| {
        let value = bench.codec.encode_snapshot(record).into();
        let record = ports::NewRecord {
            value,
            ..Default::default()
        };
        bench.log.put(topic, PARTITION, vec![record])
    };
    let first = put(parts[0]);
    put(&stray);
    for part in &parts[1..] {
        put(part);
    }
    put(&SnapshotRecord {
        first,
        ..completing.clone()
    });

    fill(&bench, &mut shoppers, 300);
    decide_all(&bench, 1_000_000).await;
    let counting: Vec<_> = bench.counting().iter().map(substance).collect();
    let undisturbed: Vec<_> = bench.undisturbed().iter().map(substance).collect();
    assert_eq!(counting, undisturbed);
}

/// Old checkpoints are deleted, and a superseded decider may continue one that is.
#[tokio::test(start_paused = true)]
async fn records_of_a_deleted_checkpoint_are_skipped() {
    let topic = Topic::ProductSnapshots;
    for completes in [true, false] {
        let bench = Bench::new();
        let mut shoppers = Shoppers::new(13);
        fill(&bench, &mut shoppers, 300);
        decide_all(&bench, 50).await;
        let mut reader = bench.log.read(topic, PARTITION, Offset(0)).await.unwrap();
        let lowest = reader.next().await.unwrap()[0].offset;
        assert!(lowest.0 > 0, "older checkpoints were forgotten");
        let records = bench.log.records(topic, PARTITION);
        let decode = |record: &LogRecord| bench.codec.decode_snapshot(&record.value).unwrap();
        let stray = match completes {
            true => SnapshotRecord {
                first: Offset(0),
                ..decode(records.last().unwrap())
            },
            false => SnapshotRecord {
                previous: Offset(0),
                ..decode(&records[records.len() - 2])
            },
        };
        assert_eq!(stray.part.is_none(), completes);
        let value = bench.codec.encode_snapshot(&stray).into();
        let record = ports::NewRecord {
            value,
            ..Default::default()
        };
        bench.log.put(topic, PARTITION, vec![record]);

        fill(&bench, &mut shoppers, 100);
        decide_all(&bench, 1_000_000).await;
        let counting: Vec<_> = bench.counting().iter().map(substance).collect();
        let undisturbed: Vec<_> = bench.undisturbed().iter().map(substance).collect();
        assert_eq!(counting, undisturbed, "completes: {completes}");
    }
}

#[tokio::test(start_paused = true)]
async fn time_passes_when_nothing_arrives() {
    let bench = Bench::new();
    let decider = bench.start("one", bench.log.clone(), 1_000);
    bench.put(sale("cap", 1, Some(5_000)));
    bench.put(attempt("cap", "first"));
    bench.put(attempt("cap", "second"));
    tokio::time::sleep(Duration::from_millis(4_900)).await;
    let events = |bench: &Bench| -> Vec<Event> {
        bench
            .counting()
            .into_iter()
            .flat_map(|decision| decision.events)
            .collect()
    };
    assert!(
        !events(&bench)
            .iter()
            .any(|event| matches!(event, Event::OrderReleased(_)))
    );
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(matches!(
        events(&bench).last(),
        Some(Event::OrderReleased(_))
    ));
    bench.put(attempt("cap", "third"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(matches!(
        events(&bench).last(),
        Some(Event::OrderAccepted(_))
    ));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(matches!(events(&bench).last(), Some(Event::SaleClosed)));
    // With nothing due, `purchase-attempts` does not grow.
    let before = bench.log.records(Topic::PurchaseAttempts, PARTITION).len();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(
        bench.log.records(Topic::PurchaseAttempts, PARTITION).len(),
        before
    );
    decider.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_versions_record_stops_the_partition_and_shows_in_its_health() {
    let bench = Bench::new();
    let decider = bench.start("one", bench.log.clone(), 1_000);
    bench.put(sale("cap", 1, None));
    let record = ports::NewRecord {
        value: b"\0\0\0\0\x63newer".as_slice().into(),
        ..Default::default()
    };
    bench
        .log
        .put(Topic::PurchaseAttempts, PARTITION, vec![record]);
    bench.put(attempt("cap", "first"));
    tokio::time::sleep(Duration::from_secs(3)).await;
    let report = bench.health.report().remove(0);
    assert!(report.ready && report.degraded, "{report:?}");
    assert!(
        report.detail.contains("record 1 of purchase-attempts"),
        "{}",
        report.detail
    );
    // No later record is decided, because the unreadable one may have been an attempt.
    assert!(
        bench
            .counting()
            .iter()
            .all(|decision| decision.answers.0 < 1)
    );
    decider.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_stopping_decider_appends_what_it_decided() {
    let slow = Faults {
        slow_before: 1_000,
        longest: Duration::from_secs(2),
        ..Faults::default()
    };
    let bench = Bench::new();
    bench.put(sale("cap", 5, None));
    let line = FaultyLog::new(bench.log.clone(), slow, 1);
    let decider = bench.start("one", std::sync::Arc::new(line), 1_000);
    for n in 0..50 {
        bench.put(attempt("cap", &format!("buyer-{n}")));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    decider.stop().await;
    let counting = bench.counting();
    assert!(!counting.is_empty());
    let counting: Vec<_> = counting.iter().map(substance).collect();
    let undisturbed: Vec<_> = bench.undisturbed().iter().map(substance).collect();
    assert_eq!(counting, undisturbed[..counting.len()]);
}
