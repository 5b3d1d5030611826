use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use ports::event_log::{MAX_HEADER_BYTES, MAX_HEADERS, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use ports::{AppendError, Clock, EventLog, Group, LogReader, LogRecord, NewRecord, ReadError};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tokio::sync::watch;

/// The most records one read returns, so that tests meet batches.
const READ_AT_ONCE: usize = 100;

/// An event log in memory.
pub struct MemoryLog {
    partitions: u32,
    clock: Arc<dyn Clock>,
    kept: BTreeMap<(Topic, Partition), Arc<Kept>>,
    assignment: watch::Sender<BTreeSet<Partition>>,
}

struct Kept {
    records: Mutex<Vec<LogRecord>>,
    end: watch::Sender<i64>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new(partitions: u32, clock: Arc<dyn Clock>) -> Self {
        let all: BTreeSet<Partition> = (0..partitions).map(Partition).collect();
        let places = Topic::ALL
            .into_iter()
            .flat_map(|topic| all.iter().map(move |p| (topic, *p)));
        let kept = places.map(|place| {
            (
                place,
                Arc::new(Kept {
                    records: Mutex::default(),
                    end: watch::Sender::new(0),
                }),
            )
        });
        Self {
            partitions,
            clock,
            kept: kept.collect(),
            assignment: watch::Sender::new(all),
        }
    }

    /// Sets which partitions this process is a member for, in every group.
    pub fn assign(&self, partitions: impl IntoIterator<Item = Partition>) {
        self.assignment
            .send_replace(partitions.into_iter().collect());
    }

    /// Every record of a partition.
    pub fn records(&self, topic: Topic, partition: Partition) -> Vec<LogRecord> {
        self.kept[&(topic, partition)].records.lock().clone()
    }

    /// Appends at once, without checks.
    pub fn put(&self, topic: Topic, partition: Partition, records: Vec<NewRecord>) -> Offset {
        let kept = &self.kept[&(topic, partition)];
        let mut all = kept.records.lock();
        let last_at = all
            .last()
            .map_or(TimestampMs::MIN, |record| record.appended_at_ms);
        let appended_at_ms = self.clock.now_ms().max(last_at);
        for NewRecord {
            key,
            value,
            headers,
        } in records
        {
            let offset = Offset(all.len() as i64);
            all.push(LogRecord {
                offset,
                appended_at_ms,
                key,
                value,
                headers,
            });
        }
        kept.end.send_replace(all.len() as i64);
        Offset(all.len() as i64 - 1)
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn partitions(&self) -> u32 {
        self.partitions
    }

    async fn append(
        &self,
        topic: Topic,
        partition: Partition,
        records: Vec<NewRecord>,
    ) -> Result<Offset, AppendError> {
        for record in &records {
            let headers = record.headers.iter();
            let longest = headers
                .map(|(name, value)| name.len().max(value.len()))
                .max();
            for (what, bytes, max) in [
                ("the key", record.key.len(), MAX_KEY_BYTES),
                ("the value", record.value.len(), MAX_VALUE_BYTES),
                ("the list of headers", record.headers.len(), MAX_HEADERS),
                ("a header", longest.unwrap_or(0), MAX_HEADER_BYTES),
            ] {
                if bytes > max {
                    return Err(AppendError::TooLarge { what, bytes, max });
                }
            }
        }
        Ok(self.put(topic, partition, records))
    }

    async fn read(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, ReadError> {
        let kept = self.kept[&(topic, partition)].clone();
        let end = kept.end.subscribe();
        Ok(Box::new(Reader {
            kept,
            end,
            next: from.0.max(0),
        }))
    }

    async fn end(&self, topic: Topic, partition: Partition) -> Result<Offset, ReadError> {
        Ok(Offset(
            self.kept[&(topic, partition)].records.lock().len() as i64
        ))
    }

    async fn offset_at(
        &self,
        topic: Topic,
        partition: Partition,
        time: TimestampMs,
    ) -> Result<Offset, ReadError> {
        let records = self.kept[&(topic, partition)].records.lock();
        Ok(Offset(
            records.partition_point(|record| record.appended_at_ms < time) as i64,
        ))
    }

    fn assignment(&self, _group: Group) -> watch::Receiver<BTreeSet<Partition>> {
        self.assignment.subscribe()
    }
}

struct Reader {
    kept: Arc<Kept>,
    end: watch::Receiver<i64>,
    next: i64,
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        let next = self.next;
        let _ = self
            .end
            .wait_for(|end| *end > next)
            .await
            .map_err(|_| ReadError::Closed)?;
        let records = self.kept.records.lock();
        let some = records[next as usize..].iter().take(READ_AT_ONCE).cloned();
        let some: Vec<LogRecord> = some.collect();
        self.next += some.len() as i64;
        Ok(some)
    }
}
