//! What `read`, `end`, `offset_at`, `forget` and `assignment` promise.

use std::time::Duration;

use futures::FutureExt;
use futures::future::join_all;
use ports::{Group, ReadError};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use tokio::time::timeout;

use super::Queue;
use super::subject::{PARTITIONS, Subject, read_to_end, record};

const TOPIC: Topic = Topic::PurchaseAttempts;

pub(super) async fn end_is_after_the_last(s: &mut Subject) {
    for _ in 0..10 {
        let last = s.append(1, "x").await;
        let end = s.log().end(TOPIC, Partition(1)).await.unwrap();
        assert!(end > last);
    }
    let end = s.log().end(TOPIC, Partition(1)).await;
    assert_eq!(
        s.log().end(Topic::StockDecisions, Partition(1)).await,
        Ok(Offset(0))
    );
    assert_eq!(s.log().end(TOPIC, Partition(0)).await, Ok(Offset(0)));
    s.reopen(Queue::Usual).await;
    assert_eq!(s.log().end(TOPIC, Partition(1)).await, end);
    assert!(
        s.append(1, "x").await >= end.unwrap(),
        "the next record has this offset or a higher one"
    );
}

pub(super) async fn offsets_by_time(s: &mut Subject) {
    let empty = s.log().offset_at(TOPIC, Partition(0), 0).await;
    assert_eq!(empty, Ok(Offset(0)));
    // Groups of records with the same time, and gaps in time.
    for step_ms in [0, 5, 0, 100, 0, 0, 1, 20, 0] {
        s.step(step_ms).await;
        s.append(0, "x").await;
        s.append(1, vec![0; 50_000]).await;
    }
    for _ in 0..2 {
        let log = s.log();
        let records = s.read_all(0).await;
        let end = log.end(TOPIC, Partition(0)).await.unwrap();
        let (first, last) = (&records[0], &records[records.len() - 1]);
        for time in first.appended_at_ms - 3..=last.appended_at_ms + 3 {
            let expected = records.iter().find(|record| record.appended_at_ms >= time);
            let expected = expected.map_or(end, |record| record.offset);
            assert_eq!(
                log.offset_at(TOPIC, Partition(0), time).await,
                Ok(expected),
                "{time}"
            );
        }
        assert_eq!(
            log.offset_at(TOPIC, Partition(0), i64::MIN).await,
            Ok(Offset(0))
        );
        assert_eq!(log.offset_at(TOPIC, Partition(0), i64::MAX).await, Ok(end));
        drop(log);
        s.reopen(Queue::Usual).await;
    }
}

pub(super) async fn begins_at_any_offset(s: &mut Subject) {
    // More than the embedded log caches in memory, so that some are read from disk.
    for n in 0..100 {
        let some = (0..n % 5 + 1)
            .map(|_| record(vec![n as u8; 1_000]))
            .collect();
        s.log().append(TOPIC, Partition(2), some).await.unwrap();
        s.append(0, vec![0; 500]).await;
    }
    for _ in 0..2 {
        let all = s.read_all(2).await;
        assert_eq!(all.len(), 300);
        let starts: Vec<_> = (0..all.len()).collect();
        // Several at a time, since opening a reader takes a while where the log is remote.
        for starts in starts.chunks(5) {
            let log = s.log();
            let read = |at: usize| read_to_end(&*log, TOPIC, Partition(2), all[at].offset);
            let read = join_all(starts.iter().map(|at| read(*at))).await;
            for (at, read) in starts.iter().zip(read) {
                assert_eq!(read, all[*at..]);
            }
        }
        let before_first = read_to_end(&*s.log(), TOPIC, Partition(2), Offset(-7)).await;
        assert_eq!(before_first, all);
        s.reopen(Queue::Usual).await;
    }
}

pub(super) async fn at_the_end_waits(s: &mut Subject) {
    s.append(0, "0").await;
    for topic in [TOPIC, Topic::StockDecisions] {
        // The other topic has no record yet, and ends at 0.
        let end = s.log().end(topic, Partition(0)).await.unwrap();
        let mut reader = s.log().read(topic, Partition(0), end).await.unwrap();
        assert!(
            timeout(Duration::from_millis(20), reader.next())
                .await
                .is_err(),
            "it waits"
        );
        // Another partition's records must not wake it.
        s.append(1, "other").await;
        let next = s.log().append(topic, Partition(0), vec![record("1")]).await;
        let records = timeout(Duration::from_secs(10), reader.next())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (records[0].offset, &*records[0].value),
            (next.unwrap(), &b"1"[..])
        );
        assert!(
            timeout(Duration::from_millis(20), reader.next())
                .await
                .is_err(),
            "it waits again"
        );
    }
}

/// Who names an offset beyond the end knows a record that the log does not have.
pub(super) async fn beyond_the_end_is_refused(s: &mut Subject) {
    for records in 0..3 {
        let end = s.log().end(TOPIC, Partition(0)).await.unwrap();
        for from in [end.next(), Offset(end.0 + 1_000), Offset(i64::MAX)] {
            let refused = s.log().read(TOPIC, Partition(0), from).await;
            let expected = ReadError::BeyondEnd {
                topic: TOPIC,
                partition: Partition(0),
                from,
                end,
            };
            assert_eq!(refused.err(), Some(expected), "after {records} records");
        }
        s.append(0, "x").await;
        s.reopen(Queue::Usual).await;
    }
}

pub(super) async fn dropped_call_loses_nothing(s: &mut Subject) {
    for n in 0..500 {
        s.append(0, format!("{n} {}", "x".repeat(400))).await;
    }
    // The reader reads from disk first, and then along with the appender.
    s.reopen(Queue::Usual).await;
    let log = s.log();
    let appender = tokio::spawn(async move {
        for n in 500..1_000 {
            let value = format!("{n} {}", "x".repeat(400));
            log.append(TOPIC, Partition(0), vec![record(value)])
                .await
                .unwrap();
            // So that the reader finds nothing from time to time, however fast the log is.
            if n % 10 == 0 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    });
    let mut reader = s.log().read(TOPIC, Partition(0), Offset(0)).await.unwrap();
    let (mut read, mut dropped) = (Vec::new(), 0);
    while read.len() < 1_000 {
        // Polled once and dropped; now and then the reader pauses.
        match reader.next().now_or_never() {
            Some(records) => read.extend(records.unwrap()),
            None => {
                dropped += 1;
                if dropped % 3 == 0 {
                    tokio::time::sleep(Duration::from_micros(200)).await;
                }
            }
        }
        tokio::task::yield_now().await;
    }
    appender.await.unwrap();
    assert!(dropped > 10, "only {dropped} calls were dropped");
    for (n, record) in read.iter().enumerate() {
        assert!(
            record.value.starts_with(format!("{n} ").as_bytes()),
            "record {n}"
        );
    }
}

pub(super) async fn forgetting_keeps_the_rest(s: &mut Subject) {
    for n in 0..10 {
        s.append(0, n.to_string()).await;
    }
    let all = s.read_all(0).await;
    let end = s.log().end(TOPIC, Partition(0)).await.unwrap();
    // The second call asks for less than the first, and changes nothing.
    for before in [all[7].offset, all[3].offset] {
        s.log().forget(TOPIC, Partition(0), before).await.unwrap();
    }
    for _ in 0..2 {
        let rest = s.read_all(0).await;
        assert!((3..=10).contains(&rest.len()), "{} records", rest.len());
        assert_eq!(rest, all[10 - rest.len()..]);
        assert_eq!(s.log().end(TOPIC, Partition(0)).await, Ok(end));
        s.reopen(Queue::Usual).await;
    }
    // The partition continues, up to the point where all of it is forgotten.
    let last = s.append(0, "10").await;
    assert_eq!(s.read_all(0).await.last().unwrap().offset, last);
    let end = s.log().end(TOPIC, Partition(0)).await.unwrap();
    s.log().forget(TOPIC, Partition(0), end).await.unwrap();
    // Who reads up to the end does not wait for records that are gone.
    let mut reader = s.log().read(TOPIC, Partition(0), Offset(0)).await.unwrap();
    let rest = timeout(Duration::from_secs(60), reader.next_below(end)).await;
    let rest = rest.expect("it returns").unwrap();
    assert!(rest.iter().all(|record| record.offset < end));
    let next = s.append(0, "11").await;
    assert!(next >= end);
    assert_eq!(s.read_all(0).await.last().unwrap().offset, next);
}

pub(super) async fn assignment_has_all_partitions(s: &mut Subject) {
    let log = s.log();
    assert_eq!(log.partitions(), PARTITIONS);
    for group in [Group::Deciders, Group::Projectors] {
        let mut assigned = log.assignment(group);
        let all = (0..PARTITIONS).map(Partition).collect();
        let assigned = timeout(
            Duration::from_secs(30),
            assigned.wait_for(|set| *set == all),
        )
        .await;
        assert!(
            assigned.is_ok_and(|set| set.is_ok()),
            "the only member has all partitions"
        );
    }
}
