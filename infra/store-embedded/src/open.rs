//! Opening the file: a new one, an existing one, one of another format, a damaged one, or a copy.

use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use ports::read_store::StoreError;
use redb::backends::FileBackend;
use redb::{Database, DatabaseError, RepairSession, StorageError};
use tempfile::{NamedTempFile, TempPath};

use crate::contents::{Contents, Reopen};
use crate::flush::Flusher;
use crate::lookups::Lookups;
use crate::memtables::Memtables;
use crate::rows::FORMAT;
use crate::store::EmbeddedStore;
use crate::tables;
use crate::throttled_file::ThrottledFile;

/// Memory for pages of the file. The hot pages are the leaves that new rows go to.
const CACHE_BYTES: usize = 256 << 20;
/// The same while the whole file is read once. With so little, each page is read into memory that
/// the processor's cache still has: that takes less than half as long.
const CHECK_CACHE_BYTES: usize = 1 << 20;

/// How often a copy is tried when the file changes meanwhile, and the pause in between. The pause
/// has an odd length, so that it does not fall into step with the writer.
const MAX_COPIES: u32 = 8;
const COPY_PAUSE: Duration = Duration::from_millis(137);

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
    /// The file does not have the bytes that were written.
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
        /// What was wrong with the last copy.
        reason: String,
    },
    /// The file system failed.
    #[error("the read store {} cannot be opened: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The failed system call's error.
        source: io::Error,
    },
}

impl EmbeddedStore {
    /// Opens the store in the file at `path`, or creates it in an existing directory.
    ///
    /// Reads the whole file and verifies its checksums, so that no damaged row is ever served. A file
    /// of an older format is emptied, and the projector fills it again from the log.
    ///
    /// # Errors
    ///
    /// Each [`OpenError`] names the file and the remedy.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        let (memtables, flush_now) = Memtables::new();
        let file = open_file(path, memtables.clone())?;
        let (its_path, its_memtables) = (path.to_owned(), memtables.clone());
        let reopen: Reopen = Box::new(move || reopen_file(&its_path, &its_memtables));
        let contents = Contents::new(file, memtables, Some(reopen));
        let contents = Arc::new(contents.map_err(|e| damaged(path, e))?);
        let flusher = Flusher::start(contents.clone(), flush_now).map_err(|e| io_error(path, e))?;
        Ok(Self {
            contents,
            flusher: Some(flusher.into()),
            lookups: Lookups::default(),
            _copy: None,
        })
    }

    /// Opens a copy of the store at `path`, for reading only; another process may be writing to the
    /// original. The copy lies in the directory for temporary files and is deleted with the returned
    /// store. It does not have the rows that are still in the other process's memory.
    ///
    /// # Errors
    ///
    /// As [`EmbeddedStore::open`], and [`OpenError::Torn`] when the file changed during each
    /// of a few copies.
    pub fn open_copy(path: &Path) -> Result<Self, OpenError> {
        let mut tries = 1;
        loop {
            let copy = copy_of(path).map_err(|e| io_error(path, e))?;
            let (memtables, _) = Memtables::new();
            match open_file(&copy, memtables.clone()) {
                Ok(file) => {
                    let contents = Contents::new(file, memtables, None);
                    let contents = contents.map_err(|e| damaged(path, e))?;
                    return Ok(Self {
                        contents: contents.into(),
                        flusher: None,
                        lookups: Lookups::default(),
                        _copy: Some(copy),
                    });
                }
                Err(OpenError::Damaged { .. }) if tries < MAX_COPIES => {
                    std::thread::sleep(COPY_PAUSE);
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

/// A copy of a file, for its owner alone; `fs::copy` would give it the permissions of the original.
fn copy_of(path: &Path) -> io::Result<TempPath> {
    let mut copy = NamedTempFile::new()?;
    io::copy(&mut fs::File::open(path)?, copy.as_file_mut())?;
    Ok(copy.into_temp_path())
}

fn open_file(path: &Path, memtables: Arc<Memtables>) -> Result<Database, OpenError> {
    if !path.try_exists().map_err(|e| io_error(path, e))? {
        create_file(path)?;
    }
    open_without_panic(path, memtables)
}

/// Opens the file again while the store is running. It is not created: an empty file would lack the
/// rows that the projector has written.
fn reopen_file(path: &Path, memtables: &Arc<Memtables>) -> Result<Database, StoreError> {
    open_without_panic(path, memtables.clone()).map_err(|e| StoreError(e.to_string()))
}

fn open_without_panic(path: &Path, memtables: Arc<Memtables>) -> Result<Database, OpenError> {
    // redb panics at some kinds of damage, which must not end the process. Its state is dropped with
    // the panic, so nothing half changed remains.
    match catch_unwind(AssertUnwindSafe(|| open_existing(path, memtables))) {
        Ok(opened) => opened,
        Err(_) => Err(damaged(path, "redb panicked while reading it")),
    }
}

fn open_existing(path: &Path, memtables: Arc<Memtables>) -> Result<Database, OpenError> {
    check_all(path)?;
    let file = open_cached(path, CACHE_BYTES, Some(memtables), |_| {})?;
    match tables::format(&file).map_err(|e| damaged(path, e))? {
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
            tables::recreate(&file).map_err(|e| damaged(path, e))?;
            Ok(file)
        }
    }
}

/// Reads the whole file and verifies every checksum.
fn check_all(path: &Path) -> Result<(), OpenError> {
    let repaired = Arc::new(AtomicBool::new(false));
    let note = repaired.clone();
    let mut file = open_cached(path, CHECK_CACHE_BYTES, None, move |_| {
        note.store(true, Relaxed)
    })?;
    // After a crash, opening the file has just verified all checksums; after a clean end, none.
    if !repaired.load(Relaxed) {
        file.check_integrity()
            .map_err(|e| database_error(path, e))?;
    }
    Ok(())
}

fn open_cached(
    path: &Path,
    cache_bytes: usize,
    memtables: Option<Arc<Memtables>>,
    repairing: impl Fn(&mut RepairSession) + 'static,
) -> Result<Database, OpenError> {
    let found = fs::File::options().read(true).write(true).open(path);
    let found = FileBackend::new(found.map_err(|e| io_error(path, e))?);
    let file = ThrottledFile::new(found.map_err(|e| database_error(path, e))?, memtables);
    let mut builder = Database::builder();
    builder
        .set_cache_size(cache_bytes)
        .set_repair_callback(repairing);
    let opened = builder.create_with_backend(file);
    opened.map_err(|e| database_error(path, e))
}

/// Creates the file under a temporary name and renames it, so that a crash leaves either no file or
/// a complete one.
fn create_file(path: &Path) -> Result<(), OpenError> {
    let directory = path
        .parent()
        .filter(|d| !d.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let draft = NamedTempFile::new_in(directory)
        .map_err(|e| io_error(path, e))?
        .into_temp_path();
    let file = Database::create(&draft).map_err(|e| database_error(path, e))?;
    tables::recreate(&file).map_err(|e| damaged(path, e))?;
    drop(file);
    match draft.persist_noclobber(path) {
        Err(e) if e.error.kind() != io::ErrorKind::AlreadyExists => Err(io_error(path, e.error)),
        // Another process has created the file first. Opening it decides which process gets it.
        _ => fs::File::open(directory)
            .and_then(|d| d.sync_all())
            .map_err(|e| io_error(path, e)),
    }
}

fn database_error(path: &Path, error: DatabaseError) -> OpenError {
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path: path.into() },
        // The kinds that redb uses for a file that is too short or not a redb file.
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
