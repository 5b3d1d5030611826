//! The thread that writes the recent rows to the file.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use ports::read_store::StoreError;

use crate::Shared;
use crate::eras;
use crate::open::{PROGRESS, definition};
use crate::recent::Recent;
use crate::rests::rest;
use crate::rows::{Table, encode_progress, version};

/// How long rows gather at least, from one writing to the next.
const GATHER: Duration = Duration::from_millis(500);
/// How long at most; a crash takes back no more than this and the writing under way.
const GATHER_AT_MOST: Duration = Duration::from_secs(4);
/// The thread rests so many times as long as it wrote. Random keys fall on leaves all over the
/// file, each of which is written whole; the more rows gather, the more of them share one.
const REST: u32 = 9;
/// How much lower than that of all other threads its priority is: whoever waits for an answer
/// comes first, and nobody waits for the file.
const NICENESS: i32 = 10;

/// So many rows are put into the transaction between two rests.
const ROWS_AT_ONCE: usize = 256;

/// The thread's handle.
pub(crate) struct Flusher(Option<JoinHandle<Result<(), StoreError>>>);

impl Flusher {
    /// `hurry` tells when so much has gathered that it is time to write, or the end has come.
    pub(crate) fn start(shared: Arc<Shared>, hurry: Receiver<()>) -> std::io::Result<Self> {
        let run = move || {
            lower_priority();
            let mut pause = GATHER;
            loop {
                let _ = hurry.recv_timeout(pause);
                if shared.layers.are_closed() {
                    return shared.flush();
                }
                let began = Instant::now();
                // A failure is logged there, and the same rows are tried again next time.
                pause = match shared.flush() {
                    Ok(()) => (began.elapsed() * REST).clamp(GATHER, GATHER_AT_MOST),
                    Err(_) => GATHER,
                };
            }
        };
        let thread = std::thread::Builder::new()
            .name("store-flush".into())
            .spawn(run)?;
        Ok(Self(Some(thread)))
    }

    pub(crate) fn close(&mut self, shared: &Shared) -> Result<(), StoreError> {
        let Some(thread) = self.0.take() else {
            return Ok(());
        };
        shared.layers.close();
        thread
            .join()
            .unwrap_or_else(|_| Err(StoreError("the flushing thread panicked".into())))
    }
}

/// Of this thread alone, to which Linux applies it.
fn lower_priority() {
    let this = rustix::thread::gettid();
    if let Err(error) = rustix::process::setpriority_process(Some(this), NICENESS) {
        tracing::debug!(%error, "the read store is written at ordinary priority");
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
                let failure = StoreError(format!("its file cannot be written: {error}"));
                if self.layers.not_written(failure.clone()) {
                    tracing::error!(%error, "the read store's file cannot be written");
                }
                Err(failure)
            }
        }
    }

    /// One durable transaction: the rows whose versions are not lower, then the progress.
    pub(crate) fn write(&self, recent: &Recent) -> Result<(), redb::Error> {
        let transaction = self.file.begin_write()?;
        for table in Table::ALL {
            let mut file = transaction.open_table(definition(table))?;
            for (number, (key, value)) in recent.rows(table).iter().enumerate() {
                if number % ROWS_AT_ONCE == ROWS_AT_ONCE - 1 {
                    rest(&self.layers);
                }
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
        self.eras.write().extend(eras::of_layer(recent)?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};

    use ports::ReadStore;
    use ports::read_store::{Progress, Row};
    use redb::backends::InMemoryBackend;
    use schemas::ids::{Offset, Partition};

    use super::*;
    use crate::EmbeddedStore;
    use crate::open::prepare;
    use crate::recent::Layers;
    use crate::rows::tests::attempt;

    /// A disk that fails when told to.
    #[derive(Debug)]
    struct Disk {
        memory: InMemoryBackend,
        fails: Arc<AtomicBool>,
        /// Whether it is writing that fails, or making durable.
        on_write: bool,
    }

    impl Disk {
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
            let disk = Disk {
                memory: InMemoryBackend::new(),
                fails: fails.clone(),
                on_write,
            };
            let file = redb::Database::builder().create_with_backend(disk).unwrap();
            prepare(&file).unwrap();
            let (layers, hurry) = Layers::new();
            let shared = Arc::new(Shared::new(file, layers).unwrap());
            let flusher = Flusher::start(shared.clone(), hurry).unwrap();
            let store = EmbeddedStore {
                shared,
                flusher: Some(flusher.into()),
                _copy: None,
            };
            let progress = Progress {
                next: Offset(1),
                claim: Offset(0),
                answered: Offset(0),
            };

            fails.store(true, Ordering::SeqCst);
            let row = attempt(1, 1);
            let rows = vec![Row::Attempt(row.clone())];
            assert_eq!(
                store.apply(Partition(0), rows.clone(), progress).await,
                Ok(())
            );
            let deadline = Instant::now() + Duration::from_secs(20);
            let refused = loop {
                match store.apply(Partition(0), rows.clone(), progress).await {
                    Err(refused) => break refused.to_string(),
                    Ok(()) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
                assert!(Instant::now() < deadline, "the failure must show");
            };
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
    async fn a_row_is_read_in_its_highest_version_wherever_it_is() {
        let directory = tempfile::tempdir().unwrap();
        // Every order of three versions over file, layer being written and recent layer.
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
            prepare(&file).unwrap();
            let (layers, _) = Layers::new();
            let shared = Shared::new(file, layers).unwrap();
            let progress = Progress {
                next: Offset(1),
                claim: Offset(0),
                answered: Offset(0),
            };
            for (layer, version) in versions.into_iter().enumerate() {
                let row = attempt(1, version);
                let rows = [Row::Order(row.clone()), Row::Attempt(row)];
                let rows = rows
                    .iter()
                    .map(|row| crate::rows::encode(row).unwrap())
                    .collect();
                shared
                    .layers
                    .apply(Partition(0), rows, progress)
                    .await
                    .unwrap();
                match layer {
                    0 => shared.flush().unwrap(),
                    1 => assert!(shared.layers.begin_writing().is_some()),
                    _ => {}
                }
            }
            let newest = attempt(1, 3);
            let found = shared.attempt(newest.attempt_id);
            assert_eq!(found, Ok(Some(newest.clone())), "{versions:?}");
            let orders = shared.attempts_of(Table::Orders, newest.buyer_id.as_str(), None, 10);
            assert_eq!(orders, Ok(vec![newest.clone()]), "{versions:?}");
            // And so it ends up in the file.
            shared.flush().unwrap();
            shared.flush().unwrap();
            assert!(shared.layers.begin_writing().is_none());
            assert_eq!(
                shared.attempt(newest.attempt_id),
                Ok(Some(newest)),
                "{versions:?}"
            );
        }
    }
}
