//! Who a set belongs to. While its owner lives, the engines run; however the owner ends, they
//! end with it.
//!
//! The owner holds a lock on a file in the set's directory, and a shell process waits for that
//! lock. The kernel gives it away when the owner is gone, be it by its own will, by a panic or by
//! a SIGKILL. Then the shell kills all that carries the set's mark, also what another process
//! has started for it, and removes the directory if it was a temporary one.

use std::fs::{File, TryLockError};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::{Error, process};

/// Looks twice, since someone may just be starting a part that is not in the process table yet.
/// The mark goes to grep through a pipe: in its arguments it would find itself.
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
/// A guard that tidies up after the last owner needs about two seconds.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// The right to a set's directory, and the duty to end its engines.
#[derive(Debug)]
pub(crate) struct Owner {
    dir: PathBuf,
    temporary: bool,
    /// The engines go on when the owner ends.
    detached: bool,
    guard: Child,
    /// Held as long as this lives, and given away by the kernel.
    _lock: File,
}

impl Owner {
    /// Takes the set in `dir`, in which no engine may run; a `temporary` one is removed in the end.
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

    /// Lets the engines go on when the owner ends.
    pub fn detach(mut self) {
        self.detached = true;
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        if !self.detached
            && let Err(error) = process::kill_all(&self.dir)
        {
            eprintln!("error: {error}");
        }
        // The guard has nothing left to do; it leads a group of its own. That it has ended
        // already, by someone else's hand, is no matter.
        let _ = kill_process_group(Pid::from_child(&self.guard), Signal::KILL);
        let _ = self.guard.wait();
        if self.temporary
            && !self.detached
            && let Err(error) = std::fs::remove_dir_all(&self.dir)
        {
            eprintln!("error: cannot remove {}: {error}", self.dir.display());
        }
    }
}

/// Whether someone owns the set in `dir` at present.
pub(crate) fn is_owned(dir: &Path) -> bool {
    File::open(lock_path(dir)).is_ok_and(|lock| lock.try_lock().is_err())
}

fn lock_path(dir: &Path) -> PathBuf {
    dir.join("owner.lock")
}
