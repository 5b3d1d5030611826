//! All services in one process: command API, deciders, projector and query API, over the embedded
//! log and read store.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use command_api::decider::{self, CheckpointPolicy, Decider};
use command_api::http::{CommandApi, KnownProducts};
use command_api::log_watch::{LogState, LogWatch};
use log_embedded::{EmbeddedLog, Options};
use ports::clock::SystemClock;
use ports::{CheckedClock, Clock, EventLog, ReadStore};
use projector::run::Projector;
use query_api::http::QueryApi;
use query_api::live::{self, Live, LiveSettings};
use runtime::drain::Drain;
use runtime::health::Health;
use runtime::private_files;
use runtime::settings::{HttpSettings, Settings};
use runtime::telemetry;
use schemas::codec::Codec;
use schemas::placement::Placement;
use store_embedded::EmbeddedStore;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::warn;
use web::operations;
use web::receipt::ReceiptKey;

use crate::instance::{self, Instance};
use crate::{LOG_DIR, READ_MODELS, clock_health, demo, routes};

/// How long the start waits for every component to report its health. A component that has
/// nothing to recover reports sooner; one that recovers is shown by `/readyz`.
const REPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The engines of an instance.
struct EmbeddedEngines {
    log: Arc<EmbeddedLog>,
    store: Arc<EmbeddedStore>,
}

/// Starts an instance: binds the port, locks the data directory, and starts the services. From
/// then on it answers requests, as far as the services are ready.
pub async fn start(settings: Settings, drain: Drain) -> anyhow::Result<Instance> {
    let listener = instance::bind(&settings.http).await?;
    let metrics = telemetry::metrics();
    let clock = CheckedClock::new(Arc::new(SystemClock), settings.log.max_clock_jump);
    let clock = Arc::new(clock);
    let engines = EmbeddedEngines::open(&settings, clock.clone()).await?;
    let receipts = receipt_key(&settings.http, &settings.data_dir)?;

    let codec = Arc::new(Codec::embedded());
    let (log, store): (Arc<dyn EventLog>, Arc<dyn ReadStore>) =
        (engines.log.clone(), engines.store.clone());
    if settings.demo && demo::is_new(&*log).await? {
        demo::create_sale(&*log, &codec, clock.now_ms()).await?;
    }

    let health = Health::default();
    let live_settings = LiveSettings {
        max_waiters: settings.http.max_waiters,
        ..LiveSettings::default()
    };
    let live = Live::new(log.clone(), store.clone(), codec.clone(), live_settings);
    let services = Services {
        log: log.clone(),
        store: store.clone(),
        codec: codec.clone(),
        clock: clock.clone(),
        live: live.clone(),
        health: health.clone(),
    };
    services.spawn(&drain, listener.local_addr()?);
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
    let stop = drain.services().clone();
    drain.spawn(async move {
        stop.run_until_cancelled(watch.run()).await;
    });
    let watching = clock_health::watch(clock.clone(), health.component(clock_health::COMPONENT));
    let stop = drain.services().clone();
    drain.spawn(async move {
        stop.run_until_cancelled(watching).await;
    });
    all_reported(&health, log.partitions()).await;
    drain.spawn(metrics.clone().keep_up(drain.services().clone()));

    let commands = CommandApi {
        placement: Placement::new(log.partitions()),
        log,
        store,
        codec,
        receipts,
        clock: clock.clone(),
        known: KnownProducts::default(),
        log_state,
    };
    let api = QueryApi { live, clock };
    let parts = vec![
        routes::commands(commands, &settings.http),
        routes::queries(api, &settings.http, drain.started()),
        operations::router(health, metrics, drain.announced().clone()),
    ];
    let routes = routes::all(parts, &settings.http.allowed_origins);
    let routes = watch::channel(routes).1;
    Instance::begin(listener, routes, &settings.http, drain, engines.close())
}

/// What the services work with.
struct Services {
    log: Arc<dyn EventLog>,
    store: Arc<dyn ReadStore>,
    codec: Arc<Codec>,
    clock: Arc<dyn Clock>,
    live: Arc<Live>,
    health: Health,
}

impl Services {
    /// Starts the services, which run until the drain stops them.
    fn spawn(self, drain: &Drain, address: SocketAddr) {
        let name = format!("doorbuster {address} process {}", std::process::id());
        let decider = Decider {
            log: self.log.clone(),
            codec: self.codec.clone(),
            clock: self.clock,
            health: self.health.clone(),
            name: name.into(),
            checkpoints: CheckpointPolicy::default(),
        };
        let projector = Projector {
            log: self.log,
            store: self.store,
            codec: self.codec,
            health: self.health.clone(),
        };
        let stop = drain.services();
        drain.spawn(decider::run(decider, stop.clone()));
        drain.spawn(projector::run(projector, stop.clone()));
        drain.spawn(live::run(self.live, self.health, stop.clone()));
    }
}

/// Waits until the decider and projector of every partition, the live tail, the clock and the watch over
/// the log have reported to `health`, which counts as ready while it knows no component.
async fn all_reported(health: &Health, partitions: u32) {
    let expected = 2 * partitions as usize + 3;
    let deadline = Instant::now() + REPORT_TIMEOUT;
    while health.report().len() < expected && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

impl EmbeddedEngines {
    async fn open(settings: &Settings, clock: Arc<CheckedClock>) -> anyhow::Result<Self> {
        let data_dir = settings.data_dir.clone();
        let options = Options {
            partitions: settings.log.partitions,
            queue_records: settings.log.append_queue_records,
            queue_bytes: settings.log.append_queue_bytes,
            ..Options::default()
        };
        let open = move || {
            private_files::create_directory(&data_dir)
                .with_context(|| format!("cannot create the directory {}", data_dir.display()))?;
            // Each reads and checks all its files; side by side that takes half as long.
            let (log, store) = std::thread::scope(|scope| {
                let store = scope.spawn(|| EmbeddedStore::open(&data_dir.join(READ_MODELS)));
                let log = EmbeddedLog::open(&data_dir.join(LOG_DIR), options, clock);
                (log, store.join())
            });
            anyhow::Ok(Self {
                log: Arc::new(log?),
                store: Arc::new(store.map_err(|_| anyhow!("opening the read store panicked"))??),
            })
        };
        tokio::task::spawn_blocking(open).await?
    }

    async fn close(self) -> anyhow::Result<()> {
        let close = move || {
            if let Err(error) = self.store.close() {
                // Nothing is lost: the projector writes the rows again from the log.
                warn!(%error, "cannot close the read store; its rows are made again from the log");
            }
            self.log
                .close()
                .map_err(|why| anyhow!("cannot close the log: {why}"))
        };
        tokio::task::spawn_blocking(close).await?
    }
}

fn receipt_key(http: &HttpSettings, data_dir: &Path) -> anyhow::Result<ReceiptKey> {
    match &http.receipt_key {
        Some(secret) => Ok(ReceiptKey::new(secret.as_bytes())),
        None => ReceiptKey::load_or_create(data_dir)
            .context("cannot load or create the key of the receipts"),
    }
}
