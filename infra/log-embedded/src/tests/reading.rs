//! Lookups of offsets and times through index and segments, compared with a plain list.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ports::clock::SystemClock;
use ports::{EventLog, ReadError};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;

use super::disk::Disk;
use super::{HandClock, OPTIONS, open_read_only, record, unchecked};
use crate::{EmbeddedLog, Options, ScanProgress};

const TOPIC: Topic = Topic::PurchaseAttempts;
const PARTITION: Partition = Partition(1);

/// Fills a log with records of the tested partition and, in between, many of other partitions.
/// Returns the times of the tested partition's records.
async fn filled(disk: &Disk, options: &Options) -> (EmbeddedLog, Vec<TimestampMs>) {
    let clock = Arc::new(HandClock::default());
    let files = Arc::new(disk.clone());
    let checked = unchecked(clock.clone());
    let progress = ScanProgress::default();
    let log = EmbeddedLog::open_files(files, Path::new("/log"), None, options, checked, &progress);
    let log = log.unwrap();
    let mut times = Vec::new();
    for n in 0..400 {
        // Three calls with the same time, in memory and on disk; and steps back.
        let now_ms = n / 3 * 30 - if n % 7 == 0 { 25 } else { 0 };
        clock.0.store(now_ms, Relaxed);
        let some = (0..n % 4 + 1)
            .map(|_| record(n as usize))
            .collect::<Vec<_>>();
        let appended_at_ms = now_ms.max(*times.last().unwrap_or(&0));
        times.resize(times.len() + some.len(), appended_at_ms);
        log.append(TOPIC, PARTITION, some).await.unwrap();
        for _ in 0..(n % 50) / 40 * 20 {
            let other = vec![record(50), record(49)];
            log.append(Topic::StockDecisions, Partition(0), other)
                .await
                .unwrap();
        }
    }
    (log, times)
}

async fn assert_finds_all(log: &EmbeddedLog, times: &[TimestampMs]) {
    let end = times.len() as i64;
    assert_eq!(log.end(TOPIC, PARTITION).await, Ok(Offset(end)));
    for time in -20..4100 {
        let expected = times.iter().position(|appended| *appended >= time);
        let expected = expected.map_or(end, |at| at as i64);
        let found = log.offset_at(TOPIC, PARTITION, time).await;
        assert_eq!(found, Ok(Offset(expected)), "time {time}");
    }
    // The first few offsets and some of the others, since each read goes to the end.
    for from in (0..end).filter(|from| *from < 20 || from % 11 == 0) {
        let mut reader = log.read(TOPIC, PARTITION, Offset(from)).await.unwrap();
        let mut next = from;
        while next < end {
            for record in reader.next().await.unwrap() {
                assert_eq!(record.offset.0, next);
                assert_eq!(record.appended_at_ms, times[next as usize]);
                next += 1;
            }
        }
    }
}

#[tokio::test]
async fn every_offset_and_time_is_found_in_memory_and_on_disk() {
    for recent_bytes in [0, 2_000, 2_300, 2_600, 2_900, 1 << 20] {
        let disk = Disk::default();
        let options = Options {
            recent_bytes,
            ..OPTIONS
        };
        let (log, times) = filled(&disk, &options).await;
        assert_finds_all(&log, &times).await;
        assert_finds_all(&open_read_only(&disk).unwrap(), &times).await;
    }
}

#[tokio::test]
async fn a_log_being_written_is_read_up_to_a_complete_batch() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options {
        segment_bytes: 256 << 10,
        queue_bytes: 64 << 10,
        ..OPTIONS
    };
    let log = EmbeddedLog::open(dir.path(), options, unchecked(Arc::new(SystemClock)));
    let log = Arc::new(log.unwrap());
    let writing = tokio::spawn({
        let log = log.clone();
        async move {
            for n in 0.. {
                let some = vec![record(n); 40];
                if log.append(TOPIC, PARTITION, some).await.is_err() {
                    return;
                }
            }
        }
    });
    let (mut last_end, mut rounds) = (0, 0);
    let patience = std::time::Instant::now() + std::time::Duration::from_secs(60);
    // Several rounds, and as many more as it takes for the log to grow.
    while rounds < 25 || last_end <= 4_000 {
        rounds += 1;
        assert!(
            std::time::Instant::now() < patience,
            "the log does not grow: {last_end}"
        );
        let acknowledged = log.end(TOPIC, PARTITION).await.unwrap().0;
        let path = dir.path().to_owned();
        let beside = tokio::task::spawn_blocking(move || EmbeddedLog::open_read_only(&path));
        let beside = beside.await.unwrap().unwrap();
        let end = beside.end(TOPIC, PARTITION).await.unwrap().0;
        assert!(
            end >= acknowledged.max(last_end),
            "{end} is before {acknowledged}"
        );
        last_end = end;
        let mut reader = beside.read(TOPIC, PARTITION, Offset(0)).await.unwrap();
        let mut next = 0;
        let closed = loop {
            let records = match reader.next().await {
                Ok(records) => records,
                Err(error) => break error,
            };
            for found in records {
                assert_eq!(found.offset.0, next);
                assert_eq!(found.value, record((next / 40) as usize).value);
                next += 1;
            }
        };
        assert_eq!(closed, ReadError::Closed);
        assert_eq!(next, end);
    }
    log.close().unwrap();
    writing.await.unwrap();
}
