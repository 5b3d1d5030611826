//! What librdkafka says, to `tracing`.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::ConsumerContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tracing::{debug, info, warn};

/// The same kind of trouble is told again after this, and until then at level debug: while
/// brokers are down every client repeats it several times a second.
const REPEAT_AFTER: Duration = Duration::from_secs(10);

/// How many of a client's own events are taken at a time. One that repeats its trouble all the
/// time has fewer; and since taking one that is only a log line looks like taking none, there is
/// no other way to tell the end.
pub(crate) const EVENTS_AT_ONCE: usize = 16;

/// Hears what the clients of a log say. Clones share what they remember.
#[derive(Clone, Default)]
pub(crate) struct Context {
    heard: Arc<Mutex<Heard>>,
}

#[derive(Default)]
struct Heard {
    /// When each kind of trouble was last told.
    told: HashMap<String, Instant>,
    /// The last error, and when it was heard.
    last: Option<(Instant, String)>,
}

impl Context {
    /// An error as librdkafka returned it, and what it said of late, which is often the cause.
    pub(crate) fn explain(&self, error: &KafkaError) -> String {
        let error = match error.rdkafka_error_code() {
            Some(code) => code.to_string(),
            None => error.to_string(),
        };
        match &self.heard.lock().last {
            Some((at, last)) if at.elapsed() < REPEAT_AFTER => format!("{error}; {last}"),
            _ => error,
        }
    }

    fn tell(&self, kind: &str, what: &str) {
        let now = Instant::now();
        let mut heard = self.heard.lock();
        let told = heard.told.get(kind);
        if told.is_some_and(|told| now - *told < REPEAT_AFTER) {
            drop(heard);
            debug!(kind, "Kafka: {what}");
        } else {
            heard.told.insert(kind.to_owned(), now);
            drop(heard);
            warn!(kind, "Kafka: {what}");
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, kind: &str, line: &str) {
        match level {
            // Of failed connections it tells a second time, as an error.
            _ if matches!(kind, "FAIL" | "ERROR") => debug!(kind, "Kafka: {line}"),
            RDKafkaLogLevel::Emerg
            | RDKafkaLogLevel::Alert
            | RDKafkaLogLevel::Critical
            | RDKafkaLogLevel::Error
            | RDKafkaLogLevel::Warning => self.tell(kind, line),
            RDKafkaLogLevel::Notice => info!(kind, "Kafka: {line}"),
            RDKafkaLogLevel::Info | RDKafkaLogLevel::Debug => debug!(kind, "Kafka: {line}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let code = error.rdkafka_error_code();
        let kind = code.map_or_else(|| "error".to_owned(), |code| format!("{code:?}"));
        match code {
            // A reader finds out what that means.
            Some(RDKafkaErrorCode::AutoOffsetReset) => return debug!("Kafka: {reason}"),
            // That is no reason; the reasons have been told before.
            Some(RDKafkaErrorCode::AllBrokersDown) => {}
            _ => self.heard.lock().last = Some((Instant::now(), reason.to_owned())),
        }
        self.tell(&kind, reason);
    }
}

impl ConsumerContext for Context {}
