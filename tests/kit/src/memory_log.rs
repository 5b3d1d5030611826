use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use ports::event_log::{MAX_HEADER_BYTES, MAX_HEADERS, MAX_KEY_BYTES, MAX_VALUE_BYTES};
use ports::{AppendError, Clock, EventLog, Group, LogReader, LogRecord, NewRecord, ReadError};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tokio::sync::watch;

use crate::calls::Calls;

/// The most records one read returns, so that tests meet batches.
const READ_AT_ONCE: usize = 100;

/// What a log does with what is to be appended.
#[derive(Debug, Clone, Default)]
pub enum OnAppend {
    /// It appends.
    #[default]
    Take,
    /// It appends nothing and fails in this way.
    Fail(AppendError),
    /// It appends nothing and never answers.
    Hang,
}

/// An event log in memory.
pub struct MemoryLog {
    partitions: u32,
    clock: Arc<dyn Clock>,
    kept: BTreeMap<(Topic, Partition), Arc<Kept>>,
    assignment: watch::Sender<BTreeSet<Partition>>,
    on_append: Mutex<OnAppend>,
    reading: Arc<Reading>,
    noted: Mutex<HashMap<(Group, Partition), Offset>>,
    calls: Calls,
}

struct Kept {
    records: Mutex<Vec<LogRecord>>,
    /// Records before this offset are forgotten: no reader sees them.
    forgotten: AtomicI64,
    /// Whether readers may find something new.
    changed: watch::Sender<()>,
}

/// What the test has done to the readers.
#[derive(Default)]
struct Reading {
    fails: AtomicBool,
    held_back: Mutex<BTreeSet<Topic>>,
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
                    forgotten: AtomicI64::new(0),
                    changed: watch::Sender::new(()),
                }),
            )
        });
        Self {
            partitions,
            clock,
            kept: kept.collect(),
            assignment: watch::Sender::new(all),
            on_append: Mutex::default(),
            reading: Arc::default(),
            noted: Mutex::default(),
            calls: Calls::default(),
        }
    }

    /// From now on appends are dealt with in this way.
    pub fn on_append(&self, what: OnAppend) {
        *self.on_append.lock() = what;
    }

    /// From now on every read fails, or none does. A reader that waits already learns of it
    /// with the next record.
    pub fn fail_reads(&self, failing: bool) {
        self.reading.fails.store(failing, Ordering::Relaxed);
    }

    /// From now on the topic's readers see nothing new, though the topic's end moves on.
    pub fn hold_back(&self, topic: Topic) {
        self.reading.held_back.lock().insert(topic);
    }

    /// Readers of all topics see what there is.
    pub fn release(&self) {
        self.reading.held_back.lock().clear();
        for kept in self.kept.values() {
            kept.changed.send_replace(());
        }
    }

    /// How often each method of the port was called that can fail or joins a group, by its
    /// name.
    pub fn calls(&self) -> BTreeMap<&'static str, usize> {
        self.calls.all()
    }

    /// Sets which partitions this process is a member for, in every group.
    pub fn assign(&self, partitions: impl IntoIterator<Item = Partition>) {
        self.assignment
            .send_replace(partitions.into_iter().collect());
    }

    /// How far a group was last said to be with a partition.
    pub fn noted(&self, group: Group, partition: Partition) -> Option<Offset> {
        self.noted.lock().get(&(group, partition)).copied()
    }

    /// Every record of a partition, also those that were forgotten.
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
        kept.changed.send_replace(());
        Offset(all.len() as i64 - 1)
    }

    /// Damages or mends a record: replaces its value, and returns the one it had.
    pub fn overwrite(
        &self,
        topic: Topic,
        partition: Partition,
        offset: Offset,
        value: Bytes,
    ) -> Bytes {
        let mut records = self.kept[&(topic, partition)].records.lock();
        std::mem::replace(&mut records[offset.0 as usize].value, value)
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
        self.calls.count("append");
        let on_append = self.on_append.lock().clone();
        match on_append {
            OnAppend::Take => {}
            OnAppend::Fail(error) => return Err(error),
            OnAppend::Hang => std::future::pending().await,
        }
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
        self.calls.count("read");
        self.reading.check()?;
        let kept = self.kept[&(topic, partition)].clone();
        let changed = kept.changed.subscribe();
        Ok(Box::new(Reader {
            topic,
            kept,
            changed,
            reading: self.reading.clone(),
            next: from.0.max(0),
        }))
    }

    async fn end(&self, topic: Topic, partition: Partition) -> Result<Offset, ReadError> {
        self.calls.count("end");
        self.reading.check()?;
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
        self.calls.count("offset_at");
        self.reading.check()?;
        let records = self.kept[&(topic, partition)].records.lock();
        Ok(Offset(
            records.partition_point(|record| record.appended_at_ms < time) as i64,
        ))
    }

    fn assignment(&self, _group: Group) -> watch::Receiver<BTreeSet<Partition>> {
        self.calls.count("assignment");
        self.assignment.subscribe()
    }

    fn note_progress(&self, group: Group, partition: Partition, next: Offset) {
        self.noted.lock().insert((group, partition), next);
    }

    async fn forget(
        &self,
        topic: Topic,
        partition: Partition,
        before: Offset,
    ) -> Result<(), ReadError> {
        let kept = &self.kept[&(topic, partition)];
        kept.forgotten.fetch_max(before.0, Ordering::Relaxed);
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
    kept: Arc<Kept>,
    changed: watch::Receiver<()>,
    reading: Arc<Reading>,
    next: i64,
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        loop {
            // Seen before looking, so that what comes while looking is not slept through.
            self.changed.borrow_and_update();
            self.reading.check()?;
            let some = self.some();
            if let Some(last) = some.last() {
                self.next = last.offset.next().0;
                return Ok(some);
            }
            let changed = self.changed.changed().await;
            changed.map_err(|_| ReadError::Closed)?;
        }
    }
}

impl Reader {
    /// The next records, none when there are none yet or the topic is held back.
    fn some(&self) -> Vec<LogRecord> {
        if self.reading.held_back.lock().contains(&self.topic) {
            return vec![];
        }
        let records = self.kept.records.lock();
        let from = self.next.max(self.kept.forgotten.load(Ordering::Relaxed));
        let new = records.iter().skip(from as usize);
        new.take(READ_AT_ONCE).cloned().collect()
    }
}
