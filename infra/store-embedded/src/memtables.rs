//! Rows in memory that reads see and the file does not have yet.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::RwLock;
use ports::read_store::{Progress, StoreError};
use schemas::ids::Partition;
use tokio::sync::Notify;

use crate::rows::{EncodedRow, Table, version};

/// The most bytes in the active memtable; then `apply` waits for a flush. At 100,000 rows a second
/// this is three seconds' worth. The memtable being flushed may hold as many again.
const MAX_BYTES: usize = 64 << 20;

/// An active memtable of this size is flushed without further delay. As many bytes again fit in
/// until the flush begins.
const URGENT_BYTES: usize = MAX_BYTES / 2;

/// The memory of a row beside its key and value, roughly: two allocations and a slot in the tree.
const ROW_OVERHEAD_BYTES: usize = 96;

/// Rows, and the progress that they bring the partitions to.
#[derive(Debug, Default)]
pub(crate) struct Memtable {
    rows: [BTreeMap<Vec<u8>, Vec<u8>>; Table::ALL.len()],
    pub(crate) progress: BTreeMap<Partition, Progress>,
    bytes: usize,
}

impl Memtable {
    pub(crate) fn rows(&self, table: Table) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.rows[table as usize]
    }

    fn is_empty(&self) -> bool {
        self.progress.is_empty()
    }

    /// Stores the row unless the memtable has a higher version of it.
    fn write(&mut self, row: EncodedRow) {
        match self.rows[row.table as usize].entry(row.key) {
            Entry::Vacant(entry) => {
                self.bytes += entry.key().len() + row.value.len() + ROW_OVERHEAD_BYTES;
                entry.insert(row.value);
            }
            Entry::Occupied(mut entry) => {
                if version(&row.value) >= version(entry.get()) {
                    entry.insert(row.value);
                }
            }
        }
    }
}

/// The memtables of a store: the active one takes rows, the other one is being flushed.
#[derive(Debug)]
pub(crate) struct Memtables {
    state: RwLock<State>,
    /// Wakes the flushing thread before its time.
    flush_now: SyncSender<()>,
    /// Wakes calls of `apply` that wait for room: there is room now, or there never will be.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    active: Memtable,
    /// On its way into the file.
    flushing: Option<Arc<Memtable>>,
    /// Why the last flush failed, if it did.
    failure: Option<StoreError>,
    closed: bool,
}

impl Memtables {
    /// Empty memtables, and the receiver that is signalled when a flush is urgent or the memtables
    /// are closed.
    pub(crate) fn new() -> (Arc<Self>, Receiver<()>) {
        let (flush_now, signal) = sync_channel(1);
        let memtables = Self {
            state: RwLock::default(),
            flush_now,
            changed: Notify::new(),
        };
        (Arc::new(memtables), signal)
    }

    /// Applies rows, then the progress. Waits while the active memtable is full.
    pub(crate) async fn apply(
        &self,
        partition: Partition,
        rows: Vec<EncodedRow>,
        progress: Progress,
    ) -> Result<(), StoreError> {
        loop {
            // Registered before the state is read, so that no change in between is missed.
            let changed = self.changed.notified();
            {
                let mut state = self.state.write();
                if state.closed {
                    return Err(StoreError("the store is closed".into()));
                }
                if let Some(failure) = &state.failure {
                    return Err(failure.clone());
                }
                if state.active.bytes < MAX_BYTES {
                    rows.into_iter().for_each(|row| state.active.write(row));
                    state.active.progress.insert(partition, progress);
                    if state.active.bytes >= URGENT_BYTES {
                        // A full channel holds a signal already.
                        let _ = self.flush_now.try_send(());
                    }
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// Passes the memtables to `read`, newest first.
    ///
    /// A caller that reads the file as well must open the file's transaction afterwards: a memtable
    /// is dropped only once the file has its rows.
    pub(crate) fn read<R>(&self, read: impl FnOnce(&[&Memtable]) -> R) -> R {
        let state = self.state.read();
        match &state.flushing {
            Some(flushing) => read(&[&state.active, flushing]),
            None => read(&[&state.active]),
        }
    }

    /// The memtable to flush: the one whose flush failed, or the active one; none when there is
    /// nothing to flush.
    pub(crate) fn begin_flush(&self) -> Option<Arc<Memtable>> {
        let mut state = self.state.write();
        if state.flushing.is_none() && !state.active.is_empty() {
            state.flushing = Some(Arc::new(std::mem::take(&mut state.active)));
            self.changed.notify_waiters();
        }
        state.flushing.clone()
    }

    /// Whether the active memtable should be flushed soon: it is large, or the store is closing.
    pub(crate) fn flush_is_urgent(&self) -> bool {
        let state = self.state.read();
        state.closed || state.active.bytes >= URGENT_BYTES
    }

    /// Drops the memtable that was being flushed, if any: the file has its rows. Returns whether the
    /// flush before had failed.
    pub(crate) fn flush_succeeded(&self) -> bool {
        let mut state = self.state.write();
        let flushed = state.flushing.take();
        let had_failed = state.failure.take().is_some();
        drop(state);
        // Freeing tens of thousands of rows takes a while, so it is done without the lock.
        drop(flushed);
        had_failed
    }

    /// Notes that a flush failed. The memtable stays visible to reads and is flushed again later.
    /// Until that succeeds `apply` is refused, so that memory stays bounded. Returns whether this is
    /// the first failure since the last success.
    pub(crate) fn flush_failed(&self, failure: StoreError) -> bool {
        let mut state = self.state.write();
        let first = state.failure.is_none();
        state.failure.get_or_insert(failure);
        self.changed.notify_waiters();
        first
    }

    /// Refuses all further rows.
    pub(crate) fn close(&self) {
        self.state.write().closed = true;
        self.changed.notify_waiters();
        let _ = self.flush_now.try_send(());
    }

    /// Whether further rows are refused.
    pub(crate) fn are_closed(&self) -> bool {
        self.state.read().closed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u32, bytes: usize) -> EncodedRow {
        let value = [&1u64.to_be_bytes()[..], &vec![0; bytes]].concat();
        EncodedRow {
            table: Table::Attempts,
            key: number.to_be_bytes().into(),
            value,
        }
    }

    fn progress(next: i64) -> Progress {
        let next = schemas::ids::Offset(next);
        Progress {
            next,
            claim: next,
            answered: next,
            log: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn apply_waits_for_the_file_when_memory_is_full() {
        let (memtables, _) = Memtables::new();
        let mut applied = 0;
        let waits = std::time::Duration::from_secs(1);
        loop {
            let rows = vec![row(applied, 1 << 20)];
            let call = memtables.apply(Partition(0), rows, progress(applied.into()));
            if tokio::time::timeout(waits, call).await.is_err() {
                break;
            }
            applied += 1;
        }
        assert_eq!(applied as usize, MAX_BYTES >> 20);

        // A waiting call continues once the flush has begun.
        let waiting = memtables.apply(Partition(0), vec![row(applied, 1)], progress(1));
        let (waited, flushing) = tokio::join!(waiting, async { memtables.begin_flush() });
        assert_eq!(waited, Ok(()));
        assert_eq!(
            flushing.map(|memtable| memtable.rows(Table::Attempts).len()),
            Some(applied as usize)
        );
        let rows_in_memory = memtables.read(|memtables| {
            memtables
                .iter()
                .map(|memtable| memtable.rows(Table::Attempts).len())
                .collect::<Vec<_>>()
        });
        assert_eq!(rows_in_memory, [1, applied as usize]);
    }

    #[tokio::test]
    async fn a_flush_is_urgent_when_the_memtable_is_large_or_closed() {
        let (memtables, _) = Memtables::new();
        let apply =
            |number, bytes| memtables.apply(Partition(0), vec![row(number, bytes)], progress(1));
        apply(0, 1).await.unwrap();
        assert!(!memtables.flush_is_urgent());
        apply(1, URGENT_BYTES).await.unwrap();
        assert!(memtables.flush_is_urgent());
        // Rows on their way to the file do not count.
        memtables.begin_flush().unwrap();
        assert!(!memtables.flush_is_urgent());
        memtables.close();
        assert!(memtables.flush_is_urgent());
    }

    #[tokio::test(start_paused = true)]
    async fn a_waiting_call_is_refused_when_the_store_fails_or_closes() {
        for closes in [false, true] {
            let (memtables, _) = Memtables::new();
            memtables
                .apply(Partition(0), vec![row(0, MAX_BYTES)], progress(1))
                .await
                .unwrap();
            let waiting = memtables.apply(Partition(0), vec![row(1, 1)], progress(2));
            let waiting = tokio::time::timeout(std::time::Duration::from_secs(1), waiting);
            let (waited, ()) = tokio::join!(waiting, async {
                match closes {
                    true => memtables.close(),
                    false => assert!(memtables.flush_failed(StoreError("no space".into()))),
                }
            });
            let reason = if closes {
                "the store is closed"
            } else {
                "no space"
            };
            assert_eq!(waited, Ok(Err(StoreError(reason.into()))));
            // The first failure is the cause; later ones do not replace it.
            assert_eq!(
                memtables.flush_failed(StoreError("failed before".into())),
                closes
            );
        }
    }
}
