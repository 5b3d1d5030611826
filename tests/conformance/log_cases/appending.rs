//! What `append` promises.

use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::join_all;
use ports::clock::SystemClock;
use ports::event_log::{MAX_HEADER_BYTES, MAX_HEADERS, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use ports::{AppendError, Clock, EventLog, LogRecord, NewRecord, ReadError};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;

use super::Queue;
use super::subject::{PARTITIONS, Subject, read_to_end, record};

const TOPIC: Topic = Topic::PurchaseAttempts;

fn values(records: &[LogRecord]) -> Vec<&str> {
    records
        .iter()
        .map(|record| std::str::from_utf8(&record.value).unwrap())
        .collect()
}

pub(super) async fn record_reads_as_appended(s: &mut Subject) {
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    let header = |name: &str, value| (name.to_owned(), bytes(value));
    let records = vec![
        NewRecord {
            key: bytes("key"),
            value: bytes("value"),
            headers: vec![header("a", "1"), header("", ""), header("a", "2")],
        },
        NewRecord::default(),
        NewRecord {
            key: bytes("only a key"),
            ..NewRecord::default()
        },
        NewRecord {
            headers: vec![header("only", "a header")],
            ..NewRecord::default()
        },
        NewRecord {
            value: Bytes::from_static(&[0, 255, 10, 0]),
            ..NewRecord::default()
        },
    ];
    s.log()
        .append(TOPIC, Partition(2), records.clone())
        .await
        .unwrap();
    for _ in 0..2 {
        let read = s.read_all(2).await;
        let read = read.into_iter().map(|record| NewRecord {
            key: record.key,
            value: record.value,
            headers: record.headers,
        });
        assert_eq!(read.collect::<Vec<_>>(), records);
        s.reopen(Queue::Usual).await;
    }
}

pub(super) async fn each_keeps_its_order(s: &mut Subject) {
    let log = s.log();
    let name = |topic, partition, n| format!("{topic} {partition} {n}");
    for n in 0..30 {
        for (topic, partition) in all_partitions() {
            let records = (0..3).map(|part| record(name(topic, partition, n * 3 + part)));
            let last = log
                .append(topic, partition, records.collect())
                .await
                .unwrap();
            let read = read_to_end(&*log, topic, partition, last).await;
            assert_eq!(values(&read), [name(topic, partition, n * 3 + 2)]);
        }
    }
    drop(log);
    for _ in 0..2 {
        for (topic, partition) in all_partitions() {
            let read = read_to_end(&*s.log(), topic, partition, Offset(0)).await;
            let expected: Vec<_> = (0..90).map(|n| name(topic, partition, n)).collect();
            assert_eq!(values(&read), expected);
        }
        s.reopen(Queue::Usual).await;
    }
}

fn all_partitions() -> impl Iterator<Item = (Topic, Partition)> {
    (0..PARTITIONS).flat_map(|p| Topic::ALL.map(|topic| (topic, Partition(p))))
}

pub(super) async fn calls_keep_their_order(s: &mut Subject) {
    let log = s.log();
    let mut calls = Vec::new();
    for n in 0..500 {
        let mut call = log.append(TOPIC, Partition(1), vec![record(n.to_string())]);
        // Polled once before the next call begins.
        match (&mut call).now_or_never() {
            Some(appended) => drop(appended.unwrap()),
            None => calls.push(call),
        }
    }
    for appended in join_all(calls).await {
        appended.unwrap();
    }
    let expected: Vec<_> = (0..500).map(|n| n.to_string()).collect();
    assert_eq!(values(&s.read_all(1).await), expected);
}

pub(super) async fn many_append_while_others_read(s: &mut Subject) {
    const APPENDERS: usize = 200;
    const EACH: usize = 50;
    let appenders = (0..APPENDERS).map(|appender| {
        let log = s.log();
        tokio::spawn(async move {
            let partition = Partition(appender as u32 % PARTITIONS);
            let mut acknowledged = Vec::new();
            for n in 0..EACH {
                let value = format!("{appender}:{n}");
                let appended = log
                    .append(TOPIC, partition, vec![record(value.clone())])
                    .await;
                acknowledged.push((partition, appended.unwrap(), value));
                if n % 10 == 9 {
                    // Ok promises that every reader returns the record, also one that begins now.
                    let mut reader = log.read(TOPIC, partition, acknowledged[n].1).await.unwrap();
                    assert_eq!(reader.next().await.unwrap()[0].value, acknowledged[n].2);
                }
            }
            acknowledged
        })
    });
    let appenders: Vec<_> = appenders.collect();
    let readers = (0..PARTITIONS).map(|partition| {
        tokio::spawn(read_along(
            s.log(),
            Partition(partition),
            APPENDERS * EACH / 4,
        ))
    });
    let readers: Vec<_> = readers.collect();

    let mut acknowledged = Vec::new();
    for appender in appenders {
        acknowledged.extend(appender.await.unwrap());
    }
    let mut read_along = Vec::new();
    for reader in readers {
        read_along.push(reader.await.unwrap());
    }
    for again in [false, true] {
        if again {
            s.reopen(Queue::Usual).await;
        }
        for partition in 0..PARTITIONS {
            let records = s.read_all(partition).await;
            assert_eq!(
                records, read_along[partition as usize],
                "two readers return the same records"
            );
            assert_appenders_in_order(&records);
            for (_, offset, value) in acknowledged.iter().filter(|a| a.0.0 == partition) {
                let at = records.binary_search_by_key(offset, |record| record.offset);
                let at = at.unwrap_or_else(|_| panic!("{value} at {offset} was acknowledged"));
                assert_eq!(records[at].value, *value);
            }
        }
    }
}

/// Reads this many records from the first on, while they are appended.
async fn read_along(
    log: Arc<dyn EventLog>,
    partition: Partition,
    records: usize,
) -> Vec<LogRecord> {
    let mut reader = log.read(TOPIC, partition, Offset(0)).await.unwrap();
    let mut read = Vec::new();
    while read.len() < records {
        read.extend(reader.next().await.unwrap());
    }
    assert_eq!(
        read.len(),
        records,
        "there are no more records than were appended"
    );
    read
}

/// Each appender waited for its previous record, so its records are in its order.
fn assert_appenders_in_order(records: &[LogRecord]) {
    let mut next = std::collections::HashMap::new();
    for value in values(records) {
        let (appender, n) = value.split_once(':').unwrap();
        let next: &mut usize = next.entry(appender.to_owned()).or_default();
        assert_eq!(n.parse(), Ok(*next), "appender {appender}");
        *next += 1;
    }
}

pub(super) async fn times_never_fall(s: &mut Subject) {
    for step_ms in [0, 10, -5_000, 1, 6_000, -1, 0, -100_000] {
        // Shorter steps where the time is really waited for.
        let step_ms = if s.adapter.uses_our_clock {
            step_ms
        } else {
            step_ms % 10
        };
        s.step(step_ms).await;
        s.append(0, "x").await;
    }
    // Nor may they fall over a restart while the clock is behind.
    s.reopen(Queue::Usual).await;
    s.append(0, "x").await;
    s.append(3, "x").await;
    // `read_to_end` checks that they do not fall.
    let (times, other) = (times(s, 0).await, times(s, 3).await);
    if s.adapter.uses_our_clock {
        let times: Vec<_> = times.iter().map(|time| time - 1_000_000).collect();
        assert_eq!(times, [0, 10, 10, 10, 1_011, 1_011, 1_011, 1_011, 1_011]);
        let own = "each partition has a time of its own";
        assert_eq!(other, [1_000_000 - 98_990], "{own}");
    } else {
        // The log runs on this machine.
        let now = SystemClock.now_ms();
        assert_eq!((times.len(), other.len()), (9, 1));
        for time in times.iter().chain(&other) {
            assert!(
                (now - 120_000..=now).contains(time),
                "{time} is not before {now}"
            );
        }
    }
}

pub(super) async fn corrected_clock_stamps_true_times(s: &mut Subject) {
    // The clock is an hour ahead while the first records come, and is set right.
    let hour_ms = if s.adapter.uses_our_clock {
        3_600_000
    } else {
        0
    };
    s.step(hour_ms).await;
    s.append(0, "ahead").await;
    s.append(3, "ahead").await;
    s.step(-hour_ms).await;
    s.append(0, "not yet corrected").await;
    s.log().correct_clock();
    s.append(0, "corrected").await;
    s.step(10).await;
    s.append(1, "corrected").await;
    if s.adapter.outlives_process {
        s.reopen(Queue::Usual).await;
    }
    // The first record after the correction was another partition's.
    s.append(3, "corrected").await;
    s.step(-5).await;
    s.append(3, "times do not fall again").await;
    let mut times = Vec::new();
    for partition in [0, 1, 3] {
        let end = s.log().end(TOPIC, Partition(partition)).await.unwrap();
        let mut reader = s
            .log()
            .read(TOPIC, Partition(partition), Offset(0))
            .await
            .unwrap();
        let mut records = Vec::new();
        while records
            .last()
            .is_none_or(|last: &LogRecord| last.offset.next() < end)
        {
            records.extend(reader.next().await.unwrap());
        }
        times.push(
            records
                .iter()
                .map(|record| record.appended_at_ms)
                .collect::<Vec<_>>(),
        );
        // Both a time before the correction and one after it are found.
        let log = s.log();
        let last = records.last().unwrap();
        let before = log.offset_at(TOPIC, Partition(partition), 0).await;
        assert_eq!(before, Ok(records[0].offset));
        let found = log.offset_at(TOPIC, Partition(partition), last.appended_at_ms);
        assert!(found.await.unwrap() <= last.offset);
    }
    if s.adapter.uses_our_clock {
        let ahead = 1_000_000 + hour_ms;
        assert_eq!(times[0], [ahead, ahead, 1_000_000]);
        assert_eq!(times[1], [1_000_010]);
        assert_eq!(times[2], [ahead, 1_000_010, 1_000_010]);
    }
}

/// When the records of a partition were appended.
async fn times(s: &Subject, partition: u32) -> Vec<TimestampMs> {
    let records = s.read_all(partition).await;
    records.iter().map(|record| record.appended_at_ms).collect()
}

pub(super) async fn too_large_is_refused(s: &mut Subject) {
    let bytes = |count| Bytes::from(vec![b'x'; count]);
    let header = |name, value| ("n".repeat(name), bytes(value));
    let largest = NewRecord {
        key: bytes(MAX_KEY_BYTES),
        value: bytes(MAX_VALUE_BYTES),
        headers: vec![header(MAX_HEADER_BYTES, MAX_HEADER_BYTES); MAX_HEADERS],
    };
    let too_large = [
        NewRecord {
            value: bytes(MAX_VALUE_BYTES + 1),
            ..NewRecord::default()
        },
        NewRecord {
            key: bytes(MAX_KEY_BYTES + 1),
            ..NewRecord::default()
        },
        NewRecord {
            headers: vec![header(MAX_HEADER_BYTES + 1, 0)],
            ..NewRecord::default()
        },
        NewRecord {
            headers: vec![header(0, MAX_HEADER_BYTES + 1)],
            ..NewRecord::default()
        },
        NewRecord {
            headers: vec![header(1, 1); MAX_HEADERS + 1],
            ..NewRecord::default()
        },
    ];
    let log = s.log();
    for record in too_large {
        let call = vec![NewRecord::default(), record];
        let refused = log.append(TOPIC, Partition(0), call).await;
        assert!(
            matches!(refused, Err(AppendError::TooLarge { .. })),
            "{refused:?}"
        );
    }
    assert_eq!(
        log.end(TOPIC, Partition(0)).await,
        Ok(Offset(0)),
        "nothing was appended"
    );
    log.append(TOPIC, Partition(0), vec![largest.clone()])
        .await
        .unwrap();
    drop(log);
    s.reopen(Queue::Usual).await;
    let read = s.read_all(0).await;
    assert_eq!(
        (&read[0].key, &read[0].value),
        (&largest.key, &largest.value)
    );
    assert_eq!(read[0].headers, largest.headers);
}

pub(super) async fn full_queue_refuses(s: &mut Subject) {
    s.reopen(Queue::Short).await;
    let log = s.log();
    let calls = (0..2_000).map(|n| log.append(TOPIC, Partition(0), vec![record(n.to_string())]));
    let (mut taken, mut refused) = (Vec::new(), 0);
    for (n, appended) in join_all(calls).await.into_iter().enumerate() {
        match appended {
            Ok(offset) => taken.push((offset, n.to_string())),
            Err(AppendError::Full) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(
        (refused > 0) == s.adapter.has_queue && !taken.is_empty(),
        "{refused} refused, {} taken",
        taken.len()
    );
    // Only the accepted records were appended, and there is room again.
    let read = s.read_all(0).await;
    let read = read
        .iter()
        .map(|r| (r.offset, String::from_utf8(r.value.to_vec()).unwrap()));
    assert_eq!(read.collect::<Vec<_>>(), taken);
    let many = vec![NewRecord::default(); 50];
    log.append(TOPIC, Partition(0), many)
        .await
        .expect("one call of many records is taken");
}

pub(super) async fn continues_at_its_end(s: &mut Subject) {
    let mut offsets = Vec::new();
    for round in 0..5 {
        for n in 0..20 {
            offsets.push(s.append(0, format!("{round}:{n}")).await);
        }
        s.reopen(Queue::Usual).await;
        let read = s.read_all(0).await;
        assert_eq!(
            read.iter().map(|record| record.offset).collect::<Vec<_>>(),
            offsets
        );
        let expected = (0..=round).flat_map(|r| (0..20).map(move |n| format!("{r}:{n}")));
        assert_eq!(values(&read), expected.collect::<Vec<_>>());
    }
    assert!(
        offsets.is_sorted_by(|one, next| one < next),
        "offsets rise over restarts"
    );
}

pub(super) async fn unknown_partition_is_refused(s: &mut Subject) {
    let log = s.log();
    let partition = Partition(PARTITIONS);
    let appended = log.append(TOPIC, partition, vec![record("x")]).await;
    assert!(
        matches!(appended, Err(AppendError::Stopped(_))),
        "{appended:?}"
    );
    let read = log.read(TOPIC, partition, Offset(0)).await.err();
    let end = log.end(TOPIC, partition).await.err();
    let offset = log.offset_at(TOPIC, partition, 0).await.err();
    for error in [read, end, offset] {
        assert!(
            matches!(error, Some(ReadError::Unavailable(_))),
            "{error:?}"
        );
    }
}
