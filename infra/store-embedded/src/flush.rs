//! The thread that flushes memtables to the file.

use std::fmt::Display;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ports::read_store::StoreError;

use crate::contents::Contents;
use crate::memtables::Memtable;
use crate::rows::{Table, encode_progress, version};
use crate::tables::{PROGRESS, definition};
use crate::{shards, throttle};

/// The shortest pause between two flushes.
const MIN_INTERVAL: Duration = Duration::from_millis(500);
/// The longest pause. A crash loses no more than this much and the flush under way.
const MAX_INTERVAL: Duration = Duration::from_secs(4);
/// The longest pause after a failure. Each is at least twice as long as the one before.
const MAX_RETRY: Duration = Duration::from_secs(15);
/// The pause after a flush, as a multiple of the flush's own time. Random keys fall on leaves all
/// over the file, and each leaf is written whole; the more rows a flush has, the more of them share
/// a leaf.
const INTERVAL_FACTOR: u32 = 9;
/// How much lower the thread's priority is than that of all others: requests come first, and no
/// request waits for the file.
const NICENESS: i32 = 10;

/// Rows put into the transaction between two throttling pauses.
const ROWS_AT_ONCE: usize = 256;

/// The thread's handle.
pub(crate) struct Flusher(Option<JoinHandle<Result<(), StoreError>>>);

impl Flusher {
    /// Starts the thread. `flush_now` is signalled when a flush is urgent or the store closes.
    pub(crate) fn start(contents: Arc<Contents>, flush_now: Receiver<()>) -> std::io::Result<Self> {
        let run = move || {
            lower_priority();
            let mut interval = MIN_INTERVAL;
            loop {
                let _ = flush_now.recv_timeout(interval);
                if contents.memtables.are_closed() {
                    return contents.flush();
                }
                let began = Instant::now();
                // `flush` logs failures; the same rows are flushed again next time.
                let flushed = contents.flush();
                let pause = began.elapsed() * INTERVAL_FACTOR;
                interval = match flushed {
                    Ok(()) => pause.clamp(MIN_INTERVAL, MAX_INTERVAL),
                    // Opening the file again reads all of it.
                    Err(_) => pause.max(2 * interval).clamp(MIN_INTERVAL, MAX_RETRY),
                };
            }
        };
        let thread = std::thread::Builder::new()
            .name("store-flush".into())
            .spawn(run)?;
        Ok(Self(Some(thread)))
    }

    pub(crate) fn close(&mut self, contents: &Contents) -> Result<(), StoreError> {
        let Some(thread) = self.0.take() else {
            return Ok(());
        };
        contents.memtables.close();
        thread
            .join()
            .unwrap_or_else(|_| Err(StoreError("the flushing thread panicked".into())))
    }
}

/// Lowers the priority of this thread alone: Linux applies niceness by thread.
fn lower_priority() {
    let this = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(this), NICENESS) {
        tracing::debug!(%error, "cannot lower the priority of the read store's flushing thread");
    }
}

impl Contents {
    /// Writes the next memtable to the file, if there is anything to write. After a failure, opens
    /// the file again first.
    pub(crate) fn flush(&self) -> Result<(), StoreError> {
        // A panic of redb must not end the thread: opening the file again mends it as well.
        let flushed = catch_unwind(AssertUnwindSafe(|| self.try_to_flush()));
        let flushed = flushed.unwrap_or_else(|_| Err(StoreError("redb panicked".into())));
        match &flushed {
            Ok(()) => {
                if self.memtables.flush_succeeded() {
                    tracing::info!("the read store's file can be written again");
                }
            }
            Err(failure) => {
                self.note_failure();
                if self.memtables.flush_failed(failure.clone()) {
                    tracing::error!(
                        error = %failure,
                        "the read store has failed; its rows stay in memory, and it opens its file \
                         and writes them again. Check the disk's free space"
                    );
                }
            }
        }
        flushed
    }

    fn try_to_flush(&self) -> Result<(), StoreError> {
        let failed = |what, error: &dyn Display| StoreError(format!("{what}: {error}"));
        self.reopen_if_broken()
            .map_err(|error| failed("its file cannot be opened again", &error))?;
        let Some(memtable) = self.memtables.begin_flush() else {
            return Ok(());
        };
        self.write(&memtable)
            .map_err(|error| failed("its file cannot be written", &error))
    }

    /// Writes a memtable in one durable transaction: the rows whose versions are not lower than the
    /// file's, and the progress.
    pub(crate) fn write(&self, memtable: &Memtable) -> Result<(), redb::Error> {
        let transaction = self.begin_write()?;
        for table in Table::ALL {
            let mut file = transaction.open_table(definition(table))?;
            for (number, (key, value)) in memtable.rows(table).iter().enumerate() {
                if number % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 {
                    throttle::pause(&self.memtables);
                }
                // Inserted first, and the old value restored if it was newer: nearly every row
                // is new or newer, and a read before each write would double the work.
                let old = file.insert(key.as_slice(), value.as_slice())?;
                let newer = old
                    .map(|old| old.value().to_vec())
                    .filter(|old| version(old) > version(value));
                if let Some(newer) = newer {
                    file.insert(key.as_slice(), newer.as_slice())?;
                }
            }
        }
        let mut file = transaction.open_table(PROGRESS)?;
        for (partition, progress) in &memtable.progress {
            file.insert(partition.0, encode_progress(progress))?;
        }
        drop(file);
        transaction.commit()?;
        self.shards.write().extend(shards::of_memtable(memtable)?);
        Ok(())
    }
}
