//! Appending: a call is accepted or refused as a whole, and gets one answer for all its records.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use ports::event_log::{AppendError, NewRecord};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, ThreadedProducer,
};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::context::Context;
use crate::names::Names;

/// How long a record waits for its acknowledgement before it fails, in milliseconds.
pub(crate) const TIMEOUT_MS: &str = "10000";
/// How long closing waits for records in flight; a little longer than any record may take.
const FLUSH: Duration = Duration::from_secs(11);

type Producer = ThreadedProducer<Deliveries>;
type Answer = Result<Offset, AppendError>;

/// Appends to the brokers.
pub(crate) struct Appender {
    config: ClientConfig,
    context: Context,
    names: Arc<Names>,
    in_flight: Arc<InFlight>,
    /// None once closed.
    producer: RwLock<Option<Producer>>,
}

impl Appender {
    pub(crate) fn new(
        config: ClientConfig,
        context: Context,
        names: Arc<Names>,
        max_records: usize,
        max_bytes: usize,
    ) -> KafkaResult<Self> {
        let producer = Producer::from_config_and_context(&config, Deliveries(context.clone()))?;
        Ok(Self {
            config,
            context,
            names,
            in_flight: Arc::new(InFlight {
                max_records,
                max_bytes,
                taken: Mutex::default(),
            }),
            producer: RwLock::new(Some(producer)),
        })
    }

    /// Passes all records of a call to librdkafka, or none of them.
    pub(crate) fn enqueue(
        self: &Arc<Self>,
        topic: Topic,
        partition: Partition,
        records: &[NewRecord],
    ) -> Result<oneshot::Receiver<Answer>, AppendError> {
        records.iter().try_for_each(NewRecord::check_bounds)?;
        let guard = self.producer.read();
        let producer = guard
            .as_ref()
            .ok_or_else(|| AppendError::Stopped("it is closed".to_owned()))?;
        let share = self.in_flight.take(records)?;
        let (answer, waiting) = oneshot::channel();
        let call = Arc::new(Call {
            last: AtomicI64::new(-1),
            failure: Mutex::default(),
            answer: Some(answer),
            share: Some(share),
        });
        let topic = self.names.topic(topic);
        for record in records {
            let mut sent = BaseRecord::with_opaque_to(topic, call.clone())
                .partition(partition.0 as i32)
                .key(&record.key[..])
                .payload(&record.value[..]);
            if !record.headers.is_empty() {
                sent = sent.headers(headers(&record.headers));
            }
            if let Err((error, _)) = producer.send(sent) {
                // The records before it are in flight, so the outcome of the call is unknown.
                call.fail(&error);
                if error.rdkafka_error_code() == Some(RDKafkaErrorCode::Fatal) {
                    self.clone().replace();
                }
                break;
            }
        }
        Ok(waiting)
    }

    /// Replaces the producer, in a thread of its own: after a fatal error a producer takes no more
    /// records.
    fn replace(self: Arc<Self>) {
        let replace = move || {
            let mut guard = self.producer.write();
            let fatal = guard.as_ref().and_then(|p| p.client().fatal_error());
            let Some((code, reason)) = fatal else {
                // It was closed, or another call has replaced it.
                return;
            };
            warn!(%code, reason, "the Kafka producer failed with a fatal error; replacing it");
            let deliveries = Deliveries(self.context.clone());
            match Producer::from_config_and_context(&self.config, deliveries) {
                Ok(producer) => {
                    let old = guard.replace(producer);
                    drop(guard);
                    drop(old);
                }
                Err(error) => {
                    error!(%error, "cannot create a new Kafka producer; the next append tries again")
                }
            }
        };
        let thread = std::thread::Builder::new().name("kafka-replace".to_owned());
        if let Err(error) = thread.spawn(replace) {
            error!(%error, "cannot start the thread that replaces the Kafka producer; the next append tries again");
        }
    }

    /// Refuses further records, and waits until all records in flight have been answered; blocks for
    /// at most [`FLUSH`].
    pub(crate) fn close(&self) {
        let Some(producer) = self.producer.write().take() else {
            return;
        };
        if let Err(error) = producer.flush(FLUSH) {
            warn!(%error, "records were still in flight to the brokers when the log was closed");
        }
    }

    /// Refuses further records, and abandons those in flight; does not block.
    pub(crate) fn abandon(&self) {
        if let Some(producer) = self.producer.write().take() {
            let _ = std::thread::Builder::new()
                .name("kafka-abandon".to_owned())
                .spawn(move || drop(producer));
        }
    }
}

fn headers(headers: &[(String, Bytes)]) -> OwnedHeaders {
    let all = OwnedHeaders::new_with_capacity(headers.len());
    headers.iter().fold(all, |all, (key, value)| {
        let value = Some(&value[..]);
        all.insert(Header { key, value })
    })
}

/// The records and bytes in flight.
struct InFlight {
    max_records: usize,
    max_bytes: usize,
    /// Records and bytes.
    taken: Mutex<(usize, usize)>,
}

impl InFlight {
    fn take(self: &Arc<Self>, call: &[NewRecord]) -> Result<Share, AppendError> {
        let (records, max) = (call.len(), self.max_bytes);
        let bytes = call.iter().map(NewRecord::bytes).sum::<usize>();
        if bytes > max {
            let what = "the call";
            return Err(AppendError::TooLarge { what, bytes, max });
        }
        let mut taken = self.taken.lock();
        // With nothing in flight, a call may have any number of records, or one with many would never
        // succeed.
        let too_many = taken.0 > 0 && taken.0 + records > self.max_records;
        if too_many || taken.1 + bytes > max {
            return Err(AppendError::Full);
        }
        *taken = (taken.0 + records, taken.1 + bytes);
        Ok(Share {
            in_flight: self.clone(),
            records,
            bytes,
        })
    }
}

/// A call's share of the records and bytes in flight; released when dropped.
struct Share {
    in_flight: Arc<InFlight>,
    records: usize,
    bytes: usize,
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.in_flight.taken.lock();
        *taken = (taken.0 - self.records, taken.1 - self.bytes);
    }
}

/// A call in flight. Each of its records keeps a reference until its delivery is reported; dropping
/// the last reference answers the call.
struct Call {
    /// The highest offset so far; -1 when there is none.
    last: AtomicI64,
    failure: Mutex<Option<String>>,
    /// None once answered, and so is the share.
    answer: Option<oneshot::Sender<Answer>>,
    share: Option<Share>,
}

impl Call {
    fn fail(&self, error: &KafkaError) {
        self.fail_because(match error.rdkafka_error_code() {
            Some(code) => code.to_string(),
            None => error.to_string(),
        });
    }

    fn fail_because(&self, reason: String) {
        self.failure.lock().get_or_insert(reason);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // Released first, so that the caller that gets the answer finds room for its next call.
        self.share = None;
        let answer = match self.failure.get_mut().take() {
            Some(reason) => Err(AppendError::Unknown(reason)),
            None => Ok(Offset(*self.last.get_mut())),
        };
        if let Some(waiting) = self.answer.take() {
            // The caller may have gone away.
            let _ = waiting.send(answer);
        }
    }
}

/// Receives the delivery report of every record.
struct Deliveries(Context);

impl ClientContext for Deliveries {
    fn log(&self, level: RDKafkaLogLevel, kind: &str, line: &str) {
        self.0.log(level, kind, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = Arc<Call>;

    fn delivery(&self, delivery: &DeliveryResult<'_>, call: Arc<Call>) {
        match delivery {
            // For a record that was sent twice, the brokers may not report the offset.
            Ok(message) if message.offset() < 0 => {
                call.fail_because("the brokers did not report the record's offset".to_owned());
            }
            Ok(message) => {
                call.last.fetch_max(message.offset(), Relaxed);
            }
            Err((error, _)) => call.fail(error),
        }
    }
}

#[cfg(test)]
mod tests;
