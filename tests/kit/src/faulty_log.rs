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
    /// An append fails with [`AppendError::Full`], and takes no effect.
    pub full: u32,
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

/// The capacity of an append queue, which calls occupy until they return.
#[derive(Debug, Clone, Copy)]
pub struct QueueBound {
    /// The most records. One call may have more if the queue is empty.
    pub records: usize,
    /// The most bytes, and the most in one call.
    pub bytes: usize,
}

/// A log as one process reaches it through a bad connection.
pub struct FaultyLog {
    log: Arc<dyn EventLog>,
    faults: Faults,
    queue: Option<QueueBound>,
    /// The records and bytes in the queue.
    queued: Mutex<(usize, usize)>,
    dice: Arc<Mutex<StdRng>>,
}

impl FaultyLog {
    /// The log through a connection whose faults are drawn from this seed.
    pub fn new(log: Arc<dyn EventLog>, faults: Faults, seed: u64) -> Self {
        Self {
            log,
            faults,
            queue: None,
            queued: Mutex::default(),
            dice: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
        }
    }

    /// The same log behind an append queue of this capacity.
    pub fn with_queue(self, queue: QueueBound) -> Self {
        Self {
            queue: Some(queue),
            ..self
        }
    }

    /// Takes a call into the queue until the returned value is dropped.
    fn enqueue(&self, call: &[NewRecord]) -> Result<Queued<'_>, AppendError> {
        let (records, bytes) = (call.len(), call.iter().map(NewRecord::bytes).sum());
        let mut queued = self.queued.lock();
        if let Some(queue) = self.queue {
            let max = queue.bytes;
            if bytes > max {
                let what = "the call";
                return Err(AppendError::TooLarge { what, bytes, max });
            }
            let too_many = queued.0 > 0 && queued.0 + records > queue.records;
            if too_many || queued.1 + bytes > max {
                return Err(AppendError::Full);
            }
        }
        *queued = (queued.0 + records, queued.1 + bytes);
        Ok(Queued {
            queued: &self.queued,
            records,
            bytes,
        })
    }
}

/// A call in the queue.
struct Queued<'a> {
    queued: &'a Mutex<(usize, usize)>,
    records: usize,
    bytes: usize,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        let mut queued = self.queued.lock();
        *queued = (queued.0 - self.records, queued.1 - self.bytes);
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
        if happens(&self.dice, self.faults.full) {
            return Err(AppendError::Full);
        }
        let _queued = self.enqueue(&records)?;
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

    fn correct_clock(&self) {
        self.log.correct_clock();
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

    async fn next_below(&mut self, end: Offset) -> Result<Vec<LogRecord>, ReadError> {
        if self.read.is_none() {
            self.read = Some(self.reader.next_below(end).await?);
        }
        self.next().await
    }
}
