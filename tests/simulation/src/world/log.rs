//! The log that all nodes share: the records that have arrived, in their order.

use std::collections::BTreeMap;

use bytes::Bytes;
use ports::{LogRecord, NewRecord};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tokio::sync::watch;

/// The records of every partition.
pub(super) struct Log {
    logs: BTreeMap<(Topic, Partition), PartitionLog>,
    partitions: u32,
    /// Every append that was acknowledged to its sender.
    pub acknowledged: Vec<(Topic, Partition, Offset, Bytes)>,
}

#[derive(Default)]
struct PartitionLog {
    records: Vec<LogRecord>,
    /// Records before this offset are deleted: no reader gets them.
    forgotten: Offset,
    changed: watch::Sender<()>,
}

impl Log {
    pub fn new(partitions: u32) -> Self {
        let all = (0..partitions).flat_map(|p| Topic::ALL.map(|topic| (topic, Partition(p))));
        Self {
            logs: all.map(|place| (place, PartitionLog::default())).collect(),
            partitions,
            acknowledged: Vec::new(),
        }
    }

    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// Appends, and returns the offset of the last record. The time of a distributed log goes
    /// back when its leader moves to a machine whose clock is behind.
    pub fn append(
        &mut self,
        topic: Topic,
        partition: Partition,
        records: Vec<NewRecord>,
        stamp: TimestampMs,
    ) -> Offset {
        let log = self.log_mut(topic, partition);
        for NewRecord {
            key,
            value,
            headers,
        } in records
        {
            log.records.push(LogRecord {
                offset: Offset(log.records.len() as i64),
                appended_at_ms: stamp,
                key,
                value,
                headers,
            });
        }
        log.changed.send_replace(());
        Offset(log.records.len() as i64 - 1)
    }

    /// Notes that an append was acknowledged with this offset.
    pub fn acknowledge(&mut self, topic: Topic, partition: Partition, last: Offset) {
        let value = self.logs[&(topic, partition)].records[last.0 as usize]
            .value
            .clone();
        self.acknowledged.push((topic, partition, last, value));
    }

    /// The records from an offset on, at most `most`.
    pub fn from(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
        most: usize,
    ) -> Vec<LogRecord> {
        let log = &self.logs[&(topic, partition)];
        let from = from.max(log.forgotten).0.max(0) as usize;
        log.records.iter().skip(from).take(most).cloned().collect()
    }

    pub fn end(&self, topic: Topic, partition: Partition) -> Offset {
        Offset(self.logs[&(topic, partition)].records.len() as i64)
    }

    /// The end of each partition.
    pub fn ends(&self) -> BTreeMap<(Topic, Partition), Offset> {
        let ends = self.logs.iter();
        ends.map(|(place, log)| (*place, Offset(log.records.len() as i64)))
            .collect()
    }

    pub fn offset_at(&self, topic: Topic, partition: Partition, time: TimestampMs) -> Offset {
        let records = &self.logs[&(topic, partition)].records;
        let first = records
            .iter()
            .position(|record| record.appended_at_ms >= time);
        Offset(first.unwrap_or(records.len()) as i64)
    }

    pub fn forget(&mut self, topic: Topic, partition: Partition, before: Offset) {
        let log = self.log_mut(topic, partition);
        log.forgotten = log.forgotten.max(before);
    }

    /// Signals new records of a partition.
    pub fn changes(&self, topic: Topic, partition: Partition) -> watch::Receiver<()> {
        self.logs[&(topic, partition)].changed.subscribe()
    }

    /// Every record, including deleted ones.
    pub fn all(&self) -> BTreeMap<(Topic, Partition), Vec<LogRecord>> {
        let all = self.logs.iter();
        all.map(|(place, log)| (*place, log.records.clone()))
            .collect()
    }

    /// Replaces the records by those found on a disk.
    pub fn replace(&mut self, found: BTreeMap<(Topic, Partition), Vec<LogRecord>>) {
        for (place, records) in found {
            self.logs.insert(
                place,
                PartitionLog {
                    records,
                    ..PartitionLog::default()
                },
            );
        }
    }

    /// Replaces the records of a partition. Readers go on from their offsets.
    pub fn rewrite(&mut self, topic: Topic, partition: Partition, records: Vec<LogRecord>) {
        let log = self.log_mut(topic, partition);
        log.records = records;
        log.forgotten = log.forgotten.min(Offset(log.records.len() as i64));
        log.changed.send_replace(());
    }

    fn log_mut(&mut self, topic: Topic, partition: Partition) -> &mut PartitionLog {
        self.logs
            .get_mut(&(topic, partition))
            .expect("every partition is there from the start")
    }
}
