//! Servers, each in its own process.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use hyper::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};
use tokio::time::sleep;

use crate::load::{Connection, TOKEN};

/// The longest wait before the benchmark gives up.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A server in its own process, which is killed when this is dropped.
pub struct Server {
    child: Child,
    pub address: SocketAddr,
    /// Where the product reports its health; for others the same as the address.
    operations: SocketAddr,
}

impl Server {
    /// Starts it on a free port, given by `--listen`, and waits until it listens.
    pub async fn start(mut command: Command) -> anyhow::Result<Self> {
        let address = free_address().await?;
        command.args(["--listen", &address.to_string()]);
        Self::spawn(command, address, address).await
    }

    /// Starts the product, or a service of it, on free ports, and waits until it listens.
    pub async fn start_product(mut command: Command, has_api: bool) -> anyhow::Result<Self> {
        let operations = free_address().await?;
        command.args(["--operations-listen", &operations.to_string()]);
        if !has_api {
            return Self::spawn(command, operations, operations).await;
        }
        let address = free_address().await?;
        command.args(["--listen", &address.to_string()]);
        Self::spawn(command, address, operations).await
    }

    async fn spawn(
        mut command: Command,
        address: SocketAddr,
        operations: SocketAddr,
    ) -> anyhow::Result<Self> {
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .context("cannot start a server")?;
        let mut server = Self {
            child,
            address,
            operations,
        };
        eventually(&format!("{command:?} listens"), async || {
            let ended = server.child.try_wait()?;
            ensure!(ended.is_none(), "{command:?} has ended: {ended:?}");
            Ok(Connection::open(address).await.ok())
        })
        .await?;
        Ok(server)
    }

    /// Starts the product in one process on a data directory, and waits until it is ready.
    pub async fn doorbuster(data: &Path) -> anyhow::Result<Self> {
        let mut command = Command::new(program("doorbuster")?);
        command
            .args(["serve", "--data-dir"])
            .arg(data)
            .env("DOORBUSTER_ADMIN_TOKEN", TOKEN);
        let server = Self::start_product(command, true).await?;
        server.ready().await?;
        Ok(server)
    }

    /// Waits until `/readyz` reports ready.
    pub async fn ready(&self) -> anyhow::Result<()> {
        eventually(&format!("{} is ready", self.address), async || {
            let mut connection = Connection::open(self.operations).await?;
            let asked = connection
                .send(Method::GET, "/readyz", &[], Bytes::new())
                .await;
            Ok(matches!(asked, Ok((StatusCode::OK, _))).then_some(()))
        })
        .await
    }

    /// Its process; none once it has ended.
    pub fn pid(&self) -> Option<Pid> {
        self.child.id().and_then(|pid| Pid::from_raw(pid as i32))
    }

    /// Stops it in order, so that the next server need not wait.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(pid) = self.pid() {
            kill_process(pid, Signal::TERM)?;
        }
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        ended.with_context(|| format!("{} does not end", self.address))??;
        Ok(())
    }

    /// Kills it.
    pub async fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot kill a server")
    }
}

async fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0").await?.local_addr()?)
}

/// A program of the workspace, which is built beside this one.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let program = std::env::current_exe()?.with_file_name(name);
    ensure!(
        program.exists(),
        "{} is missing: cargo build --release --workspace",
        program.display()
    );
    Ok(program)
}

/// Retries until there is an answer.
pub async fn eventually<T>(
    what: &str,
    mut probe: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let began = Instant::now();
    loop {
        if let Some(it) = probe().await? {
            return Ok(it);
        }
        ensure!(began.elapsed() < PATIENCE, "not in {PATIENCE:?}: {what}");
        sleep(Duration::from_millis(5)).await;
    }
}
