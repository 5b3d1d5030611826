//! An event log in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use ports::{AppendError, Clock, EventLog, Group, LogReader, LogRecord, NewRecord, ReadError};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tokio::sync::watch;

use crate::calls::Calls;

/// The most records one read returns, so that tests meet batches.
const READ_AT_ONCE: usize = 100;

/// What a log does with the records of an append.
#[derive(Debug, Clone, Default)]
pub enum OnAppend {
    /// It appends them.
    #[default]
    Take,
    /// It appends nothing and fails with this error.
    Fail(AppendError),
    /// It appends nothing and never answers.
    Hang,
}

/// An event log in memory. Clones are the same log, as several processes use it.
///
/// An append takes effect before the call returns for the first time, so nothing ever queues and
/// [`AppendError::Full`] never happens by itself.
#[derive(Clone)]
pub struct MemoryLog(Arc<Shared>);

struct Shared {
    partitions: u32,
    clock: Arc<dyn Clock>,
    stored: BTreeMap<(Topic, Partition), Arc<Stored>>,
    assignment: watch::Sender<BTreeSet<Partition>>,
    on_append: Mutex<OnAppend>,
    reading: Arc<Reading>,
    noted: Mutex<HashMap<(Group, Partition), Offset>>,
    calls: Calls,
}

/// One partition of a topic.
struct Stored {
    records: Mutex<Vec<LogRecord>>,
    /// Whether the next record may have an earlier time than the last one.
    corrected: AtomicBool,
    deleted: Mutex<BTreeSet<Offset>>,
    /// Records below this offset are forgotten: no reader returns them.
    forgotten: AtomicI64,
    /// Wakes readers: there may be new records.
    changed: watch::Sender<()>,
}

/// What a test has imposed on all readers.
#[derive(Default)]
struct Reading {
    fails: AtomicBool,
    held_back: Mutex<BTreeSet<Topic>>,
}

impl MemoryLog {
    /// An empty log.
    pub fn new(partitions: u32, clock: Arc<dyn Clock>) -> Self {
        let all: BTreeSet<Partition> = (0..partitions).map(Partition).collect();
        let stored = Topic::ALL.into_iter().flat_map(|topic| {
            let empty = move |partition: &Partition| ((topic, *partition), Arc::new(Stored::new()));
            all.iter().map(empty)
        });
        Self(Arc::new(Shared {
            partitions,
            clock,
            stored: stored.collect(),
            assignment: watch::Sender::new(all),
            on_append: Mutex::default(),
            reading: Arc::default(),
            noted: Mutex::default(),
            calls: Calls::default(),
        }))
    }

    /// Sets what happens to appends from now on.
    pub fn on_append(&self, what: OnAppend) {
        *self.0.on_append.lock() = what;
    }

    /// Lets every read fail from now on, or none. A reader that is waiting already fails with the
    /// next record.
    pub fn fail_reads(&self, failing: bool) {
        self.0.reading.fails.store(failing, Ordering::Relaxed);
    }

    /// Hides new records of the topic from readers, though the topic's end moves on.
    pub fn hold_back(&self, topic: Topic) {
        self.0.reading.held_back.lock().insert(topic);
    }

    /// Shows readers of all topics what was held back.
    pub fn release(&self) {
        self.0.reading.held_back.lock().clear();
        for stored in self.0.stored.values() {
            stored.changed.send_replace(());
        }
    }

    /// How often each method of the port was called that can fail or joins a group, by its name.
    pub fn calls(&self) -> BTreeMap<&'static str, usize> {
        self.0.calls.all()
    }

    /// Sets the partitions that every group assigns to this process.
    pub fn assign(&self, partitions: impl IntoIterator<Item = Partition>) {
        let partitions = partitions.into_iter().collect();
        self.0.assignment.send_replace(partitions);
    }

    /// The last progress that was noted for a group and a partition.
    pub fn noted(&self, group: Group, partition: Partition) -> Option<Offset> {
        self.0.noted.lock().get(&(group, partition)).copied()
    }

    /// Every record of a partition, forgotten ones included.
    pub fn records(&self, topic: Topic, partition: Partition) -> Vec<LogRecord> {
        self.stored(topic, partition).records.lock().clone()
    }

    /// Appends at once, without checks.
    pub fn put(&self, topic: Topic, partition: Partition, records: Vec<NewRecord>) -> Offset {
        self.stored(topic, partition)
            .append(records, self.0.clock.now_ms())
    }

    /// Loses the records of a partition but for the first `keep`. With 0 it is as if the topic had been
    /// deleted and created again.
    pub fn lose(&self, topic: Topic, partition: Partition, keep: usize) {
        let stored = self.stored(topic, partition);
        stored.records.lock().truncate(keep);
        stored.changed.send_replace(());
    }

    /// Damages or repairs a record: replaces its value, and returns the old one.
    pub fn overwrite(
        &self,
        topic: Topic,
        partition: Partition,
        offset: Offset,
        value: Bytes,
    ) -> Bytes {
        let mut records = self.stored(topic, partition).records.lock();
        std::mem::replace(&mut records[offset.0 as usize].value, value)
    }

    /// Deletes a record, which leaves a gap.
    pub fn delete(&self, topic: Topic, partition: Partition, offset: Offset) {
        self.stored(topic, partition).deleted.lock().insert(offset);
    }

    fn stored(&self, topic: Topic, partition: Partition) -> &Arc<Stored> {
        &self.0.stored[&(topic, partition)]
    }

    fn checked(&self, topic: Topic, partition: Partition) -> Result<&Arc<Stored>, String> {
        let stored = self.0.stored.get(&(topic, partition));
        stored.ok_or_else(|| {
            let last = self.0.partitions - 1;
            format!("there is no partition {partition}; partitions are 0 to {last}")
        })
    }

    fn readable(&self, topic: Topic, partition: Partition) -> Result<&Arc<Stored>, ReadError> {
        self.0.reading.check()?;
        self.checked(topic, partition)
            .map_err(ReadError::Unavailable)
    }
}

impl Stored {
    fn new() -> Self {
        Self {
            records: Mutex::default(),
            corrected: AtomicBool::new(false),
            deleted: Mutex::default(),
            forgotten: AtomicI64::new(0),
            changed: watch::Sender::new(()),
        }
    }

    fn end(&self) -> Offset {
        Offset(self.records.lock().len() as i64)
    }

    /// Whether all records from one offset up to another were deleted or forgotten.
    fn has_none(&self, from: i64, end: Offset) -> bool {
        let deleted = self.deleted.lock();
        let first = self.forgotten.load(Ordering::Relaxed).max(from);
        (first..end.0).all(|offset| deleted.contains(&Offset(offset)))
    }

    fn append(&self, records: Vec<NewRecord>, now_ms: TimestampMs) -> Offset {
        let mut all = self.records.lock();
        let last = all.last().map(|record| record.appended_at_ms);
        let last = last.filter(|_| !self.corrected.swap(false, Ordering::Relaxed));
        let last_at = last.unwrap_or(TimestampMs::MIN);
        for record in records {
            let offset = Offset(all.len() as i64);
            all.push(LogRecord {
                offset,
                appended_at_ms: now_ms.max(last_at),
                key: record.key,
                value: record.value,
                headers: record.headers,
            });
        }
        self.changed.send_replace(());
        Offset(all.len() as i64 - 1)
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn partitions(&self) -> u32 {
        self.0.partitions
    }

    async fn append(
        &self,
        topic: Topic,
        partition: Partition,
        records: Vec<NewRecord>,
    ) -> Result<Offset, AppendError> {
        self.0.calls.count("append");
        let on_append = self.0.on_append.lock().clone();
        match on_append {
            OnAppend::Take => {}
            OnAppend::Fail(error) => return Err(error),
            OnAppend::Hang => std::future::pending().await,
        }
        records.iter().try_for_each(NewRecord::check_bounds)?;
        let stored = self.checked(topic, partition);
        let stored = stored.map_err(AppendError::Stopped)?;
        Ok(stored.append(records, self.0.clock.now_ms()))
    }

    async fn read(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, ReadError> {
        self.0.calls.count("read");
        let stored = self.readable(topic, partition)?.clone();
        ReadError::check_end(topic, partition, from, stored.end())?;
        let changed = stored.changed.subscribe();
        Ok(Box::new(Reader {
            topic,
            partition,
            stored,
            changed,
            reading: self.0.reading.clone(),
            next: from.0.max(0),
            began: false,
        }))
    }

    async fn end(&self, topic: Topic, partition: Partition) -> Result<Offset, ReadError> {
        self.0.calls.count("end");
        Ok(self.readable(topic, partition)?.end())
    }

    async fn offset_at(
        &self,
        topic: Topic,
        partition: Partition,
        time: TimestampMs,
    ) -> Result<Offset, ReadError> {
        self.0.calls.count("offset_at");
        let records = self.readable(topic, partition)?.records.lock();
        let first = records
            .iter()
            .position(|record| record.appended_at_ms >= time);
        Ok(Offset(first.unwrap_or(records.len()) as i64))
    }

    fn correct_clock(&self) {
        for stored in self.0.stored.values() {
            stored.corrected.store(true, Ordering::Relaxed);
        }
    }

    fn assignment(&self, _group: Group) -> watch::Receiver<BTreeSet<Partition>> {
        self.0.calls.count("assignment");
        self.0.assignment.subscribe()
    }

    fn note_progress(&self, group: Group, partition: Partition, next: Offset) {
        self.0.noted.lock().insert((group, partition), next);
    }

    async fn forget(
        &self,
        topic: Topic,
        partition: Partition,
        before: Offset,
    ) -> Result<(), ReadError> {
        let stored = self.checked(topic, partition);
        let stored = stored.map_err(ReadError::Unavailable)?;
        let end = stored.end();
        if before > end {
            return Err(ReadError::Unavailable(format!(
                "cannot forget records before offset {before}: the partition ends at {end}"
            )));
        }
        stored.forgotten.fetch_max(before.0, Ordering::Relaxed);
        Ok(())
    }
}

impl Reading {
    fn check(&self) -> Result<(), ReadError> {
        if self.fails.load(Ordering::Relaxed) {
            return Err(ReadError::Unavailable("the test made it fail".into()));
        }
        Ok(())
    }
}

struct Reader {
    topic: Topic,
    partition: Partition,
    stored: Arc<Stored>,
    changed: watch::Receiver<()>,
    reading: Arc<Reading>,
    /// The lowest offset to return next.
    next: i64,
    /// Whether any record was returned, so that the next ones must follow without a gap.
    began: bool,
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        loop {
            // Marked before the records are read, so that no change in between is missed.
            self.changed.borrow_and_update();
            self.reading.check()?;
            let records = self.available()?;
            if let Some(last) = records.last() {
                self.next = last.offset.next().0;
                self.began = true;
                return Ok(records);
            }
            let changed = self.changed.changed().await;
            changed.map_err(|_| ReadError::Closed)?;
        }
    }

    async fn next_below(&mut self, end: Offset) -> Result<Vec<LogRecord>, ReadError> {
        self.reading.check()?;
        if self.stored.has_none(self.next, end) {
            return Ok(vec![]);
        }
        self.next().await
    }
}

impl Reader {
    /// The next records; none when there are none yet or the topic is held back.
    fn available(&self) -> Result<Vec<LogRecord>, ReadError> {
        if self.reading.held_back.lock().contains(&self.topic) {
            return Ok(vec![]);
        }
        ReadError::check_end(
            self.topic,
            self.partition,
            Offset(self.next),
            self.stored.end(),
        )?;
        let records = self.stored.records.lock();
        let first = self.stored.forgotten.load(Ordering::Relaxed);
        if self.began && self.next < first {
            return Err(ReadError::Unavailable(format!(
                "records {} to {} were forgotten before they were read",
                self.next,
                first - 1
            )));
        }
        let from = self.next.max(first) as usize;
        let deleted = self.stored.deleted.lock();
        let is_there = |record: &&LogRecord| !deleted.contains(&record.offset);
        let new = records.iter().skip(from).filter(is_there);
        Ok(new.take(READ_AT_ONCE).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;

    const TOPIC: Topic = Topic::ProductSnapshots;
    const PARTITION: Partition = Partition(0);

    #[tokio::test]
    async fn a_reader_does_not_skip_records_that_are_forgotten_while_it_reads() {
        let log = MemoryLog::new(1, Arc::new(ManualClock::still_at(0)));
        let records = vec![NewRecord::default(); READ_AT_ONCE + 2];
        log.append(TOPIC, PARTITION, records).await.unwrap();
        let mut reader = log.read(TOPIC, PARTITION, Offset(0)).await.unwrap();
        reader.next().await.unwrap();
        let end = log.end(TOPIC, PARTITION).await.unwrap();
        log.forget(TOPIC, PARTITION, end).await.unwrap();
        for _ in 0..2 {
            let missed = reader.next().await;
            assert!(
                matches!(missed, Err(ReadError::Unavailable(_))),
                "{missed:?}"
            );
        }
        let beyond = log.forget(TOPIC, PARTITION, end.next()).await;
        assert!(
            matches!(beyond, Err(ReadError::Unavailable(_))),
            "{beyond:?}"
        );
    }
}
