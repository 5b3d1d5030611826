//! The log under test, and helpers that the cases share.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kit::ManualClock;
use ports::{EventLog, LogRecord, NewRecord};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use tempfile::TempDir;

use super::{Adapter, Opened, Queue};

/// Partitions of every topic.
pub(super) const PARTITIONS: u32 = 4;

/// A log in a directory of its own.
pub(super) struct Subject {
    pub(super) adapter: &'static Adapter,
    pub(super) dir: TempDir,
    clock: Arc<ManualClock>,
    /// None while it is closed.
    opened: Option<Opened>,
}

impl Subject {
    pub(super) async fn new(adapter: &'static Adapter) -> Self {
        let mut subject = Self {
            adapter,
            dir: tempfile::tempdir().unwrap(),
            clock: Arc::new(ManualClock::still_at(1_000_000)),
            opened: None,
        };
        subject.reopen(Queue::Usual).await;
        subject
    }

    pub(super) fn log(&self) -> Arc<dyn EventLog> {
        self.opened.as_ref().expect("it is open").log.clone()
    }

    /// Lets time pass: steps the log's clock forwards or backwards, or waits if the log has its own.
    pub(super) async fn step(&self, by_ms: i64) {
        if self.adapter.uses_our_clock {
            self.clock.step(by_ms);
        } else {
            tokio::time::sleep(Duration::from_millis(by_ms.max(0) as u64)).await;
        }
    }

    /// Closes the log; no other handle of it may be left.
    pub(super) async fn close(&mut self) {
        let Opened { log, to_close } = self.opened.take().expect("it is open");
        assert_eq!(
            Arc::strong_count(&log),
            1 + usize::from(to_close.is_some()),
            "a case keeps a handle of the log that it closes"
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
        let dir = self.dir.path();
        self.opened = Some((self.adapter.open)(dir, self.clock.clone(), queue).await);
    }

    /// Appends one record with this value to a partition of `purchase-attempts`.
    pub(super) async fn append(&self, partition: u32, value: impl Into<Bytes>) -> Offset {
        let (log, partition) = (self.log(), Partition(partition));
        let appended = log.append(Topic::PurchaseAttempts, partition, vec![record(value)]);
        appended.await.unwrap()
    }

    /// All records of a partition of `purchase-attempts`.
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
