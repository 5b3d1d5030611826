//! A running instance: it answers requests until it is told to drain, then ends in order.

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
pub struct Running {
    address: SocketAddr,
    drain: Drain,
    ended: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Answers requests by `routes` until the drain starts; then finishes them, stops the
    /// services, and lets `close` close the engines.
    pub(crate) fn begin(
        listener: TcpListener,
        routes: watch::Receiver<Router>,
        http: &HttpSettings,
        drain: Drain,
        close: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let max_connections = http.max_connections;
        let of_run = drain.clone();
        let ended = tokio::spawn(async move {
            let (started, grace) = (of_run.started(), of_run.grace());
            server::serve(listener, routes, max_connections, started, grace).await;
            // What was taken and is not decided yet waits in the log for the next start.
            let stopped = of_run.stop_services(Instant::now() + CLOSE_GRACE).await;
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
            ended,
        })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its ending, to start it or to have signals start it.
    pub fn drain(&self) -> &Drain {
        &self.drain
    }

    /// Waits until the instance has drained and closed its engines.
    pub async fn ended(self) -> anyhow::Result<()> {
        self.ended.await.context("the instance panicked")?
    }

    /// Drains the instance: what was acknowledged is durable and goes on at the next start.
    pub async fn shutdown(self) -> anyhow::Result<()> {
        self.drain.start();
        self.ended().await
    }
}

/// Takes the address before anything else is done.
pub(crate) async fn bind(http: &HttpSettings) -> anyhow::Result<TcpListener> {
    let listen = http.listen;
    TcpListener::bind(listen).await.with_context(|| {
        format!("cannot listen on {listen}; choose another address with --listen ADDR:PORT")
    })
}
