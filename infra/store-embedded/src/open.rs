//! Opening the file: new, found, of another version, damaged, or a copy.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use redb::backends::FileBackend;
use redb::{
    Database, DatabaseError, ReadableDatabase, RepairSession, StorageError, TableDefinition,
    TableError,
};
use tempfile::NamedTempFile;

use crate::flush::Flusher;
use crate::paced::Paced;
use crate::recent::Layers;
use crate::rows::{FORMAT, Table};
use crate::{EmbeddedStore, Shared};

/// Progress by partition: next offset, claim, last answered offset.
pub(crate) const PROGRESS: TableDefinition<u32, (i64, i64, i64)> = TableDefinition::new("progress");
/// The format's version, under [`FORMAT_KEY`].
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";

/// Memory for pages of the file. Its hot part is the leaves that new rows go to.
const CACHE_BYTES: usize = 256 << 20;
/// The same while all of it is read once. With so little, each page is read to where the one
/// before was, which the processor has at hand: it takes less than half as long.
const CHECK_CACHE_BYTES: usize = 1 << 20;

/// How often a copy is made anew when the file changed under it, and how long apart. The
/// pauses are of no round length, so that they do not keep step with the writer.
const COPIES: u32 = 8;
const BETWEEN_COPIES: Duration = Duration::from_millis(137);

/// The definition of a table of rows.
pub(crate) fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// Why a read store was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it open.
    #[error("the read store {} is in use by another process; stop that one first", path.display())]
    InUse {
        /// The file.
        path: PathBuf,
    },
    /// A newer Doorbuster wrote it.
    #[error(
        "the read store {} has format {found}, and this version reads up to {FORMAT}; use the newer version, or delete the file: the read models are rebuilt from the log", path.display()
    )]
    FutureFormat {
        /// The file.
        path: PathBuf,
        /// The format found.
        found: u64,
    },
    /// The file is not what was written.
    #[error(
        "the read store {} is damaged ({reason}); delete the file: the read models are rebuilt from the log", path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// The file kept changing while it was copied.
    #[error(
        "the read store {} is written too fast to be copied; try again, or stop the service first ({reason})", path.display()
    )]
    Torn {
        /// The file.
        path: PathBuf,
        /// What was found in the last copy.
        reason: String,
    },
    /// The file system failed.
    #[error("the read store {} cannot be opened: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The failure.
        source: io::Error,
    },
}

impl EmbeddedStore {
    /// Opens the store in the file at `path`, or creates it in an existing directory.
    ///
    /// The whole file is read and its checksums compared, so that no damaged row is ever
    /// served. A file of an older format is emptied, for the projector to fill it again:
    /// the log has everything, and there is nothing for a person to decide.
    ///
    /// # Errors
    ///
    /// Each [`OpenError`] names the file and says what to do.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let (layers, hurry) = Layers::new();
        let file = open_file(path, layers.clone())?;
        let shared = Shared::new(file, layers).map_err(|e| damaged(path, e))?;
        let shared = Arc::new(shared);
        let flusher = Flusher::start(shared.clone(), hurry).map_err(|e| io_error(path, e))?;
        Ok(Self {
            shared,
            flusher: Some(flusher.into()),
            _copy: None,
        })
    }

    /// Opens a copy of the store at `path` as it is now, for reading alone; another process
    /// may be writing to it. The copy lies in the directory for temporary files and is deleted
    /// with the returned store. Rows still in the other process's memory are not in it.
    ///
    /// # Errors
    ///
    /// As [`EmbeddedStore::open`], and [`OpenError::Torn`] when the file changed during each
    /// of a few copies.
    pub fn open_copy(path: &Path) -> Result<Self, OpenError> {
        let mut tries = 1;
        loop {
            let copy = NamedTempFile::new()
                .map_err(|e| io_error(path, e))?
                .into_temp_path();
            fs::copy(path, &copy).map_err(|e| io_error(path, e))?;
            let (layers, _) = Layers::new();
            match open_file(&copy, layers.clone()) {
                Ok(file) => {
                    let shared = Shared::new(file, layers).map_err(|e| damaged(path, e))?;
                    return Ok(Self {
                        shared: shared.into(),
                        flusher: None,
                        _copy: Some(copy),
                    });
                }
                Err(OpenError::Damaged { .. }) if tries < COPIES => {
                    std::thread::sleep(BETWEEN_COPIES);
                    tries += 1;
                }
                Err(OpenError::Damaged { reason, .. }) => {
                    return Err(OpenError::Torn {
                        path: path.into(),
                        reason,
                    });
                }
                Err(OpenError::FutureFormat { found, .. }) => {
                    return Err(OpenError::FutureFormat {
                        path: path.into(),
                        found,
                    });
                }
                Err(other) => return Err(other),
            }
        }
    }
}

fn open_file(path: &Path, layers: Arc<Layers>) -> Result<Database, OpenError> {
    if !path.try_exists().map_err(|e| io_error(path, e))? {
        create_file(path)?;
    }
    // redb panics at some kinds of damage, and that must not end the process. What it was at
    // work on is dropped with the panic, so nothing half changed is seen again.
    match catch_unwind(AssertUnwindSafe(|| open_found(path, layers))) {
        Ok(opened) => opened,
        Err(_) => Err(damaged(path, "redb panicked while it was read")),
    }
}

fn open_found(path: &Path, layers: Arc<Layers>) -> Result<Database, OpenError> {
    check_all(path)?;
    let file = open_cached(path, CACHE_BYTES, Some(layers), |_| {})?;
    match format(&file).map_err(|e| damaged(path, e))? {
        FORMAT => Ok(file),
        found if found > FORMAT => Err(OpenError::FutureFormat {
            path: path.into(),
            found,
        }),
        found => {
            tracing::info!(
                path = %path.display(),
                found,
                format = FORMAT,
                "the read store has an older format and is rebuilt from the log"
            );
            prepare(&file).map_err(|e| damaged(path, e))?;
            Ok(file)
        }
    }
}

/// Reads the whole file and compares every checksum.
fn check_all(path: &Path) -> Result<(), OpenError> {
    let repaired = Arc::new(AtomicBool::new(false));
    let note = repaired.clone();
    let mut file = open_cached(path, CHECK_CACHE_BYTES, None, move |_| {
        note.store(true, Relaxed)
    })?;
    // After a crash redb has just compared them all; after a clean end, none.
    if !repaired.load(Relaxed) {
        file.check_integrity()
            .map_err(|e| database_error(path, e))?;
    }
    Ok(())
}

fn open_cached(
    path: &Path,
    cache_bytes: usize,
    layers: Option<Arc<Layers>>,
    repairing: impl Fn(&mut RepairSession) + 'static,
) -> Result<Database, OpenError> {
    let found = fs::File::options().read(true).write(true).open(path);
    let found = FileBackend::new(found.map_err(|e| io_error(path, e))?);
    let paced = Paced::new(found.map_err(|e| database_error(path, e))?, layers);
    let mut builder = Database::builder();
    builder
        .set_cache_size(cache_bytes)
        .set_repair_callback(repairing);
    let opened = builder.create_with_backend(paced);
    opened.map_err(|e| database_error(path, e))
}

/// Creates the file whole under another name first, so that a crash leaves none or a good one.
fn create_file(path: &Path) -> Result<(), OpenError> {
    let directory = path
        .parent()
        .filter(|d| !d.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let draft = NamedTempFile::new_in(directory)
        .map_err(|e| io_error(path, e))?
        .into_temp_path();
    let file = Database::create(&draft).map_err(|e| database_error(path, e))?;
    prepare(&file).map_err(|e| damaged(path, e))?;
    drop(file);
    match draft.persist_noclobber(path) {
        Err(e) if e.error.kind() != io::ErrorKind::AlreadyExists => Err(io_error(path, e.error)),
        // Another process was faster; whose the file is shows when it is opened.
        _ => fs::File::open(directory)
            .and_then(|d| d.sync_all())
            .map_err(|e| io_error(path, e)),
    }
}

/// Leaves the file with empty tables of this format.
pub(crate) fn prepare(file: &Database) -> Result<(), redb::Error> {
    let transaction = file.begin_write()?;
    let tables: Vec<_> = transaction.list_tables()?.collect();
    for table in tables {
        transaction.delete_table(table)?;
    }
    for table in Table::ALL {
        transaction.open_table(definition(table))?;
    }
    transaction.open_table(PROGRESS)?;
    transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
    transaction.commit()?;
    Ok(())
}

fn format(file: &Database) -> Result<u64, redb::Error> {
    let meta = match file.begin_read()?.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => {
            return Err(redb::Error::Corrupted("it has no format version".into()));
        }
        opened => opened?,
    };
    let found = meta.get(FORMAT_KEY)?.map(|found| found.value());
    found.ok_or_else(|| redb::Error::Corrupted("it has no format version".into()))
}

fn database_error(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.into() },
        // The kinds with which redb says that a file is too short or not one of its own.
        DatabaseError::Storage(StorageError::Io(e))
            if !matches!(
                e.kind(),
                io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
            ) =>
        {
            io_error(path, e)
        }
        other => damaged(path, other),
    }
}

fn damaged(path: &Path, reason: impl ToString) -> OpenError {
    OpenError::Damaged {
        path: path.into(),
        reason: reason.to_string(),
    }
}

fn io_error(path: &Path, source: io::Error) -> OpenError {
    OpenError::Io {
        path: path.into(),
        source,
    }
}
