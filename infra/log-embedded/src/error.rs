//! Why a log cannot be opened.

use std::io;
use std::path::PathBuf;

use crate::format;

/// Why a log was not opened. The directory is unchanged, unless a new log was being created in it.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process uses the directory.
    #[error("{} is in use by another process; stop that one, or choose another directory", .dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory has no log to read.
    #[error("there is no log in {}", .dir.display())]
    NoLog {
        /// The directory.
        dir: PathBuf,
    },
    /// The log has another number of partitions, which cannot be changed.
    #[error("the log in {} has {found} partitions, but {requested} are configured; configure {found}, or choose another directory", .dir.display())]
    Partitions {
        /// The directory.
        dir: PathBuf,
        /// Its number of partitions.
        found: u32,
        /// The requested number.
        requested: u32,
    },
    /// The log was written by a newer version of this software.
    #[error("{} has format version {found}, but this version of Doorbuster reads format {known} only; use the version that wrote it", .file.display())]
    Version {
        /// The file with that version.
        file: PathBuf,
        /// The format version found.
        found: u32,
        /// The format version of this software.
        known: u32,
    },
    /// The bytes on disk are not the bytes that were written.
    #[error("{} is damaged at byte {position}: {what}. Nothing was changed; restore the directory from a backup, or keep it for inspection and start with a new one", .file.display())]
    Damaged {
        /// The file.
        file: PathBuf,
        /// Where in the file, in bytes from its start.
        position: u64,
        /// What is wrong.
        what: String,
    },
    /// An option is out of its bounds.
    #[error("the log's options are not valid: {0}")]
    Options(String),
    /// The file system failed.
    #[error("{}: {error}", .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// The error of the file system.
        error: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(path: PathBuf, error: io::Error) -> Self {
        Self::Io { path, error }
    }

    pub(crate) fn damaged(file: PathBuf, position: u64, what: &str) -> Self {
        Self::Damaged {
            file,
            position,
            what: what.to_owned(),
        }
    }

    pub(crate) fn version(file: PathBuf, found: u32) -> Self {
        Self::Version {
            file,
            found,
            known: format::VERSION,
        }
    }
}
