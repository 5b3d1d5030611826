//! One service per process, any number of each, over Kafka, the CQL store and the schema registry.
//!
//! The port is bound first, and from then on `/readyz` shows what the service waits for. The
//! service starts when the engines can be reached.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::Router;
use command_api::decider::{self, CheckpointPolicy, Decider};
use command_api::http::{CommandApi, KnownProducts, KnownRounds, RecentOrders};
use command_api::log_watch::{LogState, LogWatch};
use log_kafka::{KafkaLog, OpenError};
use ports::clock::SystemClock;
use ports::{CheckedClock, EventLog, ReadStore};
use projector::run::Projector;
use query_api::http::QueryApi;
use query_api::live::{self, Live, LiveSettings};
use registry::RegistryError;
use runtime::drain::Drain;
use runtime::health::{Component, Health};
use runtime::interruption::Interruption;
use runtime::settings::{Service, Settings};
use runtime::telemetry;
use schemas::codec::Codec;
use schemas::placement::Placement;
use store_scylla::ScyllaStore;
use tokio::sync::watch;
use tracing::{info, warn};
use utoipa_axum::router::OpenApiRouter;
use web::receipt::ReceiptKey;

use super::{adapter_options, probes};
use crate::instance::{Instance, Servers};
use crate::{clock_health, routes, start};

/// The pause between two attempts of a service to reach an engine at its start.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The least time that Kafka's adapter takes as the limit of an append.
const LEAST_APPEND_TIMEOUT: Duration = Duration::from_millis(100);

/// How long the start of a service that can do without the read store waits for it.
const STORE_WAIT: Duration = Duration::from_secs(5);
/// How long the others wait: longer than the first start on a keyspace takes to create it.
const NEEDED_STORE_WAIT: Duration = Duration::from_secs(30);

/// Starts a service that runs alone.
pub async fn start(service: Service, settings: Settings, drain: Drain) -> anyhow::Result<Instance> {
    let health = Health::new(settings.stall);
    // The service is not ready from before its first request until it has started.
    let component = health.component(start::COMPONENT);
    let metrics = telemetry::metrics();
    drain.spawn(metrics.clone().keep_up(drain.services().clone()));
    let has_api = service.has_api();
    let servers = Servers::start(&settings.http, has_api, &health, &metrics, &drain).await?;
    let start = ServiceStart {
        service,
        name: format!(
            "{} {} {} process {}",
            service.name(),
            rustix::system::uname().nodename().to_string_lossy(),
            servers.address(),
            std::process::id()
        ),
        settings,
        drain: drain.clone(),
        health,
    };
    probes::counters_at_zero();
    let service = tokio::spawn(start.begin(component, servers.routes()));
    let close = async move {
        if let Some(log) = service.await?? {
            log.close().await;
        }
        Ok(())
    };
    Ok(Instance::begin(servers, drain, close))
}

/// The start of a service.
struct ServiceStart {
    service: Service,
    name: String,
    settings: Settings,
    drain: Drain,
    health: Health,
}

impl ServiceStart {
    /// Waits for the engines and starts the service. Returns the log, which the caller closes at
    /// the end, or `None` if the drain started first. If the service can never start, the process
    /// ends.
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
                if let Some(api) = api {
                    let all = routes::all(vec![api], &self.settings.http.allowed_origins);
                    routes.send_modify(|current| *current = all);
                }
                tokio::spawn(start::complete(self.health.clone(), component));
                info!(service = self.service.name(), "started");
            }
            Err(error) => {
                self.drain.start();
                log.close().await;
                return Err(error);
            }
        }
        // Connections keep the last routes of the sender.
        started.cancelled().await;
        Ok(Some(log))
    }

    async fn connect(&self, component: &Component) -> anyhow::Result<(Arc<Codec>, Arc<KafkaLog>)> {
        let registry_options = adapter_options::registry(&self.settings);
        let registry = || registry::connect(&registry_options);
        let codec = wait_for(component, "the schema registry", registry).await?;
        let mut options = adapter_options::kafka(&self.settings);
        if self.service == Service::CommandApi {
            // No record outlives its request, and the answer takes a moment.
            let requests = self.settings.http.request_timeout * 4 / 5;
            options.append_timeout = options
                .append_timeout
                .min(requests.max(LEAST_APPEND_TIMEOUT));
        }
        let kafka = || KafkaLog::open(options.clone());
        let log = wait_for(component, "Kafka", kafka).await?;
        Ok((Arc::new(codec), Arc::new(log)))
    }

    /// Starts the tasks of the service, and returns its routes if it has any.
    async fn spawn(
        &self,
        codec: Arc<Codec>,
        log: Arc<KafkaLog>,
    ) -> anyhow::Result<Option<OpenApiRouter>> {
        let (drain, health, settings) = (&self.drain, &self.health, &self.settings);
        drain.keep(probes::topics(log.clone(), health.component("topics")));
        drain.keep(probes::count_kafka_errors(log.clone()));
        let log: Arc<dyn EventLog> = log;
        let clock = CheckedClock::new(Arc::new(SystemClock), settings.log.max_clock_jump);
        let clock = Arc::new(clock);
        let component = health.component(clock_health::COMPONENT);
        drain.keep(clock_health::watch(clock.clone(), component));
        let stop = drain.services();
        let learning = registry::follow(
            adapter_options::registry(settings),
            codec.clone(),
            stop.clone(),
        );
        drain.spawn(learning);
        drain.keep(probes::kafka(log.clone(), health.component("kafka")));
        match self.service {
            Service::CommandApi => {
                let store = self.open_store().await?;
                let component = health.component("read store");
                drain.keep(probes::store(store.clone(), component, |it, why| {
                    it.degraded(why)
                }));
                let secret = settings.http.receipt_key.as_ref();
                let secret = secret.context("receipt_key must be given")?;
                let log_state = LogState::default();
                let watch = LogWatch {
                    log: log.clone(),
                    store: store.clone(),
                    codec: codec.clone(),
                    component: health.component("log"),
                    state: log_state.clone(),
                };
                // Before the first order.
                watch.check_all().await;
                drain.keep(watch.run());
                let commands = CommandApi {
                    placement: Placement::new(log.partitions()),
                    log,
                    store,
                    codec,
                    receipts: ReceiptKey::new(secret.as_bytes()),
                    clock,
                    known: KnownProducts::default(),
                    log_state,
                    rounds: KnownRounds::default(),
                    recent: RecentOrders::default(),
                };
                Ok(Some(routes::commands(commands, &settings.http)))
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
                let store = self.open_store().await?;
                let component = health.component("read store");
                drain.keep(probes::store(store.clone(), component, |it, why| {
                    it.failing(why)
                }));
                let projector = Projector {
                    log,
                    store,
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
                Ok(Some(routes::queries(api, &settings.http, drain.started())))
            }
            Service::Serve | Service::Audit => {
                anyhow::bail!("{} does not run alone", self.service.name())
            }
        }
    }

    /// The read store, which may be unreachable. The start waits a little for it, so that requests
    /// that need it do not fail at first.
    async fn open_store(&self) -> anyhow::Result<Arc<dyn ReadStore>> {
        let store = ScyllaStore::open(adapter_options::cql(&self.settings))
            .context("cannot use the read store")?;
        let wait = match self.service {
            Service::CommandApi => STORE_WAIT,
            _ => NEEDED_STORE_WAIT,
        };
        let stop = self.drain.started();
        if let Some(Err(error)) = stop.run_until_cancelled(store.ready(wait)).await {
            warn!(%error, "starting without the read store");
        }
        let store = Arc::new(store);
        self.drain.keep(probes::count_cql_errors(store.clone()));
        Ok(store)
    }
}

/// Calls `attempt` until it succeeds or can never succeed. Meanwhile the component reports why
/// the service waits.
async fn wait_for<T, E: MayPass, F: Future<Output = Result<T, E>>>(
    component: &Component,
    what: &str,
    attempt: impl Fn() -> F,
) -> anyhow::Result<T> {
    let mut waiting = Interruption::default();
    loop {
        match attempt().await {
            // A start may come before that of the engines, which is no error.
            Err(error) if error.may_pass() => {
                let why = format!("waiting for {what}: {error}");
                if waiting.is_new(&why) {
                    warn!("{why}");
                }
                component.failing(why);
            }
            reached => {
                component.recovered();
                if let Some(seconds) = waiting.end() {
                    info!("reached {what} after {seconds} s");
                }
                return reached.with_context(|| format!("cannot use {what}"));
            }
        }
        tokio::time::sleep(RETRY_AFTER).await;
    }
}

/// An error that may not occur again when the call is repeated.
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
