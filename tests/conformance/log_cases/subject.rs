//! The log under test, and what the cases do with it again and again.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use ports::{Clock, EventLog, LogRecord, NewRecord};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tempfile::TempDir;

use super::{Adapter, Opened, Queue};

/// Partitions of every topic.
pub(super) const PARTITIONS: u32 = 4;

/// A log in a place of its own.
pub(super) struct Subject {
    pub(super) adapter: &'static Adapter,
    pub(super) place: TempDir,
    clock: Arc<HandClock>,
    /// None while it is closed.
    opened: Option<Opened>,
}

/// A clock that stands still between a case's steps, so that times can be foretold.
struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now_ms(&self) -> TimestampMs {
        self.0.load(Relaxed)
    }
}

impl Subject {
    pub(super) async fn new(adapter: &'static Adapter) -> Self {
        let mut subject = Self {
            adapter,
            place: tempfile::tempdir().unwrap(),
            clock: Arc::new(HandClock(AtomicI64::new(1_000_000))),
            opened: None,
        };
        subject.reopen(Queue::Usual).await;
        subject
    }

    pub(super) fn log(&self) -> Arc<dyn EventLog> {
        self.opened.as_ref().expect("it is open").log.clone()
    }

    /// Lets time pass: steps the log's clock, forth or back, or waits when that is not ours.
    pub(super) async fn step(&self, by_ms: i64) {
        if self.adapter.has_our_clock {
            self.clock.0.fetch_add(by_ms, Relaxed);
        } else {
            tokio::time::sleep(Duration::from_millis(by_ms.max(0) as u64)).await;
        }
    }

    /// Closes the log, of which no other handle is left.
    pub(super) async fn close(&mut self) {
        let Opened { log, to_close } = self.opened.take().expect("it is open");
        assert_eq!(
            Arc::strong_count(&log),
            1 + usize::from(to_close.is_some()),
            "a case keeps a handle of a log it closes"
        );
        if let Some(log) = to_close {
            log.close().await;
        }
    }

    /// Closes the log if it is open, and opens it again.
    pub(super) async fn reopen(&mut self, queue: Queue) {
        if self.opened.is_some() {
            self.close().await;
        }
        let place = self.place.path();
        self.opened = Some((self.adapter.open)(place, self.clock.clone(), queue).await);
    }

    /// Appends one record with this value to a partition of log 1.
    pub(super) async fn append(&self, partition: u32, value: impl Into<Bytes>) -> Offset {
        let (log, partition) = (self.log(), Partition(partition));
        let appended = log.append(Topic::PurchaseAttempts, partition, vec![record(value)]);
        appended.await.unwrap()
    }

    /// All records of a partition of log 1.
    pub(super) async fn read_all(&self, partition: u32) -> Vec<LogRecord> {
        read_to_end(
            &*self.log(),
            Topic::PurchaseAttempts,
            Partition(partition),
            Offset(0),
        )
        .await
    }
}

pub(super) fn record(value: impl Into<Bytes>) -> NewRecord {
    NewRecord {
        value: value.into(),
        ..NewRecord::default()
    }
}

/// Reads from an offset up to the end that the partition has at the start, and checks that
/// offsets rise and times do not fall.
pub(super) async fn read_to_end(
    log: &dyn EventLog,
    topic: Topic,
    partition: Partition,
    from: Offset,
) -> Vec<LogRecord> {
    let end = log.end(topic, partition).await.unwrap();
    let mut reader = log.read(topic, partition, from).await.unwrap();
    let mut records: Vec<LogRecord> = Vec::new();
    while records.last().map_or(from, |last| last.offset.next()) < end {
        let more = reader.next().await.unwrap();
        assert!(!more.is_empty(), "a reader returns at least one record");
        records.extend(more);
    }
    for pair in records.windows(2) {
        assert!(pair[0].offset < pair[1].offset, "offsets rise");
        assert!(
            pair[0].appended_at_ms <= pair[1].appended_at_ms,
            "times do not fall"
        );
    }
    records
}
