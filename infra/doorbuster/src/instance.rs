//! A running instance: it answers requests until it drains, then closes its engines in order.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context, anyhow};
use axum::Router;
use runtime::drain::Drain;
use runtime::health::Health;
use runtime::settings::{HttpSettings, ListenAddress};
use runtime::telemetry::Metrics;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::info;
use web::operations;
use web::server;

use crate::routes;

/// How long closing the engines may take after the grace period.
const CLOSE_GRACE: Duration = Duration::from_secs(5);
/// How long a request for health or metrics may take when everything else has ended.
const OPERATIONS_GRACE: Duration = Duration::from_secs(1);

/// The servers of a process, which answer from before anything is opened or read: the one for
/// operations with the progress of the start, the one for shoppers with `starting`. Dropping them ends
/// both.
pub(crate) struct Servers {
    operations: SocketAddr,
    /// None for a service that has no API.
    shoppers: Option<SocketAddr>,
    routes: watch::Sender<Router>,
    /// Ends when the drain has started and the requests are finished.
    requests: AbortOnDropHandle<()>,
    /// Ends after `end`.
    health: AbortOnDropHandle<()>,
    end: CancellationToken,
}

impl Servers {
    /// Binds the addresses and begins to answer. A service without an API answers operations only.
    pub(crate) async fn start(
        http: &HttpSettings,
        has_api: bool,
        health: &Health,
        metrics: &Metrics,
        drain: &Drain,
    ) -> anyhow::Result<Self> {
        let for_operations = bind(&http.operations_listen, "--operations-listen").await?;
        let for_shoppers = match has_api {
            true => Some(bind(&http.listen, "--listen").await?),
            false => None,
        };
        let end = CancellationToken::new();
        let (operations, health) = {
            let draining = drain.announced().clone();
            let routes = operations::router(health.clone(), metrics.clone(), draining);
            let (address, end) = (for_operations.local_addr()?, end.clone());
            let serving = async move {
                let routes = watch::channel(routes).1;
                let limits = operations::LIMITS;
                server::serve(for_operations, routes, limits, &end, OPERATIONS_GRACE).await;
            };
            (address, tokio::spawn(serving))
        };
        let (routes, current) = watch::channel(routes::while_starting(&http.allowed_origins));
        let shoppers = for_shoppers.as_ref().map(TcpListener::local_addr);
        let (drain, limit) = (drain.clone(), http.max_connections);
        let requests = tokio::spawn(async move {
            let started = drain.started();
            match for_shoppers {
                Some(listener) => {
                    server::serve(listener, current, limit, started, drain.grace()).await;
                }
                None => started.cancelled().await,
            }
        });
        Ok(Self {
            operations,
            shoppers: shoppers.transpose()?,
            routes,
            requests: AbortOnDropHandle::new(requests),
            health: AbortOnDropHandle::new(health),
            end,
        })
    }

    /// The address by which the process is told from others: the shoppers', or else that for
    /// operations.
    pub(crate) fn address(&self) -> SocketAddr {
        self.shoppers.unwrap_or(self.operations)
    }

    /// Where the routes of the API go once they can answer.
    pub(crate) fn routes(&self) -> watch::Sender<Router> {
        self.routes.clone()
    }
}

/// A running instance.
pub struct Instance {
    address: SocketAddr,
    operations: SocketAddr,
    drain: Drain,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Instance {
    /// Answers requests until the drain starts. Then finishes open requests, stops the services, closes
    /// the engines with `close`, and at last answers no more about its health.
    pub(crate) fn begin(
        servers: Servers,
        drain: Drain,
        close: impl Future<Output = anyhow::Result<()>> + Send + 'static,
    ) -> Self {
        let (address, operations) = (servers.address(), servers.operations);
        let its_drain = drain.clone();
        let task = tokio::spawn(async move {
            servers.requests.await?;
            // Acknowledged attempts that are not decided yet wait in the log for the next start.
            let stopped = its_drain.stop_services(Instant::now() + CLOSE_GRACE).await;
            close.await?;
            servers.end.cancel();
            servers.health.await?;
            info!("drained");
            match stopped {
                true => Ok(()),
                false => Err(anyhow!("a service did not stop in time")),
            }
        });
        Self {
            address,
            operations,
            drain,
            task,
        }
    }

    /// The address that it listens on for shoppers; for a service without an API, that for operations.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The address that it listens on for operations.
    pub fn operations(&self) -> SocketAddr {
        self.operations
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

async fn bind(listen: &ListenAddress, flag: &str) -> anyhow::Result<TcpListener> {
    let bound = TcpListener::bind((listen.host(), listen.port())).await;
    bound.with_context(|| {
        format!("cannot listen on {listen}; choose another address with {flag} HOST:PORT")
    })
}
