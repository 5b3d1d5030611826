//! The file as redb uses it: writes are synced in small portions, with pauses in between.

use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use redb::backends::FileBackend;
use redb::{BackendError, StorageBackend};

use crate::memtables::Memtables;
use crate::throttle;

/// Bytes written between two syncs.
///
/// redb writes all pages of a transaction and then syncs once. That would hand the disk tens of
/// megabytes of scattered pages at once, and the log's next sync, which buyers wait for, would
/// queue behind all of them.
const SYNC_EVERY_BYTES: usize = 256 << 10;

/// A file that syncs every [`SYNC_EVERY_BYTES`] of writes and then throttles the writer.
#[derive(Debug)]
pub(crate) struct ThrottledFile {
    file: FileBackend,
    unsynced_bytes: AtomicUsize,
    /// When present, the writing thread pauses after every sync. It holds a lock of redb meanwhile,
    /// which only writers take.
    memtables: Option<Arc<Memtables>>,
}

impl ThrottledFile {
    pub(crate) fn new(file: FileBackend, memtables: Option<Arc<Memtables>>) -> Self {
        Self {
            file,
            unsynced_bytes: AtomicUsize::new(0),
            memtables,
        }
    }
}

impl StorageBackend for ThrottledFile {
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
            if let Some(memtables) = &self.memtables {
                throttle::pause(memtables);
            }
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
