//! Forwards the log lines and errors of librdkafka to `tracing`.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::{debug, info, warn};

use crate::counts::Counts;

/// How long errors of the same kind are logged at level debug after one was logged as a warning:
/// while brokers are down every client repeats them several times a second.
const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// How many of a client's own events are polled at a time. Even a client that repeats its errors has
/// fewer. Polling a log line returns nothing, just as an empty queue does, so the end of the queue
/// cannot be detected.
pub(crate) const EVENTS_AT_ONCE: usize = 16;

/// Receives log lines and errors of a log's clients. Clones share their state.
#[derive(Clone, Default)]
pub(crate) struct Context {
    history: Arc<Mutex<History>>,
    /// Whether something suggests that the brokers cannot be reached.
    suspicion: Arc<AtomicBool>,
    pub(crate) counts: Arc<Counts>,
}

#[derive(Default)]
struct History {
    /// When each kind of error was last logged as a warning, and how often it was left out since.
    warned: HashMap<String, (Instant, u64)>,
    /// The last error, and when it was received.
    last: Option<(Instant, String)>,
}

impl Context {
    /// The text of an error that librdkafka returned, with its latest error message, which is often
    /// the cause.
    pub(crate) fn explain(&self, error: &KafkaError) -> String {
        let error = match error.rdkafka_error_code() {
            Some(code) => code.to_string(),
            None => error.to_string(),
        };
        match &self.history.lock().last {
            Some((at, last)) if at.elapsed() < REPEAT_AFTER => format!("{error}; {last}"),
            _ => error,
        }
    }

    /// Notes that the brokers may not be reachable.
    pub(crate) fn suspect(&self) {
        self.suspicion.store(true, Relaxed);
    }

    /// Whether that was noted since the last call.
    pub(crate) fn take_suspicion(&self) -> bool {
        self.suspicion.swap(false, Relaxed)
    }

    fn report(&self, kind: &str, what: &str) {
        let now = Instant::now();
        let mut history = self.history.lock();
        let warned = history.warned.get_mut(kind);
        match warned.filter(|(warned, _)| now - *warned < REPEAT_AFTER) {
            Some((_, left_out)) => {
                *left_out += 1;
                drop(history);
                debug!(kind, "Kafka: {what}");
            }
            None => {
                let before = history.warned.insert(kind.to_owned(), (now, 0));
                drop(history);
                let left_out = before.map_or(0, |(_, left_out)| left_out);
                warn!(kind, left_out, "Kafka: {what}");
            }
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, kind: &str, line: &str) {
        match level {
            // librdkafka also reports failed connections as errors.
            _ if matches!(kind, "FAIL" | "ERROR") => debug!(kind, "Kafka: {line}"),
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => self.report(kind, line),
            RDKafkaLogLevel::Notice => info!(kind, "Kafka: {line}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => debug!(kind, "Kafka: {line}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let kind = code.map_or_else(|| "error".to_owned(), |code| format!("{code:?}"));
        match code {
            // The reader handles it.
            Some(RDKafkaErrorCode::AutoOffsetReset) => return debug!("Kafka: {reason}"),
            // It names no cause; the causes were reported before.
            Some(RDKafkaErrorCode::AllBrokersDown) => self.suspect(),
            _ => self.history.lock().last = Some((Instant::now(), reason.to_owned())),
        }
        self.counts.error(code);
        self.report(&kind, reason);
    }
}

impl ConsumerContext for Context {}
