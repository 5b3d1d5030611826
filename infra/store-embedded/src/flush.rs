//! The thread that writes the recent rows to the file.

use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use ports::read_store::StoreError;

use crate::Shared;
use crate::open::{PROGRESS, definition};
use crate::recent::Recent;
use crate::rows::{Table, encode_progress, version};

/// How long rows gather before they are written.
const GATHER: Duration = Duration::from_millis(500);

/// The thread's handle.
pub(crate) struct Flusher {
    /// Dropped to end the thread.
    running: Option<Sender<()>>,
    thread: Option<JoinHandle<Result<(), StoreError>>>,
}

impl Flusher {
    pub(crate) fn start(shared: Arc<Shared>) -> std::io::Result<Self> {
        let (running, ended) = channel::<()>();
        let run = move || {
            while let Err(RecvTimeoutError::Timeout) = ended.recv_timeout(GATHER) {
                // The failure is logged, and the same rows are tried again next time.
                let _ = shared.flush();
            }
            shared.flush()
        };
        let thread = std::thread::Builder::new()
            .name("store-flush".into())
            .spawn(run)?;
        Ok(Self {
            running: Some(running),
            thread: Some(thread),
        })
    }

    pub(crate) fn close(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let Some(thread) = self.thread.take() else {
            return Ok(());
        };
        shared.layers.close();
        self.running = None;
        thread
            .join()
            .unwrap_or_else(|_| Err(StoreError("the flushing thread panicked".into())))
    }
}

impl Shared {
    fn flush(&self) -> Result<(), StoreError> {
        let Some(recent) = self.layers.begin_writing() else {
            return Ok(());
        };
        match self.write(&recent) {
            Ok(()) => {
                self.layers.written();
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, "the read store's file cannot be written");
                let error = StoreError(error.to_string());
                self.layers.not_written(error.clone());
                Err(error)
            }
        }
    }

    /// One durable transaction: the rows whose versions are not lower, then the progress.
    fn write(&self, recent: &Recent) -> Result<(), redb::Error> {
        let transaction = self.file.begin_write()?;
        for table in Table::ALL {
            let mut file = transaction.open_table(definition(table))?;
            for (key, value) in recent.rows(table) {
                // Written first and put back if need be: nearly every row is new or newer, and
                // a look before each write would double the work.
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
        for (partition, progress) in &recent.progress {
            file.insert(partition.0, encode_progress(progress))?;
        }
        drop(file);
        transaction.commit()?;
        Ok(())
    }
}
