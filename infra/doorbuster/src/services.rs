//! One service a process, any number of each: over Kafka, the CQL store and the registry.
//!
//! The port is taken first, and `/readyz` tells from then on what the service waits for. When
//! the engines are there the service begins.

use std::convert::Infallible;
use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use command_api::decider::{self, CheckpointPolicy, Decider};
use command_api::http::{Door, KnownProducts};
use log_kafka::{KafkaLog, OpenError};
use ports::clock::SystemClock;
use ports::{Clock, EventLog, ReadStore};
use projector::run::Projector;
use query_api::http::QueryApi;
use query_api::live::{self, Live, LiveSettings};
use registry::RegistryError;
use runtime::drain::Drain;
use runtime::health::{Component, Health, PROBE_WITHIN, REPORT_EVERY};
use runtime::settings::{Service, Settings};
use runtime::telemetry::Metrics;
use runtime::{operations, telemetry};
use schemas::codec::Codec;
use schemas::ids::Partition;
use schemas::placement::Placement;
use schemas::topics::Topic;
use store_scylla::ScyllaStore;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};
use utoipa_axum::router::OpenApiRouter;

use crate::adapter_options;
use crate::routes;
use crate::running::{self, Running};

/// How long a service that cannot start yet rests before it tries again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// How long a start waits for the read store before it goes on without.
const STORE_MOMENT: Duration = Duration::from_secs(5);

/// Starts a service that runs alone.
pub async fn start(service: Service, settings: Settings) -> anyhow::Result<Running> {
    let listener = running::bind(&settings.http).await?;
    let address = listener.local_addr()?;
    let drain = Drain::new(settings.drain_grace);
    let starting = Starting {
        service,
        name: format!(
            "{} {} {address} process {}",
            service.name(),
            rustix::system::uname().nodename().to_string_lossy(),
            std::process::id()
        ),
        settings: settings.clone(),
        drain: drain.clone(),
        health: Health::default(),
        metrics: telemetry::metrics(),
    };
    starting.metrics.clone().keep_up(&drain);
    let (routes, current) = watch::channel(routes::starting(starting.operations()));
    let http = settings.http;
    // From before the first request until all of them are answered, it is not ready.
    let component = starting.health.component("start");
    let service = tokio::spawn(starting.begin(component, routes));
    let close = async move {
        if let Some(log) = service.await?? {
            log.close().await;
        }
        Ok(())
    };
    Running::begin(listener, current, &http, drain, close)
}

/// A service on its way up.
struct Starting {
    service: Service,
    name: String,
    settings: Settings,
    drain: Drain,
    health: Health,
    metrics: Metrics,
}

impl Starting {
    fn operations(&self) -> OpenApiRouter {
        let draining = self.drain.started().clone();
        operations::router(self.health.clone(), self.metrics.clone(), draining)
    }

    /// Waits for the engines and begins the service. Returns the log, to be closed at the end;
    /// none when the process was told to end before. When the service can never start, the
    /// process ends.
    async fn begin(
        self,
        component: Component,
        routes: watch::Sender<Router>,
    ) -> anyhow::Result<Option<Arc<KafkaLog>>> {
        let started = self.drain.started().clone();
        let connected = started.run_until_cancelled(self.connect(&component)).await;
        let (codec, log) = match connected {
            None => return Ok(None),
            Some(Ok(engines)) => engines,
            Some(Err(error)) => {
                self.drain.start();
                return Err(error);
            }
        };
        match self.spawn(codec, log.clone()).await {
            Ok(api) => {
                let parts = api.into_iter().chain([self.operations()]);
                routes.send_modify(|routes| *routes = routes::all(parts.collect()));
                drop(component);
                info!(service = self.service.name(), "started");
            }
            Err(error) => {
                self.drain.start();
                log.close().await;
                return Err(error);
            }
        }
        // Those who hold connections keep the sender's last routes.
        started.cancelled().await;
        Ok(Some(log))
    }

    async fn connect(&self, component: &Component) -> anyhow::Result<(Arc<Codec>, Arc<KafkaLog>)> {
        let options = adapter_options::registry(&self.settings);
        let registry = || registry::connect(&options);
        let codec = wait_for(component, "the schema registry", registry).await?;
        let kafka = || KafkaLog::open(adapter_options::kafka(&self.settings));
        let log = wait_for(component, "Kafka", kafka).await?;
        component.failing("starting");
        Ok((Arc::new(codec), Arc::new(log)))
    }

    /// Starts what the service consists of; returns the routes that are its own.
    async fn spawn(
        &self,
        codec: Arc<Codec>,
        log: Arc<KafkaLog>,
    ) -> anyhow::Result<Option<OpenApiRouter>> {
        let log: Arc<dyn EventLog> = log;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (drain, health, settings) = (&self.drain, &self.health, &self.settings);
        let stop = drain.services();
        let learning = registry::follow(
            adapter_options::registry(settings),
            codec.clone(),
            stop.clone(),
        );
        drain.spawn(learning);
        self.keep(probe_kafka(log.clone(), health.component("kafka")));
        match self.service {
            Service::CommandApi => {
                let store = self.open_store().await?;
                self.keep(probe_store(store.clone(), health.component("read store")));
                let receipts = settings.http.receipt_key.clone();
                let door = Door {
                    placement: Placement::new(log.partitions()),
                    log,
                    store,
                    codec,
                    receipts: receipts.context("receipt_key must be given")?,
                    clock,
                    known: KnownProducts::default(),
                };
                Ok(Some(routes::commands(door, &settings.http)))
            }
            Service::Decider => {
                let decider = Decider {
                    log,
                    codec,
                    clock,
                    health: health.clone(),
                    name: self.name.as_str().into(),
                    checkpoints: CheckpointPolicy::default(),
                };
                drain.spawn(decider::run(decider, stop.clone()));
                Ok(None)
            }
            Service::Projector => {
                let projector = Projector {
                    log,
                    store: self.open_store().await?,
                    codec,
                    health: health.clone(),
                };
                drain.spawn(projector::run(projector, stop.clone()));
                Ok(None)
            }
            Service::QueryApi => {
                let live_settings = LiveSettings {
                    max_waiters: settings.http.max_waiters,
                    ..LiveSettings::default()
                };
                let live = Live::new(log, self.open_store().await?, codec, live_settings);
                drain.spawn(live::run(live.clone(), health.clone(), stop.clone()));
                let api = QueryApi { live, clock };
                Ok(Some(routes::questions(
                    api,
                    &settings.http,
                    drain.started(),
                )))
            }
            Service::Serve | Service::Audit => anyhow::bail!("it does not run alone"),
        }
    }

    /// The store, which may be away. It is given a moment to connect, so that what needs it at
    /// once does not begin with failures.
    async fn open_store(&self) -> anyhow::Result<Arc<dyn ReadStore>> {
        let store = ScyllaStore::open(adapter_options::cql(&self.settings))
            .context("cannot use the read store")?;
        if let Err(error) = store.ready(STORE_MOMENT).await {
            warn!(%error, "starting without the read store");
        }
        Ok(Arc::new(store))
    }

    /// Runs a probe until the services are told to stop.
    fn keep(&self, probe: impl Future<Output = Infallible> + Send + 'static) {
        let stop = self.drain.services().clone();
        self.drain.spawn(async move {
            stop.run_until_cancelled(probe).await;
        });
    }
}

/// Tries until it succeeds or can never succeed, and says meanwhile why it waits.
async fn wait_for<T, E: MayPass, F: Future<Output = Result<T, E>>>(
    component: &Component,
    what: &str,
    attempt: impl Fn() -> F,
) -> anyhow::Result<T> {
    let mut said = String::new();
    loop {
        let error = match attempt().await {
            Ok(it) => return Ok(it),
            Err(error) if error.may_pass() => error.to_string(),
            Err(error) => return Err(error).with_context(|| format!("cannot use {what}")),
        };
        // The log first: who learns of it from the health finds more about it there.
        if said != error {
            warn!(%error, "waiting for {what}");
        }
        component.failing(format!("waiting for {what}: {error}"));
        said = error;
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// Whether the brokers answer, which no other part of some services shows.
async fn probe_kafka(log: Arc<dyn EventLog>, component: Component) -> Infallible {
    loop {
        match log.end(Topic::PurchaseAttempts, Partition(0)).await {
            Ok(_) => component.working(0),
            Err(error) => component.failing(error.to_string()),
        }
        tokio::time::sleep(REPORT_EVERY).await;
    }
}

/// Whether the store answers. The door asks it whether a product is known, and does without
/// when it is away.
async fn probe_store(store: Arc<dyn ReadStore>, component: Component) -> Infallible {
    loop {
        match timeout(PROBE_WITHIN, store.progress()).await {
            Ok(Ok(_)) => component.working(0),
            Ok(Err(error)) => component.degraded(error.to_string()),
            Err(_) => component.degraded("the read store does not answer"),
        }
        tokio::time::sleep(REPORT_EVERY).await;
    }
}

/// An error that the same call may not meet again.
trait MayPass: Display + std::error::Error + Send + Sync + 'static {
    fn may_pass(&self) -> bool;
}

impl MayPass for RegistryError {
    fn may_pass(&self) -> bool {
        matches!(self, RegistryError::Unreachable(_))
    }
}

impl MayPass for OpenError {
    fn may_pass(&self) -> bool {
        matches!(self, OpenError::Unreachable(_))
    }
}
