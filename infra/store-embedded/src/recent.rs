//! The rows in memory: applied and visible, not yet in the file.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use parking_lot::RwLock;
use ports::read_store::{Progress, StoreError};
use schemas::ids::Partition;
use tokio::sync::Notify;

use crate::rows::{EncodedRow, Table, version};

/// The most bytes that may gather before `apply` waits for the file. At 100,000 rows a second
/// this is three seconds' worth. The layer being written may have as many again.
const MAX_BYTES: usize = 64 << 20;

/// When so many have gathered, they are written without further delay, and there is room for
/// as many again while the writing begins.
const HURRY_BYTES: usize = MAX_BYTES / 2;

/// What a row costs in memory beside its key and value, roughly: two allocations and its
/// place in the tree.
const ROW_OVERHEAD_BYTES: usize = 96;

/// Rows and the progress they amount to.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    rows: [BTreeMap<Vec<u8>, Vec<u8>>; 4],
    pub(crate) progress: BTreeMap<Partition, Progress>,
    bytes: usize,
}

impl Recent {
    pub(crate) fn rows(&self, table: Table) -> &BTreeMap<Vec<u8>, Vec<u8>> {
        &self.rows[table as usize]
    }

    fn is_empty(&self) -> bool {
        self.progress.is_empty()
    }

    /// Keeps the row unless a higher version of it is here.
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

/// The layers above the file.
#[derive(Debug)]
pub(crate) struct Layers {
    state: RwLock<State>,
    /// Tells the thread that writes not to wait any longer.
    hurry: SyncSender<()>,
    /// Told when `apply` may look again: there is room, or there will be none.
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    recent: Recent,
    /// On its way into the file.
    writing: Option<Arc<Recent>>,
    /// Why the last writing failed, if it did.
    failure: Option<StoreError>,
    closed: bool,
}

impl Layers {
    /// Empty ones, and what tells when they should be written at once, or are closed.
    pub(crate) fn new() -> (Arc<Self>, Receiver<()>) {
        let (hurry, told) = sync_channel(1);
        let layers = Self {
            state: RwLock::default(),
            hurry,
            changed: Notify::new(),
        };
        (Arc::new(layers), told)
    }

    /// Applies rows, then the progress. Waits while too much is unwritten.
    pub(crate) async fn apply(
        &self,
        partition: Partition,
        rows: Vec<EncodedRow>,
        progress: Progress,
    ) -> Result<(), StoreError> {
        loop {
            // Taken before the look at the state, so that no change in between is missed.
            let changed = self.changed.notified();
            {
                let mut state = self.state.write();
                if state.closed {
                    return Err(StoreError("the store is closed".into()));
                }
                if let Some(failure) = &state.failure {
                    return Err(failure.clone());
                }
                if state.recent.bytes < MAX_BYTES {
                    rows.into_iter().for_each(|row| state.recent.write(row));
                    state.recent.progress.insert(partition, progress);
                    if state.recent.bytes >= HURRY_BYTES {
                        // It may have been told already.
                        let _ = self.hurry.try_send(());
                    }
                    return Ok(());
                }
            }
            changed.await;
        }
    }

    /// Reads the layers above the file, newest first.
    ///
    /// Whoever also reads the file must begin to do so afterwards: a layer goes away only once
    /// the file has it.
    pub(crate) fn read<R>(&self, look: impl FnOnce(&[&Recent]) -> R) -> R {
        let state = self.state.read();
        match &state.writing {
            Some(writing) => look(&[&state.recent, writing]),
            None => look(&[&state.recent]),
        }
    }

    /// The next layer to write to the file: the one whose writing failed, or all that has
    /// gathered since; none when nothing has.
    pub(crate) fn begin_writing(&self) -> Option<Arc<Recent>> {
        let mut state = self.state.write();
        if state.writing.is_none() && !state.recent.is_empty() {
            state.writing = Some(Arc::new(std::mem::take(&mut state.recent)));
            self.changed.notify_waiters();
        }
        state.writing.clone()
    }

    /// Whether what has gathered should be in the file soon: there is much of it, or the end has
    /// come.
    pub(crate) fn are_urgent(&self) -> bool {
        let state = self.state.read();
        state.closed || state.recent.bytes >= HURRY_BYTES
    }

    /// The layer is in the file.
    pub(crate) fn written(&self) {
        let mut state = self.state.write();
        let written = state.writing.take();
        state.failure = None;
        drop(state);
        // Freeing tens of thousands of rows takes a while, and readers need not wait for it.
        drop(written);
    }

    /// The layer could not be written. It stays where reads see it, to be tried again; until
    /// that succeeds `apply` is refused, since memory is no place to keep what has no end.
    /// Returns whether the failure is the first since the last success; later ones only say
    /// that there was one before.
    pub(crate) fn not_written(&self, failure: StoreError) -> bool {
        let mut state = self.state.write();
        let first = state.failure.is_none();
        state.failure.get_or_insert(failure);
        self.changed.notify_waiters();
        first
    }

    /// Refuses whatever is applied from now on.
    pub(crate) fn close(&self) {
        self.state.write().closed = true;
        self.changed.notify_waiters();
        let _ = self.hurry.try_send(());
    }

    /// Whether nothing more will be applied.
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
        }
    }

    #[tokio::test(start_paused = true)]
    async fn apply_waits_for_the_file_when_memory_is_full() {
        let (layers, _) = Layers::new();
        let mut applied = 0;
        let waits = std::time::Duration::from_secs(1);
        loop {
            let rows = vec![row(applied, 1 << 20)];
            let call = layers.apply(Partition(0), rows, progress(applied.into()));
            if tokio::time::timeout(waits, call).await.is_err() {
                break;
            }
            applied += 1;
        }
        assert_eq!(applied as usize, MAX_BYTES >> 20);

        // One that waits goes on when the rows are on their way to the file, but no further.
        let waiting = layers.apply(Partition(0), vec![row(applied, 1)], progress(1));
        let (waited, layer) = tokio::join!(waiting, async { layers.begin_writing() });
        assert_eq!(waited, Ok(()));
        assert_eq!(
            layer.map(|layer| layer.rows(Table::Attempts).len()),
            Some(applied as usize)
        );
        let rows_in_memory = layers.read(|layers| {
            layers
                .iter()
                .map(|layer| layer.rows(Table::Attempts).len())
                .collect::<Vec<_>>()
        });
        assert_eq!(rows_in_memory, [1, applied as usize]);
    }

    #[tokio::test]
    async fn writing_is_urgent_when_much_has_gathered_and_at_the_end() {
        let (layers, _) = Layers::new();
        let apply =
            |number, bytes| layers.apply(Partition(0), vec![row(number, bytes)], progress(1));
        apply(0, 1).await.unwrap();
        assert!(!layers.are_urgent());
        apply(1, HURRY_BYTES).await.unwrap();
        assert!(layers.are_urgent());
        // What is on its way to the file presses nobody.
        layers.begin_writing().unwrap();
        assert!(!layers.are_urgent());
        layers.close();
        assert!(layers.are_urgent());
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_waits_is_refused_when_the_store_fails_or_closes() {
        for closes in [false, true] {
            let (layers, _) = Layers::new();
            layers
                .apply(Partition(0), vec![row(0, MAX_BYTES)], progress(1))
                .await
                .unwrap();
            let waiting = layers.apply(Partition(0), vec![row(1, 1)], progress(2));
            let waiting = tokio::time::timeout(std::time::Duration::from_secs(1), waiting);
            let (waited, ()) = tokio::join!(waiting, async {
                match closes {
                    true => layers.close(),
                    false => assert!(layers.not_written(StoreError("no space".into()))),
                }
            });
            let reason = if closes {
                "the store is closed"
            } else {
                "no space"
            };
            assert_eq!(waited, Ok(Err(StoreError(reason.into()))));
            // The failure that says why stays; what follows from it does not replace it.
            assert_eq!(
                layers.not_written(StoreError("failed before".into())),
                closes
            );
        }
    }
}
