//! One JVM of a set: finding, starting, awaiting and stopping it.
//!
//! Every JVM has its directory in an argument. So the process table shows what runs, and there is no file
//! with process ids that could be out of date.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde::{Deserialize, Serialize};

use crate::Error;
use crate::packages::last_lines;

/// The argument that marks a JVM as part of a set; its directory follows.
pub(crate) const MARK: &str = "-Ddoorbuster.engine=";
/// How long a JVM may take to answer: ten times what it takes on two cores that also compile.
const START_LIMIT: Duration = Duration::from_secs(300);
/// How long a JVM may take to end after SIGTERM; then it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// How long a JVM must be missing to count as ended. During exec the system shows no command line.
const MISSING_LIMIT: Duration = Duration::from_secs(2);
/// How often the state of a process is checked.
const POLL: Duration = Duration::from_millis(50);

/// One JVM of a set, running or not.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Process {
    /// Its name in messages.
    pub name: String,
    /// The directory of its settings, data and log.
    pub dir: PathBuf,
}

impl Process {
    /// The part `name` of the set in `set`, with its directory.
    pub fn new(set: &Path, name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            dir: set.join(&name),
            name,
        }
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<Pid> {
        let mark = [MARK.as_bytes(), self.dir.as_os_str().as_bytes()].concat();
        find(|argument| argument == mark).first().copied()
    }

    /// Starts it if it does not run. It may not answer yet when this returns.
    pub fn spawn<A: AsRef<OsStr>>(
        &self,
        java: &Path,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<(), Error> {
        if self.pid().is_some() {
            return Ok(());
        }
        let log_path = self.log();
        let log = File::options().create(true).append(true).open(&log_path);
        let log = log.map_err(Error::io("write", &log_path))?;
        let stderr = log.try_clone().map_err(Error::io("write", &log_path))?;
        let mut mark = std::ffi::OsString::from(MARK);
        mark.push(&self.dir);
        let mut child = Command::new(java)
            .arg(mark)
            .args(arguments)
            .current_dir(&self.dir)
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(stderr)
            // Ctrl-C must only reach the process that started the set, which then stops the engines.
            .process_group(0)
            .spawn()
            .map_err(Error::io("run", java))?;
        // Reaps the process, or it would stay in the process table.
        thread::spawn(move || child.wait());
        Ok(())
    }

    /// Waits until `answers` returns Ok, as long as the process runs.
    pub fn wait_until(&self, mut answers: impl FnMut() -> io::Result<()>) -> Result<(), Error> {
        let deadline = Instant::now() + START_LIMIT;
        let mut last_running = Instant::now();
        loop {
            let Err(last) = answers() else {
                return Ok(());
            };
            let (name, log, tail) = (self.name.clone(), self.log(), self.log_tail());
            if self.pid().is_some() {
                last_running = Instant::now();
            } else if last_running.elapsed() > MISSING_LIMIT {
                return Err(Error::Ended { name, log, tail });
            }
            if Instant::now() > deadline {
                let last = last.to_string();
                return Err(Error::Silent {
                    name,
                    limit: START_LIMIT,
                    last,
                    log,
                    tail,
                });
            }
            thread::sleep(POLL);
        }
    }

    /// Kills it (SIGKILL), and returns when it has ended.
    pub fn kill(&self) -> Result<(), Error> {
        end(&self.dir, Duration::ZERO, || Vec::from_iter(self.pid()))
    }

    /// Stops it (SIGTERM), and returns when it has ended; kills it if it takes too long.
    pub fn stop(&self) -> Result<(), Error> {
        end(&self.dir, STOP_LIMIT, || Vec::from_iter(self.pid()))
    }

    /// The file of its standard output and error.
    pub fn log(&self) -> PathBuf {
        self.dir.join("log")
    }

    fn log_tail(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        last_lines(&String::from_utf8_lossy(&log), 25)
    }
}

/// Stops all processes of the set in `dir`, and kills those that take too long.
pub(crate) fn stop_all(dir: &Path) -> Result<(), Error> {
    end(dir, STOP_LIMIT, || all(dir))
}

/// Kills all processes of the set in `dir`.
pub(crate) fn kill_all(dir: &Path) -> Result<(), Error> {
    end(dir, Duration::ZERO, || all(dir))
}

/// The processes that run for the set in `dir`.
pub(crate) fn all(dir: &Path) -> Vec<Pid> {
    let mark = [MARK.as_bytes(), dir.as_os_str().as_bytes(), b"/"].concat();
    find(|argument| argument.starts_with(&mark))
}

/// Sends SIGTERM to the processes, SIGKILL after `patience`, and returns when they have ended.
fn end(dir: &Path, patience: Duration, processes: impl Fn() -> Vec<Pid>) -> Result<(), Error> {
    let signal = |signal| {
        for pid in processes() {
            // Fails only for a process that has ended meanwhile.
            let _ = kill_process(pid, signal);
        }
    };
    if !patience.is_zero() {
        signal(Signal::TERM);
    }
    let patient_until = Instant::now() + patience;
    let deadline = patient_until + STOP_LIMIT;
    loop {
        let running = processes();
        let now = Instant::now();
        if running.is_empty() {
            return Ok(());
        }
        if now > deadline {
            let pids = running.into_iter().map(Pid::as_raw_pid).collect();
            return Err(Error::Unkillable {
                dir: dir.to_owned(),
                pids,
            });
        }
        if now >= patient_until {
            signal(Signal::KILL);
        }
        thread::sleep(POLL);
    }
}

/// The processes with a matching argument. A process that has ended but was not reaped has no arguments
/// any more.
fn find(mut has: impl FnMut(&[u8]) -> bool) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut found = Vec::new();
    for entry in entries.flatten() {
        let number = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else {
            continue;
        };
        // A process may end while the table is read.
        let command_line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if command_line.split(|byte| *byte == 0).any(&mut has) {
            found.push(pid);
        }
    }
    found
}
