//! A running instance: it answers requests until it drains, then closes its engines in order.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::Router;
use runtime::drain::Drain;
use runtime::settings::HttpSettings;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tracing::info;
use web::server;

/// How long closing the engines may take after the grace period.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// A running instance.
pub struct Instance {
    address: SocketAddr,
    drain: Drain,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Instance {
    /// Answers requests by `routes` until the drain starts. Then finishes open requests, stops the
    /// services, and closes the engines with `close`.
    pub(crate) fn begin(
        listener: TcpListener,
        routes: watch::Receiver<Router>,
        http: &HttpSettings,
        drain: Drain,
        close: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let max_connections = http.max_connections;
        let its_drain = drain.clone();
        let task = tokio::spawn(async move {
            let (started, grace) = (its_drain.started(), its_drain.grace());
            server::serve(listener, routes, max_connections, started, grace).await;
            // Acknowledged attempts that are not decided yet wait in the log for the next start.
            let stopped = its_drain.stop_services(Instant::now() + CLOSE_GRACE).await;
            close.await?;
            info!("drained");
            match stopped {
                true => Ok(()),
                false => Err(anyhow!("a service did not stop in time")),
            }
        });
        Ok(Self {
            address,
            drain,
            task,
        })
    }

    /// The address it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its drain, which the caller starts or lets signals start.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Waits until the instance has drained and closed its engines.
    pub async fn wait(self) -> anyhow::Result<()> {
        self.task.await.context("the instance panicked")?
    }

    /// Drains the instance. What was acknowledged is durable and continues at the next start.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        self.drain.start();
        self.wait().await
    }
}

/// Binds the address, before anything else is done.
pub(crate) async fn bind(http: &HttpSettings) -> anyhow::Result<TcpListener> {
    let listen = &http.listen;
    let bound = TcpListener::bind((listen.host(), listen.port())).await;
    bound.with_context(|| {
        format!("cannot listen on {listen}; choose another address with --listen HOST:PORT")
    })
}
