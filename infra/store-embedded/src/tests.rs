//! Tests of the store from the inside: failing disks, versions in several layers, shards.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use ports::ReadStore;
use ports::read_store::{AttemptRow, Progress, Row, StoreError};
use redb::backends::InMemoryBackend;
use schemas::ids::{AttemptId, Offset, Partition, Position};

use crate::contents::{Contents, Reopen};
use crate::flush::Flusher;
use crate::lookups::Lookups;
use crate::memtables::Memtables;
use crate::rows::tests::attempt;
use crate::rows::{SHARD_BITS, Table};
use crate::store::EmbeddedStore;
use crate::tables;

/// A disk whose writes or syncs a test lets fail.
#[derive(Debug, Clone)]
struct Disk {
    memory: Arc<InMemoryBackend>,
    fails: Arc<AtomicBool>,
    /// Whether writes fail, or else syncs.
    on_write: bool,
}

impl Disk {
    fn new(fails: &Arc<AtomicBool>, on_write: bool) -> Self {
        Self {
            memory: Arc::new(InMemoryBackend::new()),
            fails: fails.clone(),
            on_write,
        }
    }

    fn create(&self) -> redb::Database {
        let builder = redb::Database::builder();
        builder.create_with_backend(self.clone()).unwrap()
    }

    fn fail_if(&self, this_kind: bool) -> io::Result<()> {
        match this_kind && self.fails.load(Ordering::SeqCst) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => Ok(()),
        }
    }
}

impl redb::StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        self.memory.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.memory.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.memory.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.fail_if(!self.on_write)
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fail_if(self.on_write)?;
        self.memory.write(offset, data)
    }
}

#[tokio::test]
async fn a_failing_disk_refuses_writes_and_keeps_answering() {
    for on_write in [false, true] {
        let fails = Arc::new(AtomicBool::new(false));
        let disk = Disk::new(&fails, on_write);
        let file = disk.create();
        tables::recreate(&file).unwrap();
        let store = store_on(file, None);

        fails.store(true, Ordering::SeqCst);
        let row = attempt(1, 1);
        let rows = vec![Row::Attempt(row.clone())];
        assert_eq!(
            store.apply(Partition(0), rows.clone(), PROGRESS).await,
            Ok(())
        );
        let refused = until_refused(&store, &rows).await;
        assert!(refused.contains("cannot be written"), "{refused}");
        assert_eq!(
            store.attempt(row.attempt_id).await,
            Ok(Some(row)),
            "still in memory"
        );
        assert!(
            store.close().is_err(),
            "closing must say that rows were not written"
        );
    }
}

#[tokio::test]
async fn a_store_whose_disk_works_again_opens_its_file_again_and_continues() {
    for on_write in [false, true] {
        let fails = Arc::new(AtomicBool::new(false));
        let disk = Disk::new(&fails, on_write);
        let file = disk.create();
        tables::recreate(&file).unwrap();
        let same_disk = disk.clone();
        let reopen: Reopen = Box::new(move || {
            let opened = redb::Database::builder().create_with_backend(same_disk.clone());
            opened.map_err(|error| StoreError(error.to_string()))
        });
        let store = store_on(file, Some(reopen));
        let mut number = 0;
        for _ in 0..2 {
            number += 1;
            let row = attempt(number, 1);
            let rows = vec![Row::Attempt(row.clone())];
            fails.store(true, Ordering::SeqCst);
            store
                .apply(Partition(0), rows.clone(), PROGRESS)
                .await
                .unwrap();
            until_refused(&store, &rows).await;
            fails.store(false, Ordering::SeqCst);
            // The store takes rows again, without a restart, and has kept the others.
            while store
                .apply(Partition(0), rows.clone(), PROGRESS)
                .await
                .is_err()
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            assert_eq!(store.attempt(row.attempt_id).await, Ok(Some(row)));
        }
        store.close().unwrap();
        drop(store);
        let store = store_on(disk.create(), None);
        for number in 1..=number {
            let row = attempt(number, 1);
            assert_eq!(store.attempt(row.attempt_id).await, Ok(Some(row)));
        }
    }
}

const PROGRESS: Progress = Progress {
    next: Offset(1),
    claim: Offset(0),
    answered: Offset(0),
    log: None,
};

fn store_on(file: redb::Database, reopen: Option<Reopen>) -> EmbeddedStore {
    let (memtables, flush_now) = Memtables::new();
    let contents = Arc::new(Contents::new(file, memtables, reopen).unwrap());
    let flusher = Flusher::start(contents.clone(), flush_now).unwrap();
    EmbeddedStore {
        contents,
        flusher: Some(flusher.into()),
        lookups: Lookups::default(),
        _copy: None,
    }
}

/// Applies the rows until that is refused; returns the reason.
async fn until_refused(store: &EmbeddedStore, rows: &[Row]) -> String {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match store.apply(Partition(0), rows.to_vec(), PROGRESS).await {
            Err(refused) => return refused.to_string(),
            Ok(()) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
        assert!(Instant::now() < deadline, "the failure must show");
    }
}

#[tokio::test]
async fn a_row_is_read_in_its_highest_version_wherever_it_is() {
    let directory = tempfile::tempdir().unwrap();
    // Every order of three versions over the file, the memtable being flushed and the active one.
    for versions in [
        [1, 2, 3],
        [1, 3, 2],
        [2, 1, 3],
        [2, 3, 1],
        [3, 1, 2],
        [3, 2, 1],
    ] {
        let path = directory.path().join(format!("{versions:?}"));
        let file = redb::Database::create(&path).unwrap();
        tables::recreate(&file).unwrap();
        let (memtables, _) = Memtables::new();
        let contents = Contents::new(file, memtables, None).unwrap();
        let progress = Progress {
            next: Offset(1),
            claim: Offset(0),
            answered: Offset(0),
            log: None,
        };
        for (layer, version) in versions.into_iter().enumerate() {
            let row = attempt(1, version);
            let rows = [Row::Order(row.clone()), Row::Attempt(row)];
            let rows = rows
                .iter()
                .map(|row| crate::rows::encode(row).unwrap())
                .collect();
            contents
                .memtables
                .apply(Partition(0), rows, progress)
                .await
                .unwrap();
            match layer {
                0 => contents.flush().unwrap(),
                1 => assert!(contents.memtables.begin_flush().is_some()),
                _ => {}
            }
        }
        let newest = attempt(1, 3);
        let found = contents.attempt(newest.attempt_id);
        assert_eq!(found, Ok(Some(newest.clone())), "{versions:?}");
        let orders = contents.attempts_of(Table::Orders, newest.buyer_id.as_str(), None, 10);
        assert_eq!(orders, Ok(vec![newest.clone()]), "{versions:?}");
        // The file ends up with the same version.
        contents.flush().unwrap();
        contents.flush().unwrap();
        assert!(contents.memtables.begin_flush().is_none());
        assert_eq!(
            contents.attempt(newest.attempt_id),
            Ok(Some(newest)),
            "{versions:?}"
        );
    }
}

/// The row of a numbered attempt. The attempts lie in many shards of several partitions; `again`
/// gives the row of the same id, used again in the next shard.
fn attempt_row(number: u32, again: bool) -> AttemptRow {
    let spread = u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    let offset = i64::from(number / 40 + u32::from(again)) << SHARD_BITS | i64::from(number);
    AttemptRow {
        attempt_id: AttemptId::from_bytes(spread.to_be_bytes()),
        position: Position {
            partition: Partition(number % 3),
            offset: Offset(offset),
        },
        ..attempt(1, u64::from(number) + 1 + 10_000 * u64::from(again))
    }
}

#[tokio::test]
async fn an_attempt_is_one_row_however_many_shards_have_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("read.redb");
    let store = EmbeddedStore::open(&path).unwrap();
    let progress = Progress {
        next: Offset(1),
        claim: Offset(0),
        answered: Offset(0),
        log: None,
    };
    let mut newest = BTreeMap::new();
    // Most rows are in the file, some in memory only, and some in both.
    for (again, range) in [(false, 0..700), (true, 0..400), (false, 700..900)] {
        let first = newest.is_empty();
        let rows: Vec<_> = range
            .filter(|number| !again || number % 3 == 0)
            .map(|number| attempt_row(number, again))
            .collect();
        newest.extend(rows.iter().map(|row| (row.attempt_id, row.clone())));
        let rows = rows.into_iter().map(Row::Attempt).collect();
        store.apply(Partition(0), rows, progress).await.unwrap();
        if first {
            while let Some(memtable) = store.contents.memtables.begin_flush() {
                store.contents.write(&memtable).unwrap();
                store.contents.memtables.flush_succeeded();
            }
        }
    }
    for (id, row) in &newest {
        assert_eq!(store.attempt(*id).await, Ok(Some(row.clone())));
    }
    assert_eq!(
        store.attempt(AttemptId::from_bytes([9; 16])).await,
        Ok(None)
    );
    let (send, visited) = std::sync::mpsc::channel();
    let visit = move |row| send.send(row).is_ok();
    store.visit(Box::new(visit)).await.unwrap();
    let visited: Vec<_> = visited.iter().collect();
    let expected: Vec<_> = newest.into_values().map(Row::Attempt).collect();
    assert_eq!(visited, expected, "in the order of ids, each once");
}
