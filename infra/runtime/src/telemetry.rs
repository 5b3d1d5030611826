//! Log messages on standard error, and metrics.

use std::io::IsTerminal;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::drain::Drain;
use crate::settings::{LogFormat, TelemetrySettings};

/// Upper bounds of the histograms' buckets, in seconds: from a request that touches only
/// memory to the longest long poll.
const BUCKETS_SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0, 30.0,
];
/// How often samples are folded into buckets. Between two folds each sample takes up memory.
const UPKEEP: Duration = Duration::from_secs(1);

/// The process's metrics, rendered on request.
#[derive(Clone)]
pub struct Metrics(PrometheusHandle);

impl Metrics {
    /// Every metric in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Folds samples into their buckets until the services are stopped.
    pub fn keep_up(self, drain: &Drain) {
        let stop = drain.services().clone();
        let fold = async move {
            loop {
                tokio::time::sleep(UPKEEP).await;
                self.0.run_upkeep();
            }
        };
        drain.spawn(async move {
            stop.run_until_cancelled(fold).await;
        });
    }
}

/// Directs log messages to standard error. Has no effect if a subscriber is already installed,
/// as in tests.
pub fn init_logging(settings: &TelemetrySettings) {
    let logging = tracing_subscriber::fmt()
        .with_env_filter(settings.filter())
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    let _ = match settings.format {
        LogFormat::Pretty => logging.compact().try_init(),
        LogFormat::Json => logging.json().flatten_event(true).try_init(),
    };
}

/// The process's one recorder of metrics, installed at the first call.
pub fn metrics() -> Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    let install = || {
        let handle = PrometheusBuilder::new()
            .set_buckets(&BUCKETS_SECONDS)
            .expect("there is at least one bucket")
            .install_recorder()
            .expect("no other recorder is installed: this is the only place that does");
        crate::metrics::describe();
        Metrics(handle)
    };
    METRICS.get_or_init(install).clone()
}
