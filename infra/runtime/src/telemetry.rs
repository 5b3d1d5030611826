//! Log messages on standard error, and metrics. Neither ever stops or delays the work: see
//! [`log_queue`](crate::log_queue).

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::panic::PanicHookInfo;
use std::sync::OnceLock;
use std::time::Duration;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use tokio_util::sync::CancellationToken;

use crate::exposition;
use crate::health::Health;
use crate::log_queue::LogQueue;
use crate::output;
use crate::settings::{LogFormat, TelemetrySettings};

/// Upper bounds of the histograms' buckets, in seconds: from a request that touches only
/// memory to the longest long poll.
const BUCKETS_SECONDS: [f64; 16] = [
    0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5,
    10.0, 30.0,
];
/// How often samples are folded into buckets. Between two folds each sample takes up memory.
const UPKEEP: Duration = Duration::from_secs(1);
/// How long the end of the process waits for the last log messages to be written. If standard error
/// is not read, they are lost.
pub const LAST_MESSAGES: Duration = Duration::from_secs(1);

/// The process's log, once it is installed.
static LOG: OnceLock<Log> = OnceLock::new();

struct Log {
    queue: LogQueue,
    format: LogFormat,
}

/// The process's metrics, rendered on request.
#[derive(Clone)]
pub struct Metrics {
    recorder: PrometheusHandle,
    process: metrics_process::Collector,
}

impl Metrics {
    /// Every metric in the text format of Prometheus, with the readiness of these components.
    pub fn render(&self, health: &Health) -> String {
        self.process.collect();
        let mut text = self.recorder.render();
        text.push_str(&exposition::render(health));
        text
    }

    /// Folds samples into their buckets until `stop` is cancelled.
    pub async fn keep_up(self, stop: CancellationToken) {
        let fold = async {
            loop {
                tokio::time::sleep(UPKEEP).await;
                self.recorder.run_upkeep();
            }
        };
        stop.run_until_cancelled(fold).await;
    }
}

/// Directs log messages, and what is known of a panic, to standard error. Nothing waits for who
/// reads it. Has no effect if a subscriber is already installed, as in tests.
pub fn init_logging(settings: &TelemetrySettings) {
    let queue = match LogQueue::start(io::stderr(), report_lost) {
        Ok(queue) => queue,
        Err(error) => {
            output::error_line(format_args!("log messages cannot be shown: {error}"));
            return;
        }
    };
    let writer = queue.clone();
    let logging = tracing_subscriber::fmt()
        .with_env_filter(settings.filter())
        .with_writer(move || writer.clone())
        // The subscriber reports its own errors with `eprintln!`, which panics.
        .log_internal_errors(false)
        .with_ansi(io::stderr().is_terminal());
    let format = settings.format;
    let installed = match format {
        LogFormat::Pretty => logging.compact().try_init(),
        LogFormat::Json => logging.json().flatten_event(true).try_init(),
    };
    if installed.is_ok() && LOG.set(Log { queue, format }).is_ok() {
        // The standard library's own hook waits until standard error is read.
        std::panic::set_hook(Box::new(report_panic));
    }
}

/// Reports why the process ends, in the form of the log if there is one.
pub fn report_end(error: impl Display) {
    match LOG.get() {
        Some(log) if log.format == LogFormat::Json => tracing::error!("{error}"),
        Some(log) => log.queue.push(format!("error: {error}\n").as_bytes()),
        None => output::error_line(format_args!("error: {error}")),
    }
}

/// Waits until all log messages have been written, but no longer than `limit`.
pub fn flush_log(limit: Duration) {
    if let Some(log) = LOG.get() {
        log.queue.flush(limit);
    }
}

fn report_lost(lines: u64) {
    tracing::warn!(
        lines,
        "log lines were lost: standard error was not read, or could not be written"
    );
}

fn report_panic(panic: &PanicHookInfo) {
    let location = panic.location().map(ToString::to_string);
    let message = panic.payload_as_str().unwrap_or("no message");
    let backtrace = Backtrace::capture();
    let backtrace = match backtrace.status() {
        BacktraceStatus::Captured => Some(tracing::field::display(backtrace)),
        _ => None,
    };
    let thread = std::thread::current();
    tracing::error!(
        thread = thread.name(),
        backtrace,
        "panicked at {}: {message}",
        location.as_deref().unwrap_or("an unknown place")
    );
    // Such a panic ends the process.
    if thread.name() == Some("main") {
        flush_log(LAST_MESSAGES);
    }
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
        let process = metrics_process::Collector::default();
        process.describe();
        Metrics {
            recorder: handle,
            process,
        }
    };
    METRICS.get_or_init(install).clone()
}
