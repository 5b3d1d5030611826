//! The operations of a file system that the log uses.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory of files. Names are those of files directly in it.
pub(crate) trait Files: Send + Sync {
    /// The names of all files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Opens an existing file; for writing as well if the directory was opened for writing.
    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>>;
    /// Creates an empty file, replacing an existing one.
    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>>;
    /// Renames a file, replacing an existing one.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes created, renamed and removed names durable.
    fn sync_names(&self) -> io::Result<()>;
}

/// A file that is read and written at given positions.
pub(crate) trait LogFile: Send + Sync {
    /// Its length in bytes.
    fn bytes(&self) -> io::Result<u64>;
    /// Reads until the buffer is full or the file ends; returns the bytes read.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize>;
    /// Writes all bytes; after an error any of them may have been written.
    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()>;
    /// Makes written bytes durable, and the length if it changed.
    fn sync(&self) -> io::Result<()>;
}

/// Creates a file atomically and durably, with the contents that `write` gives it: after a crash it
/// is complete or does not exist. After a failure no unfinished file remains, if that can be helped.
pub(crate) fn create_file(
    files: &dyn Files,
    name: &str,
    write: impl FnOnce(&dyn LogFile) -> io::Result<()>,
) -> io::Result<Arc<dyn LogFile>> {
    let unfinished = format!("{name}{}", crate::format::UNFINISHED);
    let created = files.create(&unfinished).and_then(|file| {
        write(&*file)?;
        file.sync()?;
        files.rename(&unfinished, name)?;
        files.sync_names()?;
        Ok(file)
    });
    if created.is_err() {
        // It may not be there. If it cannot be removed, the next attempt or start replaces it.
        let _ = files.remove(&unfinished);
    }
    created
}

/// Writes a small file atomically and durably: after a crash it is complete or does not exist.
pub(crate) fn write_whole(files: &dyn Files, name: &str, bytes: &[u8]) -> io::Result<()> {
    create_file(files, name, |file| file.write_at(bytes, 0)).map(drop)
}

/// Reads a small file; none when it does not exist.
pub(crate) fn read_whole(files: &dyn Files, name: &str) -> io::Result<Option<Vec<u8>>> {
    let file = match files.open(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut bytes = vec![0; file.bytes()? as usize];
    let read = file.read_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(Some(bytes))
}

/// A directory of the machine's file system.
pub(crate) struct Directory {
    path: PathBuf,
    writable: bool,
}

/// The file that a process locks while it uses the directory.
const LOCK: &str = "lock";

/// The permissions of files and directories, whatever the process's umask: records have the names
/// of buyers.
const FILE_MODE: u32 = 0o600;
const DIRECTORY_MODE: u32 = 0o700;
/// The permissions of everyone but the owner.
const OTHERS: u32 = 0o077;

impl Directory {
    /// A directory for reading only.
    pub(crate) fn read_only(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            writable: false,
        }
    }

    /// A directory for this process alone, created if need be. The lock lasts as long as the returned
    /// file stays open. None when another process uses the directory.
    pub(crate) fn lock(path: &Path) -> io::Result<Option<(Self, File)>> {
        DirBuilder::new()
            .recursive(true)
            .mode(DIRECTORY_MODE)
            .create(path)?;
        // The directory itself must survive a power cut, not only its files.
        let parent = path.canonicalize()?;
        if let Some(parent) = parent.parent() {
            File::open(parent)?.sync_all()?;
        }
        let lock = path.join(LOCK);
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let lock = options.mode(FILE_MODE).open(lock)?;
        match lock.try_lock() {
            Ok(()) => {
                let directory = Self {
                    path: path.to_owned(),
                    writable: true,
                };
                directory.restrict_to_owner()?;
                Ok(Some((directory, lock)))
            }
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Directory {
    /// Takes the permissions of everyone but the owner away: versions up to 0.3.0 created files by the
    /// process's umask. What belongs to somebody else stays as it is.
    fn restrict_to_owner(&self) -> io::Result<()> {
        restrict(&self.path, DIRECTORY_MODE)?;
        for name in self.list()? {
            restrict(&self.path.join(name), FILE_MODE)?;
        }
        Ok(())
    }
}

fn restrict(path: &Path, mode: u32) -> io::Result<()> {
    let found = std::fs::symlink_metadata(path)?;
    let is_ours = found.is_dir() == (mode == DIRECTORY_MODE) && !found.is_symlink();
    if !is_ours || found.permissions().mode() & OTHERS == 0 {
        return Ok(());
    }
    if let Err(error) = std::fs::set_permissions(path, Permissions::from_mode(mode)) {
        tracing::warn!(path = %path.display(), %error, "others may read this, and that cannot be changed");
    }
    Ok(())
}

impl Files for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.path)?;
        let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let file = File::options()
            .read(true)
            .write(self.writable)
            .open(self.path.join(name))?;
        Ok(Arc::new(file))
    }

    fn create(&self, name: &str) -> io::Result<Arc<dyn LogFile>> {
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(true);
        let file = options.mode(FILE_MODE);
        Ok(Arc::new(file.open(self.path.join(name))?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.path.join(name))
    }

    fn sync_names(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

impl LogFile for File {
    fn bytes(&self) -> io::Result<u64> {
        Ok(self.metadata()?.len())
    }

    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut read = 0;
        while read < buffer.len() {
            match FileExt::read_at(self, &mut buffer[read..], position + read as u64) {
                Ok(0) => break,
                Ok(more) => read += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(read)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        FileExt::write_all_at(self, bytes, position)
    }

    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn files_and_directories_are_for_their_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/log");
        let (directory, lock) = Directory::lock(&path).unwrap().unwrap();
        directory.create("segment").unwrap();
        assert_eq!(mode(&path.join("segment")), FILE_MODE);
        assert_eq!(mode(&path.join(LOCK)), FILE_MODE);
        assert_eq!(mode(&path), DIRECTORY_MODE);
        assert_eq!(mode(path.parent().unwrap()), DIRECTORY_MODE);

        // As an older version left them, beside what is not the log's.
        drop(lock);
        let restore = |path: &Path, mode| {
            std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
        };
        restore(&path.join("segment"), 0o644);
        restore(&path, 0o755);
        std::fs::create_dir(path.join("found")).unwrap();
        restore(&path.join("found"), 0o755);
        let _directory = Directory::lock(&path).unwrap().unwrap();
        assert_eq!(mode(&path.join("segment")), FILE_MODE);
        assert_eq!(mode(&path), DIRECTORY_MODE);
        assert_eq!(mode(&path.join("found")), 0o755);
    }
}
