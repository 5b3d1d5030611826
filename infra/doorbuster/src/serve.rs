//! All services in one process: command API, deciders, projector and query API, over the embedded
//! log and read store.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use command_api::decider::{self, CheckpointPolicy, Decider};
use command_api::http::{CommandApi, KnownProducts, KnownRounds, RecentOrders};
use command_api::log_watch::{LogState, LogWatch};
use log_embedded::{EmbeddedLog, Options, ScanProgress};
use ports::clock::SystemClock;
use ports::{CheckedClock, Clock, EventLog, ReadStore};
use projector::run::Projector;
use query_api::http::QueryApi;
use query_api::live::{self, Live, LiveSettings};
use runtime::drain::Drain;
use runtime::health::{Component, Health, REPORT_EVERY};
use runtime::private_files;
use runtime::settings::{HttpSettings, Settings};
use runtime::telemetry;
use schemas::codec::Codec;
use schemas::placement::Placement;
use store_embedded::EmbeddedStore;
use tokio::time::{sleep, timeout};
use tracing::warn;
use web::receipt::ReceiptKey;

use crate::instance::{Instance, Servers};
use crate::{LOG_DIR, READ_MODELS, clock_health, demo, routes, start};

/// How often the progress of the start is reported.
const REPORT_START_EVERY: Duration = Duration::from_millis(250);

/// The engines of an instance.
struct EmbeddedEngines {
    log: Arc<EmbeddedLog>,
    store: Arc<EmbeddedStore>,
}

/// Starts an instance: binds the addresses and answers there, locks the data directory, and starts the
/// services. From then on it answers requests, as far as the services are ready.
pub async fn start(settings: Settings, drain: Drain) -> anyhow::Result<Instance> {
    let health = Health::new(settings.stall);
    // The process is not ready from before its first request until all of it works.
    let start = health.component(start::COMPONENT);
    let metrics = telemetry::metrics();
    let servers = Servers::start(&settings.http, true, &health, &metrics, &drain).await?;
    let clock = CheckedClock::new(Arc::new(SystemClock), settings.log.max_clock_jump);
    let clock = Arc::new(clock);
    let (engines, receipts) = open(&settings, clock.clone(), &start).await?;

    let codec = Arc::new(Codec::embedded());
    let (log, store): (Arc<dyn EventLog>, Arc<dyn ReadStore>) =
        (engines.log.clone(), engines.store.clone());
    if settings.demo && demo::is_new(&*log).await? {
        demo::create_sale(&*log, &codec, clock.now_ms()).await?;
    }

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
    services.spawn(&drain, servers.address());
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
    drain.keep(watch_log(
        engines.log.clone(),
        health.component("log writer"),
    ));
    let component = health.component(clock_health::COMPONENT);
    drain.keep(clock_health::watch(clock.clone(), component));
    // For each partition a decider, a projector and two tails; the live store, the log, its writer and
    // the clock.
    let parts = 4 * log.partitions() as usize + 4;
    start::registered(&health, &start, parts).await;
    drain.spawn(metrics.keep_up(drain.services().clone()));

    let commands = CommandApi {
        placement: Placement::new(log.partitions()),
        log,
        store,
        codec,
        receipts,
        clock: clock.clone(),
        known: KnownProducts::default(),
        log_state,
        rounds: KnownRounds::default(),
        recent: RecentOrders::default(),
    };
    let api = QueryApi { live, clock };
    let parts = vec![
        routes::commands(commands, &settings.http),
        routes::queries(api, &settings.http, drain.started()),
    ];
    let routes = routes::all(parts, &settings.http.allowed_origins);
    servers.routes().send_modify(|current| *current = routes);
    tokio::spawn(start::complete(health, start));
    Ok(Instance::begin(servers, drain, engines.close()))
}

/// Opens the engines and loads the receipts' key, and reports meanwhile how far that has come.
async fn open(
    settings: &Settings,
    clock: Arc<CheckedClock>,
    start: &Component,
) -> anyhow::Result<(EmbeddedEngines, ReceiptKey)> {
    let progress = Arc::new(ScanProgress::default());
    let opening = {
        let (settings, progress) = (settings.clone(), progress.clone());
        tokio::task::spawn_blocking(move || {
            let engines = EmbeddedEngines::open(&settings, clock, &progress)?;
            let receipts = receipt_key(&settings.http, &settings.data_dir)?;
            anyhow::Ok((engines, receipts))
        })
    };
    let mut opening = pin!(opening);
    loop {
        let (segment, last) = progress.segment();
        let records = progress.records();
        start.starting(format!(
            "opening the log and the read models: {records} records of the log are verified, \
             which is now at segment {segment} of {last}"
        ));
        if let Ok(opened) = timeout(REPORT_START_EVERY, &mut opening).await {
            return opened?;
        }
    }
}

/// Reports what the log is doing: whether its disk answers, and what only an operator can mend.
async fn watch_log(log: Arc<EmbeddedLog>, component: Component) -> Infallible {
    loop {
        let (batches, status) = (log.written().batches, log.status());
        match status.stopped {
            Some(reason) => component.broken(&reason),
            None => {
                component.progress(batches as i64, status.waiting_records);
                if let Some(failure) = status.preparing_failure {
                    component.degraded(format!(
                        "{failure}; make room on the disk, or raise the limit of open files. The log \
                         tries again by itself; when its current segment is full, orders are refused \
                         until that succeeds"
                    ));
                }
            }
        }
        sleep(REPORT_EVERY / 2).await;
    }
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
            // Orders are taken, decided and answered without it.
            health: self.health.for_dispensable(),
        };
        let stop = drain.services();
        drain.spawn(decider::run(decider, stop.clone()));
        drain.spawn(projector::run(projector, stop.clone()));
        drain.spawn(live::run(self.live, self.health, stop.clone()));
    }
}

impl EmbeddedEngines {
    fn open(
        settings: &Settings,
        clock: Arc<CheckedClock>,
        progress: &ScanProgress,
    ) -> anyhow::Result<Self> {
        let data_dir = &settings.data_dir;
        let options = Options {
            partitions: settings.log.partitions,
            queue_records: settings.log.append_queue_records,
            queue_bytes: settings.log.append_queue_bytes,
            ..Options::default()
        };
        private_files::create_directory(data_dir)
            .with_context(|| format!("cannot create the directory {}", data_dir.display()))?;
        // Each reads and checks all its files; side by side that takes half as long.
        let (log, store) = std::thread::scope(|scope| {
            let store = scope.spawn(|| EmbeddedStore::open(&data_dir.join(READ_MODELS)));
            let dir = data_dir.join(LOG_DIR);
            let log = EmbeddedLog::open_with_progress(&dir, options, clock, progress);
            (log, store.join())
        });
        Ok(Self {
            log: Arc::new(log?),
            store: Arc::new(store.map_err(|_| anyhow!("opening the read store panicked"))??),
        })
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
