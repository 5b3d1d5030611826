//! Real engines, each in its own process, on a socket in its own directory. Unix sockets need no
//! ports, and are faster than loopback.

use std::fs;
use std::os::unix::fs::chown;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use clap::ValueEnum;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::process::with_children;

/// How long an engine may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// The user `nobody`, whom PostgreSQL runs as when started by root, which it refuses.
const NOBODY: u32 = 65534;

/// What Redis keeps when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Persistence {
    /// Nothing.
    Off,
    /// Everything that was answered: it syncs its log before it answers.
    Always,
}

/// A running engine. It is killed when this is dropped.
pub struct Engine {
    child: Child,
    /// How clients find it.
    address: String,
}

impl Engine {
    /// Starts Redis with its data in a directory, and continues with existing data.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn redis(dir: &Path, persistence: Persistence) -> anyhow::Result<Self> {
        let program = program("redis-server", "redis-server", &[])?;
        let socket = dir.join("redis.sock");
        let keeps = match persistence {
            Persistence::Off => "no",
            Persistence::Always => "yes",
        };
        let mut command = Command::new(program);
        command
            .arg("--dir")
            .arg(dir)
            .arg("--unixsocket")
            .arg(&socket)
            .args(["--port", "0", "--save", ""])
            .args(["--appendonly", keeps, "--appendfsync", "always"])
            // A rewrite of the log in the middle of a run would slow Redis down needlessly.
            .args(["--auto-aof-rewrite-percentage", "0"]);
        let address = format!("redis+unix://{}", socket.display());
        Self::start(command, dir, &socket, address).await
    }

    /// Starts PostgreSQL with its data in a directory, and continues with existing data. It runs as
    /// the directory's owner.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub async fn postgres(dir: &Path) -> anyhow::Result<Self> {
        let places = postgres_places();
        let data = dir.join("data");
        let as_user = |mut command: Command| {
            if geteuid().is_root() {
                command.uid(NOBODY).gid(NOBODY);
            }
            command.current_dir(dir);
            command
        };
        if !data.exists() {
            if geteuid().is_root() {
                chown(dir, Some(NOBODY), Some(NOBODY))?;
            }
            let program = program("initdb", "postgresql", &places)?;
            let mut command = as_user(Command::new(program));
            command
                .args(["--username", "shop", "--auth", "trust", "--no-sync"])
                .args(["--encoding", "UTF8", "--locale", "C", "--pgdata"])
                .arg(&data);
            let made = command.output().await.context("cannot run initdb")?;
            let output = String::from_utf8_lossy(&made.stderr);
            ensure!(made.status.success(), "initdb failed: {output}");
        }
        let program = program("postgres", "postgresql", &places)?;
        let mut command = as_user(Command::new(program));
        command.arg("-D").arg(&data).arg("-k").arg(dir);
        // Commits are durable, as by default. Checkpoints are rare, and the working set fits into
        // memory.
        for setting in [
            "listen_addresses=",
            "shared_buffers=512MB",
            "max_wal_size=8GB",
            "checkpoint_timeout=30min",
        ] {
            command.args(["-c", setting]);
        }
        let socket = dir.join(".s.PGSQL.5432");
        let address = format!("host={} user=shop dbname=postgres", dir.display());
        Self::start(command, dir, &socket, address).await
    }

    async fn start(
        mut command: Command,
        dir: &Path,
        socket: &Path,
        address: String,
    ) -> anyhow::Result<Self> {
        // A killed server has left its own.
        let _ = fs::remove_file(socket);
        let log = dir.join("log");
        let output = fs::File::create(&log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .kill_on_drop(true);
        let mut engine = Self {
            child: child.spawn().context("cannot start the engine")?,
            address,
        };
        let began = Instant::now();
        while UnixStream::connect(socket).await.is_err() {
            let ended = engine.child.try_wait()?;
            if ended.is_some() || began.elapsed() > PATIENCE {
                let output = fs::read_to_string(&log).unwrap_or_default();
                bail!("an engine does not start: {output}");
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(engine)
    }

    /// How clients find it: a URL, or a connection string.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its first process; none once it has ended.
    pub fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|pid| Pid::from_raw(pid as i32))
    }

    /// Ends it in order.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.pid() {
            // For PostgreSQL: without waiting for its clients, who may not have noticed.
            kill_process(pid, Signal::INT)?;
        }
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.context("an engine does not end")??;
        Ok(())
    }

    /// Kills all its processes at once, and waits until they are gone.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        let pids = self.pid().map(with_children).unwrap_or_default();
        for pid in &pids {
            // It fails only for a process that has already ended.
            let _ = kill_process(*pid, Signal::KILL);
        }
        self.child.wait().await?;
        let began = Instant::now();
        while pids
            .iter()
            .any(|pid| Path::new(&format!("/proc/{pid}/exe")).exists())
        {
            ensure!(began.elapsed() < PATIENCE, "an engine cannot be killed");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        Ok(())
    }
}

/// The versions of the installed engines.
///
/// # Errors
/// One is not installed.
pub fn versions() -> anyhow::Result<Vec<String>> {
    let programs = [
        program("redis-server", "redis-server", &[])?,
        program("postgres", "postgresql", &postgres_places())?,
    ];
    let versions = programs.iter().map(|program| {
        let output = std::process::Command::new(program)
            .arg("--version")
            .output();
        let output = output.with_context(|| format!("cannot run {}", program.display()))?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    });
    versions.collect()
}

/// Where a program is: in the path, or in one of some other places.
fn program(name: &str, package: &str, places: &[PathBuf]) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all = std::env::split_paths(&path).chain(places.iter().cloned());
    all.find_map(|place| Some(place.join(name)).filter(|program| program.is_file()))
        .with_context(|| format!("{name} is missing; on Debian: apt-get install {package}"))
}

/// Where Debian puts PostgreSQL's programs, the newest version first.
fn postgres_places() -> Vec<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut places: Vec<PathBuf> = versions.flatten().map(|it| it.path().join("bin")).collect();
    places.sort_by_key(|place| {
        let version = place.parent().and_then(Path::file_name)?.to_str()?;
        version.parse::<u32>().ok()
    });
    places.reverse();
    places
}
