//! An instance of the rehearsal's own: `doorbuster serve` on a free port of this machine, with
//! its data in a directory that goes away with it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep, timeout};

use super::client::Client;

/// How long an instance may take to be ready, and to drain.
const START_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(60);
/// How much of the instance's output is shown when it fails.
const SHOWN_BYTES: u64 = 4096;

/// A running instance.
pub struct Instance {
    child: Child,
    address: String,
    token: String,
    home: Home,
}

/// Where it lives: `data` and `instance.log` are in there.
enum Home {
    Temporary(TempDir),
    Kept(PathBuf),
}

impl Home {
    fn path(&self) -> &Path {
        match self {
            Home::Temporary(dir) => dir.path(),
            Home::Kept(path) => path,
        }
    }
}

impl Instance {
    /// Starts one and waits until it is ready; its data goes to `keep`, a new or empty
    /// directory, or to a temporary one.
    pub async fn start(keep: Option<&Path>) -> anyhow::Result<Self> {
        let home = match keep {
            Some(path) => Home::Kept(new_directory(path)?),
            None => {
                let dir = tempfile::Builder::new()
                    .prefix("doorbuster-rehearsal-")
                    .tempdir();
                Home::Temporary(dir.context("cannot make a temporary directory")?)
            }
        };
        let address = free_address()?;
        let token = format!("{:032x}", rand::random::<u128>());
        let log = File::create(home.path().join("instance.log"))?;
        let executable = std::env::current_exe().context("cannot tell this program's own path")?;
        let child = Command::new(&executable)
            .arg("serve")
            .args(["--listen", &address, "--data-dir"])
            .arg(home.path().join("data"))
            .env("DOORBUSTER_ADMIN_TOKEN", &token)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", executable.display()))?;
        let mut instance = Self {
            child,
            address: format!("http://{address}"),
            token,
            home,
        };
        match instance.wait_until_ready().await {
            Ok(()) => Ok(instance),
            Err(error) => {
                let output = instance.last_output();
                instance.keep();
                Err(error.context(output))
            }
        }
    }

    /// Its address, such as `http://127.0.0.1:41233`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The token that its administration takes.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// Lets it drain and end; its directory is kept when asked for, and then returned.
    pub async fn stop(mut self, keep: bool) -> anyhow::Result<Option<PathBuf>> {
        let ended = self.terminate().await;
        let kept = match keep || ended.is_err() {
            true => Some(self.keep()),
            false => match self.home {
                Home::Kept(path) => Some(path),
                Home::Temporary(_) => None,
            },
        };
        ended.map(|()| kept)
    }

    async fn terminate(&mut self) -> anyhow::Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!(
                "the instance ended by itself: {status}\n{}",
                self.last_output()
            );
        }
        let id = self.child.id().and_then(|id| i32::try_from(id).ok());
        let pid = id.and_then(rustix::process::Pid::from_raw);
        let pid = pid.context("the instance has no process id")?;
        rustix::process::kill_process(pid, rustix::process::Signal::TERM)?;
        let status = timeout(STOP_LIMIT, self.child.wait())
            .await
            .with_context(|| format!("the instance did not end in {} s", STOP_LIMIT.as_secs()))??;
        if !status.success() {
            bail!(
                "the instance did not end well: {status}\n{}",
                self.last_output()
            );
        }
        Ok(())
    }

    async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let client = Client::new(&self.address, None, START_LIMIT).map_err(anyhow::Error::msg)?;
        let begun = Instant::now();
        while !client.is_ready().await {
            if let Some(status) = self.child.try_wait()? {
                bail!("the instance ended before it was ready: {status}");
            }
            if begun.elapsed() > START_LIMIT {
                bail!("the instance was not ready in {} s", START_LIMIT.as_secs());
            }
            sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    fn keep(&mut self) -> PathBuf {
        let path = self.home.path().to_path_buf();
        if let Home::Temporary(dir) = &mut self.home {
            dir.disable_cleanup(true);
        }
        path
    }

    fn last_output(&self) -> String {
        let path = self.home.path().join("instance.log");
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
    std::fs::create_dir_all(path).with_context(|| format!("cannot make {}", path.display()))?;
    let mut entries = std::fs::read_dir(path)?;
    if entries.next().is_some() {
        bail!("--keep {}: the directory is not empty", path.display());
    }
    std::path::absolute(path).context("the current directory is gone")
}

/// An address that was free a moment ago. Should another program take it first, the instance
/// fails to bind and says so.
fn free_address() -> anyhow::Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("no port is free")?;
    Ok(listener.local_addr()?.to_string())
}
