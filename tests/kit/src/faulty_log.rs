//! A log behind a connection that delays, loses and repeats calls.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use ports::{AppendError, EventLog, Group, LogReader, LogRecord, NewRecord, ReadError};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tokio::sync::watch;

/// How often each fault happens, in thousandths of the calls.
///
/// The contract of [`EventLog`] allows each fault but one: with `slow_before`, a call may overtake an
/// earlier one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// An append is delayed before it takes effect.
    pub slow_before: u32,
    /// An append is delayed after it took effect.
    pub slow_after: u32,
    /// An append fails with [`AppendError::Unknown`] and takes no effect.
    pub lost: u32,
    /// An append fails with [`AppendError::Unknown`], but takes effect.
    pub unacknowledged: u32,
    /// An append takes effect twice.
    pub doubled: u32,
    /// A read is delayed before it returns.
    pub slow_read: u32,
    /// A read fails with [`ReadError::Unavailable`].
    pub failed_read: u32,
    /// The longest delay.
    pub longest: Duration,
}

/// A log as one process reaches it through a bad connection.
pub struct FaultyLog {
    log: Arc<dyn EventLog>,
    faults: Faults,
    dice: Arc<Mutex<StdRng>>,
}

impl FaultyLog {
    /// The log through a connection whose faults are drawn from this seed.
    pub fn new(log: Arc<dyn EventLog>, faults: Faults, seed: u64) -> Self {
        Self {
            log,
            faults,
            dice: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
        }
    }
}

fn happens(dice: &Mutex<StdRng>, thousandths: u32) -> bool {
    dice.lock().random_range(0..1000) < thousandths
}

async fn maybe_delay(dice: &Mutex<StdRng>, thousandths: u32, longest: Duration) {
    if happens(dice, thousandths) {
        let ms = dice.lock().random_range(0..=longest.as_millis() as u64);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

#[async_trait]
impl EventLog for FaultyLog {
    fn partitions(&self) -> u32 {
        self.log.partitions()
    }

    async fn append(
        &self,
        topic: Topic,
        partition: Partition,
        records: Vec<NewRecord>,
    ) -> Result<Offset, AppendError> {
        let Faults { longest, .. } = self.faults;
        maybe_delay(&self.dice, self.faults.slow_before, longest).await;
        if happens(&self.dice, self.faults.lost) {
            return Err(AppendError::Unknown("the test dropped the append".into()));
        }
        let doubled = happens(&self.dice, self.faults.doubled).then(|| records.clone());
        let last = self.log.append(topic, partition, records).await?;
        if let Some(again) = doubled {
            self.log.append(topic, partition, again).await?;
        }
        maybe_delay(&self.dice, self.faults.slow_after, longest).await;
        if happens(&self.dice, self.faults.unacknowledged) {
            return Err(AppendError::Unknown(
                "the test dropped the acknowledgement".into(),
            ));
        }
        Ok(last)
    }

    async fn read(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, ReadError> {
        let reader = self.log.read(topic, partition, from).await?;
        let (faults, dice) = (self.faults, self.dice.clone());
        Ok(Box::new(FaultyReader {
            reader,
            read: None,
            faults,
            dice,
        }))
    }

    async fn end(&self, topic: Topic, partition: Partition) -> Result<Offset, ReadError> {
        self.log.end(topic, partition).await
    }

    async fn offset_at(
        &self,
        topic: Topic,
        partition: Partition,
        time: TimestampMs,
    ) -> Result<Offset, ReadError> {
        self.log.offset_at(topic, partition, time).await
    }

    fn assignment(&self, group: Group) -> watch::Receiver<BTreeSet<Partition>> {
        self.log.assignment(group)
    }

    fn note_progress(&self, group: Group, partition: Partition, next: Offset) {
        self.log.note_progress(group, partition, next);
    }

    async fn forget(
        &self,
        topic: Topic,
        partition: Partition,
        before: Offset,
    ) -> Result<(), ReadError> {
        self.log.forget(topic, partition, before).await
    }
}

struct FaultyReader {
    reader: Box<dyn LogReader>,
    /// Records that were read before the delay. Kept here, so that a dropped call loses nothing.
    read: Option<Vec<LogRecord>>,
    faults: Faults,
    dice: Arc<Mutex<StdRng>>,
}

#[async_trait]
impl LogReader for FaultyReader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        if happens(&self.dice, self.faults.failed_read) {
            return Err(ReadError::Unavailable("the test cut the connection".into()));
        }
        if self.read.is_none() {
            self.read = Some(self.reader.next().await?);
        }
        maybe_delay(&self.dice, self.faults.slow_read, self.faults.longest).await;
        Ok(self.read.take().unwrap_or_default())
    }
}
