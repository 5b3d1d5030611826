//! Files and directories that only their owner may read, whatever the process's umask: they have
//! what shoppers did, or keys.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// The permissions of files.
pub const FILE_MODE: u32 = 0o600;
/// The permissions of directories.
pub const DIRECTORY_MODE: u32 = 0o700;

/// Creates a file for writing, or empties an existing one, which keeps its permissions.
pub fn create(path: &Path) -> io::Result<File> {
    File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(FILE_MODE)
        .open(path)
}

/// Creates a directory and those above it that do not exist yet.
pub fn create_directory(path: &Path) -> io::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(path)
}
