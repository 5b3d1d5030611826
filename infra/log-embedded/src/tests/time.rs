//! The times of records when the machine's clock is wrong.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ports::{CheckedClock, EventLog, NewRecord};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;

use super::disk::Disk;
use super::{HandClock, OPTIONS, open_read_only, record};
use crate::{EmbeddedLog, Options, ScanProgress};

const TOPIC: Topic = Topic::PurchaseAttempts;
const BEGIN: TimestampMs = 1_800_000_000_000;
const HOUR: i64 = 3_600_000;

/// A log on a machine whose clock shows this, and that follows jumps of a minute.
fn open_at(disk: &Disk, now_ms: TimestampMs, options: &Options) -> (EmbeddedLog, Arc<HandClock>) {
    let clock = Arc::new(HandClock::default());
    clock.0.store(now_ms, Relaxed);
    let checked = Arc::new(CheckedClock::new(clock.clone(), Duration::from_secs(60)));
    let files = Arc::new(disk.clone());
    let progress = ScanProgress::default();
    let log = EmbeddedLog::open_files(files, Path::new("/log"), None, options, checked, &progress);
    (log.unwrap(), clock)
}

async fn append(log: &EmbeddedLog, partition: u32) {
    let records: Vec<NewRecord> = vec![record(1)];
    log.append(TOPIC, Partition(partition), records)
        .await
        .unwrap();
}

async fn times(log: &EmbeddedLog, partition: u32) -> Vec<TimestampMs> {
    let end = log.end(TOPIC, Partition(partition)).await.unwrap().0;
    let reader = log.read(TOPIC, Partition(partition), Offset(0)).await;
    let mut reader = reader.unwrap();
    let mut times = Vec::new();
    while (times.len() as i64) < end {
        let records = reader.next().await.unwrap();
        times.extend(records.iter().map(|record| record.appended_at_ms));
    }
    times
}

#[tokio::test]
async fn a_jump_of_the_clock_is_in_no_record() {
    let (log, clock) = open_at(&Disk::default(), BEGIN, &OPTIONS);
    append(&log, 0).await;
    for jump in [HOUR, -HOUR, 24 * 365 * HOUR] {
        clock.0.fetch_add(jump, Relaxed);
        append(&log, 0).await;
        clock.0.fetch_sub(jump, Relaxed);
    }
    assert_eq!(times(&log, 0).await, [BEGIN; 4]);
}

#[tokio::test]
async fn a_start_with_a_clock_behind_the_log_continues_from_the_last_record() {
    let disk = Disk::default();
    let (log, _) = open_at(&disk, BEGIN + HOUR, &OPTIONS);
    append(&log, 0).await;
    drop(log);
    // The log does not know which of the two is wrong. An operator says that the clock is right.
    let (log, clock) = open_at(&disk, BEGIN, &OPTIONS);
    append(&log, 0).await;
    append(&log, 1).await;
    log.correct_clock();
    append(&log, 1).await;
    drop(log);
    clock.0.fetch_add(5, Relaxed);
    let (log, _) = open_at(&disk, BEGIN + 5, &OPTIONS);
    append(&log, 0).await;
    assert_eq!(
        times(&log, 0).await,
        [BEGIN + HOUR, BEGIN + HOUR, BEGIN + 5]
    );
    assert_eq!(times(&log, 1).await, [BEGIN + HOUR, BEGIN]);
}

/// Searches by time, in memory and on disk, over records that were ahead.
#[tokio::test]
async fn records_that_were_ahead_count_as_appended_before_the_correction() {
    let disk = Disk::default();
    let options = Options {
        recent_bytes: 1_000_000,
        ..OPTIONS
    };
    let (log, clock) = open_at(&disk, BEGIN, &options);
    for n in 0..400 {
        clock.0.store(BEGIN + n, Relaxed);
        // The clock is ahead, and an operator calls it right, for a while.
        match n {
            200 => {
                clock.0.store(BEGIN + HOUR, Relaxed);
                log.correct_clock();
            }
            201..300 => clock.0.store(BEGIN + HOUR, Relaxed),
            300 => log.correct_clock(),
            _ => {}
        }
        append(&log, 0).await;
    }
    let found = async |log: &EmbeddedLog, time: TimestampMs| {
        log.offset_at(TOPIC, Partition(0), time).await.unwrap().0
    };
    let logs = [
        log,
        open_at(&disk, BEGIN + 400, &OPTIONS).0,
        open_read_only(&disk).unwrap(),
    ];
    for (n, log) in logs.iter().enumerate() {
        let raw = times(log, 0).await;
        assert_eq!(raw[199..201], [BEGIN + 199, BEGIN + HOUR], "{n}");
        assert_eq!(raw[299..301], [BEGIN + HOUR, BEGIN + 300], "{n}");
        for time in (0..200).chain(301..402) {
            assert_eq!(found(log, BEGIN + time).await, time.min(400), "{n}");
        }
        // Those that were ahead count as appended at the time of the correction.
        assert_eq!(found(log, BEGIN + 200).await, 200, "{n}");
        assert_eq!(found(log, BEGIN + 300).await, 200, "{n}");
        assert_eq!(found(log, BEGIN + HOUR).await, 400, "{n}");
    }
}
