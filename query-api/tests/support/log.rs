//! A log in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use ports::{AppendError, EventLog, Group, LogReader, LogRecord, NewRecord, ReadError};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tokio::sync::watch;

use super::{NOW, PARTITIONS};

/// A log in memory. A topic can be stopped, so that its readers see nothing new.
#[derive(Clone, Default)]
pub struct MemoryLog {
    records: Arc<Mutex<Records>>,
    changed: watch::Sender<()>,
    stopped: Arc<Mutex<BTreeSet<Topic>>>,
    pub failing: Arc<AtomicBool>,
}

type Records = BTreeMap<(Topic, Partition), Vec<LogRecord>>;

#[async_trait]
impl EventLog for MemoryLog {
    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    async fn append(
        &self,
        _: Topic,
        _: Partition,
        _: Vec<NewRecord>,
    ) -> Result<Offset, AppendError> {
        panic!("the read side never writes");
    }

    async fn read(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, ReadError> {
        self.check()?;
        let reader = MemoryReader {
            log: self.clone(),
            topic,
            partition,
            next: from,
        };
        Ok(Box::new(reader))
    }

    async fn end(&self, topic: Topic, partition: Partition) -> Result<Offset, ReadError> {
        self.check()?;
        let records = self.records.lock();
        let last = records.get(&(topic, partition)).and_then(|all| all.last());
        Ok(last.map_or(Offset(0), |record| record.offset.next()))
    }

    async fn offset_at(&self, _: Topic, _: Partition, _: TimestampMs) -> Result<Offset, ReadError> {
        unreachable!("the read side asks for no times")
    }

    fn assignment(&self, _: Group) -> watch::Receiver<BTreeSet<Partition>> {
        unreachable!("every read side reads every partition")
    }
}

struct MemoryReader {
    log: MemoryLog,
    topic: Topic,
    partition: Partition,
    next: Offset,
}

#[async_trait]
impl LogReader for MemoryReader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        let mut changed = self.log.changed.subscribe();
        loop {
            self.log.check()?;
            let found: Vec<LogRecord> = {
                let stopped = self.log.stopped.lock().contains(&self.topic);
                let records = self.log.records.lock();
                let all = records
                    .get(&(self.topic, self.partition))
                    .into_iter()
                    .flatten();
                let new = all.filter(|record| record.offset >= self.next && !stopped);
                new.cloned().collect()
            };
            if let Some(last) = found.last() {
                self.next = last.offset.next();
                return Ok(found);
            }
            let _ = changed.changed().await;
        }
    }
}

impl MemoryLog {
    fn check(&self) -> Result<(), ReadError> {
        match self.failing.load(Ordering::Relaxed) {
            true => Err(ReadError::Unavailable("the disk is on a train".into())),
            false => Ok(()),
        }
    }

    pub fn records_of(&self, topic: Topic, partition: Partition) -> Vec<LogRecord> {
        let records = self.records.lock();
        records
            .get(&(topic, partition))
            .cloned()
            .unwrap_or_default()
    }

    pub fn put(&self, topic: Topic, partition: u32, value: Vec<u8>) -> Offset {
        let mut records = self.records.lock();
        let all = records.entry((topic, Partition(partition))).or_default();
        let offset = Offset(all.len() as i64);
        all.push(LogRecord {
            offset,
            appended_at_ms: NOW,
            key: Bytes::new(),
            value: value.into(),
            headers: vec![],
        });
        drop(records);
        self.changed.send_replace(());
        offset
    }

    /// Replaces the bytes of a record, and returns those it had.
    pub fn overwrite(
        &self,
        topic: Topic,
        partition: u32,
        offset: Offset,
        value: Vec<u8>,
    ) -> Vec<u8> {
        let mut records = self.records.lock();
        let all = records.get_mut(&(topic, Partition(partition))).unwrap();
        std::mem::replace(&mut all[offset.0 as usize].value, value.into()).into()
    }

    /// Appends to both topics of a partition what is no record.
    pub fn put_unreadable(&self, partition: u32) {
        for topic in [Topic::PurchaseAttempts, Topic::StockDecisions] {
            self.put(topic, partition, vec![0, 0, 0, 0, 99]);
        }
    }

    pub fn stop(&self, topic: Topic) {
        self.stopped.lock().insert(topic);
    }

    pub fn go_on(&self) {
        self.stopped.lock().clear();
        self.changed.send_replace(());
    }
}
