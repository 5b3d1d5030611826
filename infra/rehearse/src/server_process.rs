//! An instance that the rehearsal starts itself: `doorbuster serve` on free ports of this machine,
//! with its data in a directory that is removed at the end unless it is kept.

use std::fs::{File, Permissions};
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use runtime::private_files;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use crate::client::Client;

/// How long the instance may take to be ready, and to drain.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How much of the instance's output is printed when it fails.
const SHOWN_BYTES: u64 = 4096;

/// A running `doorbuster serve`.
pub struct ServerProcess {
    child: Child,
    address: String,
    operations: String,
    token: String,
    directory: Directory,
}

/// The directory that has `data` and `instance.log`.
enum Directory {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Directory {
    fn path(&self) -> &Path {
        match self {
            Directory::Temporary(dir) => dir.path(),
            Directory::Kept(path) => path,
        }
    }
}

impl ServerProcess {
    /// Starts the instance and waits until it is ready. Its data goes to `keep`, a new or empty
    /// directory, or to a temporary directory.
    pub async fn start(keep: Option<&Path>) -> anyhow::Result<Self> {
        let directory = match keep {
            Some(path) => Directory::Kept(new_directory(path)?),
            None => {
                let dir = tempfile::Builder::new()
                    .prefix("doorbuster-rehearsal-")
                    .permissions(Permissions::from_mode(private_files::DIRECTORY_MODE))
                    .tempdir();
                Directory::Temporary(dir.context("cannot create a temporary directory")?)
            }
        };
        let (address, operations) = (free_address()?, free_address()?);
        let token = format!("{:032x}", rand::random::<u128>());
        let log = private_files::create(&directory.path().join("instance.log"))?;
        let executable = std::env::current_exe().context("cannot find the path of this program")?;
        let child = Command::new(&executable)
            .arg("serve")
            .args(["--listen", &address, "--operations-listen", &operations])
            .arg("--data-dir")
            .arg(directory.path().join("data"))
            .env("DOORBUSTER_ADMIN_TOKEN", &token)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", executable.display()))?;
        let mut server = Self {
            child,
            address: format!("http://{address}"),
            operations: format!("http://{operations}"),
            token,
            directory,
        };
        match server.wait_until_ready().await {
            Ok(()) => Ok(server),
            Err(error) => {
                let output = server.last_output();
                server.keep();
                Err(error.context(output))
            }
        }
    }

    /// Its address, such as `http://127.0.0.1:41233`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Its admin token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Stops the instance and waits until it has drained. Returns the directory if it is kept,
    /// because of `keep` or because the instance failed.
    pub async fn stop(mut self, keep: bool) -> anyhow::Result<Option<PathBuf>> {
        let ended = self.terminate().await;
        let kept = match keep || ended.is_err() {
            true => Some(self.keep()),
            false => match self.directory {
                Directory::Kept(path) => Some(path),
                Directory::Temporary(_) => None,
            },
        };
        ended.map(|()| kept)
    }

    async fn terminate(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "the instance ended unexpectedly: {status}\n{}",
                self.last_output()
            );
        }
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let pid = id.and_then(rustix::process::Pid::from_raw);
        let pid = pid.context("the instance has no process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = timeout(STOP_LIMIT, self.child.wait())
            .await
            .with_context(|| {
                format!("the instance did not end within {} s", STOP_LIMIT.as_secs())
            })??;
        if !status.success() {
            bail!(
                "the instance ended with a failure: {status}\n{}",
                self.last_output()
            );
        }
        Ok(())
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let client =
            Client::new(&self.operations, None, START_LIMIT).map_err(anyhow::Error::msg)?;
        let begun = Instant::now();
        while !client.is_ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("the instance ended before it was ready: {status}");
            }
            if begun.elapsed() > START_LIMIT {
                bail!(
                    "the instance was not ready within {} s",
                    START_LIMIT.as_secs()
                );
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn keep(&mut self) -> PathBuf {
        let path = self.directory.path().to_path_buf();
        if let Directory::Temporary(dir) = &mut self.directory {
            dir.disable_cleanup(true);
        }
        path
    }

    fn last_output(&self) -> String {
        let path = self.directory.path().join("instance.log");
        let read = || {
            let mut file = File::open(&path)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(SHOWN_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            std::io::Result::Ok(String::from_utf8_lossy(&bytes).trim().to_owned())
        };
        format!(
            "its last output, from {}:\n{}",
            path.display(),
            read().unwrap_or_default()
        )
    }
}

fn new_directory(path: &Path) -> anyhow::Result<PathBuf> {
    private_files::create_directory(path)
        .with_context(|| format!("cannot create {}", path.display()))?;
    let mut entries = std::fs::read_dir(path)?;
    if entries.next().is_some() {
        bail!("--keep {}: the directory is not empty", path.display());
    }
    std::path::absolute(path).context("cannot find the current directory")
}

/// An address that was free a moment ago. If another program takes it first, the instance fails
/// to bind and reports it.
fn free_address() -> anyhow::Result<String> {
    let listener =
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("cannot find a free port")?;
    Ok(listener.local_addr()?.to_string())
}
