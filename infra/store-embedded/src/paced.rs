//! The file as redb sees it, written a little at a time.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::recent::Layers;
use crate::rests::rest;

/// So much is written between two syncs.
///
/// redb writes all pages of a transaction and then syncs once. The disk would be given tens of
/// megabytes of scattered pages at that moment, and the log's next sync, for which buyers wait,
/// would come after all of them.
const SYNC_EVERY_BYTES: usize = 256 << 10;

/// A file whose writes are made durable every so many bytes.
#[derive(Debug)]
pub(crate) struct Paced {
    file: FileBackend,
    unsynced_bytes: AtomicUsize,
    /// With these, whoever writes rests after every sync. redb has a lock meanwhile that only
    /// writers take.
    layers: Option<Arc<Layers>>,
}

impl Paced {
    pub(crate) fn new(file: FileBackend, layers: Option<Arc<Layers>>) -> Self {
        Self {
            file,
            unsynced_bytes: AtomicUsize::new(0),
            layers,
        }
    }
}

impl StorageBackend for Paced {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.unsynced_bytes.store(0, Relaxed);
        self.file.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)?;
        let unsynced = self.unsynced_bytes.fetch_add(data.len(), Relaxed) + data.len();
        if unsynced >= SYNC_EVERY_BYTES {
            self.sync_data()?;
            self.layers.iter().for_each(|layers| rest(layers));
        }
        Ok(())
    }

    fn close(&self) -> io::Result<()> {
        self.file.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.file.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.file.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.file.query_lock_range(start, end)
    }
}
