//! The event log as segmented files with group commit.
//!
//! All topics and partitions share one physical log, so that one sync serves every append that is
//! waiting at that moment. An append goes through the [`queue`] to the [`writer`]. The writer turns
//! everything queued into one batch of the [`format`], syncs it, and passes it to the partition's
//! [`tail`], from which a [`reader`] takes it. At the start [`open`] checks with [`scan`] what is on
//! disk. `infra/docs/log-format.md` describes the format.

mod error;
mod format;
mod options;

mod files;
mod segment;

mod open;
mod scan;

mod preparing;
mod queue;
mod reader;
mod tail;
mod writer;

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;

use async_trait::async_trait;
use parking_lot::Mutex;
use ports::CheckedClock;
use ports::event_log::{AppendError, EventLog, Group, LogReader, NewRecord, ReadError};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tokio::sync::watch;

use crate::files::{Directory, Files};
use crate::format::Meta;
use crate::preparing::HandOver;
use crate::queue::Queue;
use crate::segment::{Address, Fault};
use crate::tail::Tail;
use crate::writer::Writer;

pub use crate::error::OpenError;
pub use crate::options::Options;
pub use crate::scan::ScanProgress;

/// An event log in a directory.
///
/// Its methods need tokio's runtime. Dropping it closes it; readers may outlive it.
pub struct EmbeddedLog {
    shared: Arc<Shared>,
    /// All partitions; this never changes.
    assignment: watch::Sender<BTreeSet<Partition>>,
    /// None when the log is open for reading only.
    writing: Option<Writing>,
}

struct Writing {
    queue: Arc<Queue>,
    /// The clock that stamps the records.
    clock: Arc<CheckedClock>,
    /// None when the log has been closed.
    thread: Mutex<Option<WriterThread>>,
}

struct WriterThread {
    handle: JoinHandle<Result<(), String>>,
    /// Keeps other processes out while the writer may be running; none in tests.
    _lock: Option<File>,
}

/// What the writer and the readers share.
struct Shared {
    files: Arc<dyn Files>,
    /// The directory, for messages.
    dir: PathBuf,
    meta: Meta,
    /// By [`Meta::slot`].
    tails: Vec<Tail>,
    /// The segments that are being prepared.
    segments: Arc<HandOver>,
    /// Whether the next batch sets the log's time back to the clock's.
    correct_time: AtomicBool,
    batches: AtomicU64,
    batch_bytes: AtomicU64,
}

/// What a log has written since it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Written {
    /// The number of batches, each with one sync.
    pub batches: u64,
    /// The size of these batches.
    pub bytes: u64,
}

/// What a log is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// The number of records in the queue and on their way to the disk. While it is not 0 and
    /// [`Written::batches`] does not change, the disk does not answer.
    pub waiting_records: u64,
    /// Why the log takes no more records until it is opened again; none while it takes them.
    pub stopped: Option<String>,
    /// Why the log cannot prepare further segments at the moment, such as a full disk; none when it
    /// can. It tries again by itself. Once the current segment is full, appends fail with
    /// [`AppendError::Full`] until it succeeds.
    pub preparing_failure: Option<String>,
}

impl EmbeddedLog {
    /// Opens the log of a directory for this process alone, or creates one there. Reads and checks the
    /// whole log, and removes a write that a crash of the process or the machine left incomplete.
    /// Blocks until that is done. Compares the clock with the last record.
    pub fn open(dir: &Path, options: Options, clock: Arc<CheckedClock>) -> Result<Self, OpenError> {
        Self::open_with_progress(dir, options, clock, &ScanProgress::default())
    }

    /// The same as [`EmbeddedLog::open`], and notes meanwhile in `progress` how far it has come.
    pub fn open_with_progress(
        dir: &Path,
        options: Options,
        clock: Arc<CheckedClock>,
        progress: &ScanProgress,
    ) -> Result<Self, OpenError> {
        options.check()?;
        let lock = Directory::lock(dir).map_err(|error| OpenError::io(dir.to_owned(), error))?;
        let (files, lock) = lock.ok_or_else(|| OpenError::InUse {
            dir: dir.to_owned(),
        })?;
        Self::open_files(Arc::new(files), dir, Some(lock), &options, clock, progress)
    }

    /// Opens the log of a directory for reading, with the records that it has now, up to the last
    /// complete batch. Changes nothing and needs no lock, so another process may be writing. Records
    /// that it appends later are not returned, and its last batch may be returned before it is
    /// durable. Readers return [`ReadError::Closed`] at the end.
    pub fn open_read_only(dir: &Path) -> Result<Self, OpenError> {
        Self::open_files_read_only(Arc::new(Directory::read_only(dir)), dir)
    }

    fn open_files(
        files: Arc<dyn Files>,
        dir: &Path,
        lock: Option<File>,
        options: &Options,
        clock: Arc<CheckedClock>,
        progress: &ScanProgress,
    ) -> Result<Self, OpenError> {
        let open::Writable {
            meta,
            mut scanned,
            segments,
        } = open::open_writable(&*files, dir, options, progress)?;
        let tails = std::mem::take(&mut scanned.tails);
        if let Some(last_ms) = tails.iter().filter_map(Tail::last_time).max() {
            clock.start_after(last_ms);
        }
        let shared = Arc::new(Shared::new(files, dir, meta, tails));
        let queue = Queue::new(meta.slots(), options.queue_records, options.queue_bytes);
        let queue = Arc::new(queue);
        let io_error = |error| OpenError::io(dir.to_owned(), error);
        let (to_write, to_queue) = (shared.clone(), queue.clone());
        let writer = Writer::new(
            to_write,
            to_queue,
            clock.clone(),
            options,
            &scanned,
            segments,
        );
        let writer = writer.map_err(io_error)?;
        let thread = std::thread::Builder::new().name("log-writer".to_owned());
        let writer = thread.spawn(move || writer.run()).map_err(io_error)?;
        let thread = Some(WriterThread {
            handle: writer,
            _lock: lock,
        });
        let thread = Mutex::new(thread);
        Ok(Self::new(
            shared,
            Some(Writing {
                queue,
                clock,
                thread,
            }),
        ))
    }

    fn open_files_read_only(files: Arc<dyn Files>, dir: &Path) -> Result<Self, OpenError> {
        let meta = scan::read_meta(&*files, dir)?;
        let meta = meta.ok_or_else(|| OpenError::NoLog {
            dir: dir.to_owned(),
        })?;
        let tails = scan::scan(&*files, dir, meta, &ScanProgress::default())?.tails;
        tails.iter().for_each(Tail::close);
        let shared = Arc::new(Shared::new(files, dir, meta, tails));
        Ok(Self::new(shared, None))
    }

    fn new(shared: Arc<Shared>, writing: Option<Writing>) -> Self {
        let all = (0..shared.meta.partitions).map(Partition).collect();
        Self {
            shared,
            assignment: watch::Sender::new(all),
            writing,
        }
    }

    /// What has been written since the log was opened. Bytes divided by batches show how much one
    /// sync covers.
    pub fn written(&self) -> Written {
        Written {
            batches: self.shared.batches.load(Relaxed),
            bytes: self.shared.batch_bytes.load(Relaxed),
        }
    }

    /// What the log is doing.
    pub fn status(&self) -> Status {
        let writing = self.writing.as_ref();
        let (waiting_records, stopped) = match writing {
            Some(writing) => (writing.queue.waiting(), writing.queue.stopped()),
            None => (0, None),
        };
        Status {
            waiting_records,
            stopped,
            preparing_failure: self.shared.segments.failure(),
        }
    }

    /// Writes the queued records, marks the log as closed and ends its threads; blocks until that is
    /// done. From then on appends are refused, and readers return [`ReadError::Closed`] at the end of
    /// the log. A second call does nothing.
    ///
    /// # Errors
    ///
    /// The reason why the log had stopped before, or why the mark cannot be written.
    pub fn close(&self) -> Result<(), String> {
        let Some(writing) = &self.writing else {
            return Ok(());
        };
        let Some(thread) = writing.thread.lock().take() else {
            return Ok(());
        };
        writing.queue.close();
        let ended = thread.handle.join();
        let ended = ended.unwrap_or_else(|_| Err("the log's writer panicked".to_owned()));
        self.shared.tails.iter().for_each(Tail::close);
        ended
    }

    fn slot(&self, topic: Topic, partition: Partition) -> Result<usize, String> {
        let slot = self.shared.meta.slot(topic, partition);
        slot.ok_or_else(|| {
            let partitions = self.shared.meta.partitions;
            format!(
                "there is no partition {partition}; partitions are 0 to {}",
                partitions - 1
            )
        })
    }
}

impl Drop for EmbeddedLog {
    fn drop(&mut self) {
        if let Err(reason) = self.close() {
            tracing::warn!(reason, "the log was not closed properly");
        }
    }
}

#[async_trait]
impl EventLog for EmbeddedLog {
    fn partitions(&self) -> u32 {
        self.shared.meta.partitions
    }

    async fn append(
        &self,
        topic: Topic,
        partition: Partition,
        records: Vec<NewRecord>,
    ) -> Result<Offset, AppendError> {
        records.iter().try_for_each(NewRecord::check_bounds)?;
        let slot = self.slot(topic, partition).map_err(AppendError::Stopped)?;
        let writing = self.writing.as_ref();
        let writing = writing
            .ok_or_else(|| AppendError::Stopped("it is open for reading only".to_owned()))?;
        let answer = writing.queue.push(slot, &records)?;
        // The queue has a copy, so their memory is freed before the disk is done.
        drop(records);
        let lost = || AppendError::Unknown("the log's writer ended without answering".to_owned());
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    async fn read(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, ReadError> {
        let slot = self
            .slot(topic, partition)
            .map_err(ReadError::Unavailable)?;
        let end = Offset(self.shared.tails[slot].durable_end());
        ReadError::check_end(topic, partition, from, end)?;
        Ok(Box::new(reader::Reader::new(
            self.shared.clone(),
            slot,
            from.0,
        )))
    }

    async fn end(&self, topic: Topic, partition: Partition) -> Result<Offset, ReadError> {
        let slot = self
            .slot(topic, partition)
            .map_err(ReadError::Unavailable)?;
        Ok(Offset(self.shared.tails[slot].durable_end()))
    }

    async fn offset_at(
        &self,
        topic: Topic,
        partition: Partition,
        time: TimestampMs,
    ) -> Result<Offset, ReadError> {
        let slot = self
            .slot(topic, partition)
            .map_err(ReadError::Unavailable)?;
        let end = self.shared.tails[slot].durable_end();
        if let Some(offset) = self.shared.tails[slot].cached_at(time) {
            return Ok(Offset(offset));
        }
        let shared = self.shared.clone();
        let found =
            tokio::task::spawn_blocking(move || reader::find_time(&shared, slot, time, end));
        let aborted = |error| {
            ReadError::Unavailable(format!("the search for an offset was aborted: {error}"))
        };
        found.await.map_err(aborted)?.map(Offset)
    }

    /// The machine's clock is taken for right. The batch that sets the log's time back has a mark, so
    /// that the log has the corrected time also after a restart.
    fn correct_clock(&self) {
        if let Some(writing) = &self.writing {
            writing.clock.trust();
            self.shared.correct_time.store(true, Relaxed);
        }
    }

    /// Every partition, permanently: this process alone uses the directory.
    fn assignment(&self, _group: Group) -> watch::Receiver<BTreeSet<Partition>> {
        self.assignment.subscribe()
    }

    /// Does nothing: the metrics show the progress.
    fn note_progress(&self, _group: Group, _partition: Partition, _next: Offset) {}

    /// Does nothing: segments have records of all topics, so none can be dropped.
    async fn forget(
        &self,
        _topic: Topic,
        _partition: Partition,
        _before: Offset,
    ) -> Result<(), ReadError> {
        Ok(())
    }
}

impl Shared {
    fn new(files: Arc<dyn Files>, dir: &Path, meta: Meta, tails: Vec<Tail>) -> Self {
        Self {
            files,
            dir: dir.to_owned(),
            meta,
            tails,
            segments: Arc::default(),
            correct_time: AtomicBool::new(false),
            batches: AtomicU64::new(0),
            batch_bytes: AtomicU64::new(0),
        }
    }

    fn damaged(&self, address: Address, what: &str) -> ReadError {
        let file = self.dir.join(format::segment_name(address.segment));
        let file = file.display();
        ReadError::Damaged(format!(
            "{file} is damaged at byte {}: {what}",
            address.position
        ))
    }

    fn read_fault(&self, address: Address, fault: Fault) -> ReadError {
        let file = self.dir.join(format::segment_name(address.segment));
        match fault {
            Fault::Io(error) => ReadError::Unavailable(format!("{}: {error}", file.display())),
            Fault::Bad(what) => self.damaged(address, &what),
            Fault::Version(found) => {
                self.damaged(address, &format!("its format version changed to {found}"))
            }
        }
    }
}
