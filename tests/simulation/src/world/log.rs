//! The log that all nodes share: what has arrived, in its order.

use std::collections::BTreeMap;

use bytes::Bytes;
use ports::{LogRecord, NewRecord};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tokio::sync::watch;

/// The records of every partition.
pub(super) struct Log {
    kept: BTreeMap<(Topic, Partition), Kept>,
    partitions: u32,
    /// Every append whose sender was told that it is durable.
    pub acknowledged: Vec<(Topic, Partition, Offset, Bytes)>,
}

#[derive(Default)]
struct Kept {
    records: Vec<LogRecord>,
    /// Records before this offset are forgotten: no reader sees them.
    forgotten: Offset,
    changed: watch::Sender<()>,
}

impl Log {
    pub fn new(partitions: u32) -> Self {
        let places = (0..partitions).flat_map(|p| Topic::ALL.map(|topic| (topic, Partition(p))));
        Self {
            kept: places.map(|place| (place, Kept::default())).collect(),
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
        let kept = self.kept_mut(topic, partition);
        for NewRecord {
            key,
            value,
            headers,
        } in records
        {
            kept.records.push(LogRecord {
                offset: Offset(kept.records.len() as i64),
                appended_at_ms: stamp,
                key,
                value,
                headers,
            });
        }
        kept.changed.send_replace(());
        Offset(kept.records.len() as i64 - 1)
    }

    /// Notes that an append was acknowledged with this offset.
    pub fn acknowledge(&mut self, topic: Topic, partition: Partition, last: Offset) {
        let value = self.kept[&(topic, partition)].records[last.0 as usize]
            .value
            .clone();
        self.acknowledged.push((topic, partition, last, value));
    }

    /// The records from an offset on, at most so many of them.
    pub fn from(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
        most: usize,
    ) -> Vec<LogRecord> {
        let kept = &self.kept[&(topic, partition)];
        let from = from.max(kept.forgotten).0.max(0) as usize;
        kept.records.iter().skip(from).take(most).cloned().collect()
    }

    pub fn end(&self, topic: Topic, partition: Partition) -> Offset {
        Offset(self.kept[&(topic, partition)].records.len() as i64)
    }

    /// The time of a partition's last record.
    pub fn last_stamp(&self, topic: Topic, partition: Partition) -> TimestampMs {
        let last = self.kept[&(topic, partition)].records.last();
        last.map_or(TimestampMs::MIN, |last| last.appended_at_ms)
    }

    /// Where each partition ends.
    pub fn ends(&self) -> BTreeMap<(Topic, Partition), Offset> {
        let ends = self.kept.iter();
        ends.map(|(place, kept)| (*place, Offset(kept.records.len() as i64)))
            .collect()
    }

    pub fn offset_at(&self, topic: Topic, partition: Partition, time: TimestampMs) -> Offset {
        let records = &self.kept[&(topic, partition)].records;
        let first = records
            .iter()
            .position(|record| record.appended_at_ms >= time);
        Offset(first.unwrap_or(records.len()) as i64)
    }

    pub fn forget(&mut self, topic: Topic, partition: Partition, before: Offset) {
        let kept = self.kept_mut(topic, partition);
        kept.forgotten = kept.forgotten.max(before);
    }

    /// Tells when a partition has new records.
    pub fn changes(&self, topic: Topic, partition: Partition) -> watch::Receiver<()> {
        self.kept[&(topic, partition)].changed.subscribe()
    }

    /// Every record that was not forgotten.
    pub fn all(&self) -> BTreeMap<(Topic, Partition), Vec<LogRecord>> {
        let all = self.kept.iter();
        all.map(|(place, kept)| (*place, kept.records.clone()))
            .collect()
    }

    /// What a disk was found to hold takes the place of what was there.
    pub fn replace(&mut self, found: BTreeMap<(Topic, Partition), Vec<LogRecord>>) {
        for (place, records) in found {
            self.kept.insert(
                place,
                Kept {
                    records,
                    ..Kept::default()
                },
            );
        }
    }

    fn kept_mut(&mut self, topic: Topic, partition: Partition) -> &mut Kept {
        self.kept
            .get_mut(&(topic, partition))
            .expect("every partition is there from the start")
    }
}
