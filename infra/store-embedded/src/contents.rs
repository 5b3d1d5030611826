//! What callers and the flushing thread share: the file, the memtables above it, and the list of
//! the file's shards.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use parking_lot::RwLock;
use ports::read_store::StoreError;
use redb::{Database, ReadTransaction, ReadableDatabase, WriteTransaction};

use crate::memtables::Memtables;
use crate::rows::Shard;
use crate::shards;

/// Opens the store's file again, which must exist.
pub(crate) type Reopen = Box<dyn Fn() -> Result<Database, StoreError> + Send + Sync>;

/// The contents of a store.
pub(crate) struct Contents {
    /// None while the file is being opened again.
    file: RwLock<Option<Database>>,
    /// Whether a call of redb failed: from then on all others may fail as well, until the file is
    /// opened again.
    broken: AtomicBool,
    /// None for a copy, which is never opened again.
    reopen: Option<Reopen>,
    pub(crate) memtables: Arc<Memtables>,
    /// The shards that the file has attempts of. A shard is added before the memtable with its rows
    /// is dropped.
    pub(crate) shards: RwLock<BTreeSet<Shard>>,
}

impl Contents {
    pub(crate) fn new(
        file: Database,
        memtables: Arc<Memtables>,
        reopen: Option<Reopen>,
    ) -> Result<Self, redb::Error> {
        let shards = shards::of_file(&file)?.into_iter().collect();
        Ok(Self {
            file: RwLock::new(Some(file)),
            broken: AtomicBool::new(false),
            reopen,
            memtables,
            shards: RwLock::new(shards),
        })
    }

    /// Begins to read the file.
    pub(crate) fn begin_read(&self) -> Result<ReadTransaction, redb::Error> {
        match &*self.file.read() {
            Some(file) => Ok(file.begin_read()?),
            None => Err(redb::Error::DatabaseClosed),
        }
    }

    /// Begins to write the file. Only the flushing thread does.
    pub(crate) fn begin_write(&self) -> Result<WriteTransaction, redb::Error> {
        match &*self.file.read() {
            Some(file) => Ok(file.begin_write()?),
            None => Err(redb::Error::DatabaseClosed),
        }
    }

    /// The error of a failed read, as callers get it. The file is opened again if it needs to be.
    pub(crate) fn read_failed(&self, error: redb::Error) -> StoreError {
        self.note_failure();
        match error {
            redb::Error::DatabaseClosed | redb::Error::PreviousIo => {
                StoreError("its file is being opened again after a failure; retry".into())
            }
            error => StoreError(error.to_string()),
        }
    }

    /// Notes that a call of redb failed.
    pub(crate) fn note_failure(&self) {
        self.broken.store(true, Relaxed);
    }

    /// Opens the file again if a call of redb has failed. Returns whether it did.
    ///
    /// redb refuses every call after one of its own failed, such as a write to a full disk, because
    /// it no longer knows what the file has. Opening the file again brings it back to the last
    /// durable transaction.
    pub(crate) fn reopen_if_broken(&self) -> Result<bool, StoreError> {
        let Some(reopen) = &self.reopen else {
            return Ok(false);
        };
        if !self.broken.swap(false, Relaxed) {
            return Ok(false);
        }
        // The file is locked until it is closed.
        drop(self.file.write().take());
        let reopened = reopen().and_then(|file| {
            let shards = shards::of_file(&file).map_err(|error| StoreError(error.to_string()))?;
            self.shards.write().extend(shards);
            Ok(file)
        });
        match reopened {
            Ok(file) => {
                *self.file.write() = Some(file);
                // Reads that met the closed file have noted that as a failure.
                self.broken.store(false, Relaxed);
                Ok(true)
            }
            Err(error) => {
                self.note_failure();
                Err(error)
            }
        }
    }
}
