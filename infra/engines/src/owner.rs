//! The owner of a set. The engines run while their owner runs; however the owner ends, they end with it.
//!
//! The owner holds a lock on a file in the set's directory, and a shell process waits for that lock. The
//! kernel releases it when the owner is gone, whether it exited, panicked or was killed. Then the shell
//! kills all processes that carry the set's mark, also those that other processes started for it, and
//! removes the directory if it is temporary.

use std::fs::{File, TryLockError};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use runtime::output::error_line;
use rustix::process::{Pid, Signal, kill_process_group};

use crate::{Error, process};

/// Searches twice, since a part that is just being started may not be in the process table yet. grep gets
/// the mark through a pipe: in its arguments it would find itself.
const GUARD: &str = r#"
for look in first second; do
    for file in $(printf '%s' "$3$1/" | grep -lazF -f - /proc/[0-9]*/cmdline 2>/dev/null); do
        pid=${file#/proc/}
        kill -9 "${pid%/cmdline}" 2>/dev/null
    done
    sleep 1
done
if [ "$2" = temporary ]; then rm -rf "$1"; fi
"#;
/// How long to wait for the lock: the guard of the previous owner cleans up for about two seconds.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// The ownership of a set's directory. Dropping it stops the engines.
#[derive(Debug)]
pub(crate) struct Owner {
    dir: PathBuf,
    temporary: bool,
    /// Whether the engines keep running when the owner ends.
    detached: bool,
    guard: Child,
    /// The kernel releases the lock when this is dropped or the process ends.
    _lock: File,
}

impl Owner {
    /// Takes ownership of the set in `dir`, in which no engine may run. A `temporary` directory is removed
    /// at the end.
    pub fn take(dir: &Path, temporary: bool) -> Result<Self, Error> {
        let path = lock_path(dir);
        let lock = File::create(&path).map_err(Error::io("create", &path))?;
        let deadline = Instant::now() + LOCK_LIMIT;
        while let Err(refused) = lock.try_lock() {
            if let TryLockError::Error(source) = refused {
                return Err(Error::io("lock", &path)(source));
            }
            if Instant::now() > deadline {
                return Err(Error::InUse {
                    dir: dir.to_owned(),
                });
            }
            thread::sleep(Duration::from_millis(50));
        }
        if !process::all(dir).is_empty() {
            return Err(Error::InUse {
                dir: dir.to_owned(),
            });
        }
        let guard = Command::new("flock")
            .arg(&path)
            .args(["sh", "-c", GUARD, "engines-guard"])
            .arg(dir)
            .arg(if temporary { "temporary" } else { "kept" })
            .arg(process::MARK)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn();
        let guard = guard.map_err(|source| match source.kind() {
            std::io::ErrorKind::NotFound => Error::NoProgram {
                program: "flock",
                package: "apt-get install util-linux",
            },
            _ => Error::Io {
                what: "run flock".into(),
                source,
            },
        })?;
        Ok(Self {
            dir: dir.to_owned(),
            temporary,
            detached: false,
            guard,
            _lock: lock,
        })
    }

    /// Keeps the engines running when the owner ends.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if !self.detached
            && let Err(error) = process::kill_all(&self.dir)
        {
            error_line(format_args!("error: {error}"));
        }
        // The guard has nothing left to do. It leads a process group of its own; it may have ended
        // already.
        let _ = kill_process_group(Pid::from_child(&self.guard), Signal::KILL);
        let _ = self.guard.wait();
        if self.temporary
            && !self.detached
            && let Err(error) = std::fs::remove_dir_all(&self.dir)
        {
            error_line(format_args!(
                "error: cannot remove {}: {error}",
                self.dir.display()
            ));
        }
    }
}

/// Whether a process owns the set in `dir`.
pub(crate) fn is_owned(dir: &Path) -> bool {
    File::open(lock_path(dir)).is_ok_and(|lock| lock.try_lock().is_err())
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.join("owner.lock")
}
