//! Appending: a call is accepted or refused as a whole, and gets one answer for all its records.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};
use ports::event_log::{AppendError, NewRecord};
use rdkafka::ClientContext;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{
    BaseRecord, DeliveryResult, Producer as _, ProducerContext, PurgeConfig, ThreadedProducer,
};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::Options;
use crate::availability::Availability;
use crate::context::Context;
use crate::names::Names;

/// How much longer than any record may take closing waits for records in flight.
const FLUSH_MARGIN: Duration = Duration::from_secs(1);
/// How long librdkafka may take to answer the calls whose records are given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

type Producer = ThreadedProducer<Deliveries>;
type Answer = Result<Offset, AppendError>;

/// Appends to the brokers.
pub(crate) struct Appender {
    config: ClientConfig,
    context: Context,
    names: Arc<Names>,
    in_flight: Arc<InFlight>,
    pub(crate) availability: Availability,
    /// How long closing waits for records in flight.
    flush: Duration,
    /// None once closed.
    producer: RwLock<Option<Producer>>,
}

impl Appender {
    pub(crate) fn new(options: &Options, context: Context, names: Arc<Names>) -> KafkaResult<Self> {
        let config = options.producer();
        let producer = Producer::from_config_and_context(&config, Deliveries(context.clone()))?;
        Ok(Self {
            availability: Availability::default(),
            flush: options.append_timeout + FLUSH_MARGIN,
            config,
            context: context.clone(),
            names,
            in_flight: Arc::new(InFlight {
                context,
                max_records: options.queue_records,
                max_bytes: options.queue_bytes,
                taken: Mutex::default(),
                progress: Mutex::new(Instant::now()),
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
        self.availability.check((topic, partition))?;
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

    /// Replaces the producer, in a thread of its own, after a fatal error: then a producer takes no more
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
            let old = self.renew(&mut guard);
            drop(guard);
            drop(old);
        };
        let thread = std::thread::Builder::new().name("kafka-replace".to_owned());
        if let Err(error) = thread.spawn(replace) {
            error!(%error, "cannot start the thread that replaces the Kafka producer; the next append tries again");
        }
    }

    /// Puts a new producer in the place of the old one, and returns the old one. Dropping that gives up
    /// the records that it still has; it may block for half a second.
    fn renew(&self, producer: &mut Option<Producer>) -> Option<Producer> {
        let deliveries = Deliveries(self.context.clone());
        match Producer::from_config_and_context(&self.config, deliveries) {
            Ok(new) => producer.replace(new),
            Err(error) => {
                error!(%error, "cannot create a new Kafka producer; the next append tries again");
                None
            }
        }
    }

    /// Gives up the records in flight, and answers their calls: they are not sent any more, and those
    /// that were sent may be in the log or not. The producer is replaced, since after a gap it would
    /// send what follows under another identity. Blocks until the calls are answered.
    pub(crate) fn give_up(&self) {
        if self.in_flight.taken.lock().0 == 0 {
            return;
        }
        let mut guard = self.producer.write();
        if guard.is_none() {
            // It was closed, and closing waits for them.
            return;
        }
        let old = self.renew(&mut guard);
        drop(guard);
        if let Some(old) = old {
            old.purge(PurgeConfig::default().queue().inflight());
            if let Err(error) = old.flush(ANSWER_WITHIN) {
                warn!(%error, "records that were given up are not answered");
            }
        }
    }

    /// Whether records have been in flight for this long without any of them being acknowledged.
    pub(crate) fn is_stalled(&self, time: Duration) -> bool {
        let any = self.in_flight.taken.lock().0 > 0;
        any && self.in_flight.progress.lock().elapsed() >= time
    }

    /// Refuses further records, and waits until all records in flight have been answered; blocks a
    /// little longer than a record may take.
    pub(crate) fn close(&self) {
        let Some(producer) = self.producer.write().take() else {
            return;
        };
        if let Err(error) = producer.flush(self.flush) {
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
    context: Context,
    max_records: usize,
    max_bytes: usize,
    /// Records and bytes.
    taken: Mutex<(usize, usize)>,
    /// When a call was last acknowledged, or the first one began.
    progress: Mutex<Instant>,
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
        if taken.0 == 0 {
            *self.progress.lock() = Instant::now();
        }
        *taken = (taken.0 + records, taken.1 + bytes);
        Ok(Share {
            in_flight: self.clone(),
            records,
            bytes,
        })
    }
}

impl InFlight {
    /// Notes how a call ended.
    fn note(&self, failure: Option<&Failure>) {
        let Some(failure) = failure else {
            *self.progress.lock() = Instant::now();
            return;
        };
        self.context.suspect();
        if failure.timed_out {
            self.context.counts.append_timed_out();
        }
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
    failure: Mutex<Option<Failure>>,
    /// None once answered, and so is the share.
    answer: Option<oneshot::Sender<Answer>>,
    share: Option<Share>,
}

impl Call {
    fn fail(&self, error: &KafkaError) {
        use RDKafkaErrorCode as E;
        let code = error.rdkafka_error_code();
        let (reason, timed_out) = match code {
            Some(E::PurgeQueue | E::PurgeInflight) => {
                ("the brokers did not acknowledge them".to_owned(), true)
            }
            Some(code) => {
                let timed_out = matches!(code, E::MessageTimedOut | E::RequestTimedOut);
                (code.to_string(), timed_out)
            }
            None => (error.to_string(), false),
        };
        self.fail_because(reason, timed_out);
    }

    fn fail_because(&self, reason: String, timed_out: bool) {
        let failure = Failure { reason, timed_out };
        self.failure.lock().get_or_insert(failure);
    }
}

/// Why a call failed.
struct Failure {
    reason: String,
    /// Whether the brokers did not acknowledge it in time.
    timed_out: bool,
}

impl Drop for Call {
    fn drop(&mut self) {
        let failure = self.failure.get_mut().take();
        if let Some(share) = &self.share {
            share.in_flight.note(failure.as_ref());
        }
        // Released before the answer, so that the caller that gets it finds room for its next call.
        self.share = None;
        let answer = match failure {
            Some(Failure { reason, .. }) => Err(AppendError::Unknown(reason)),
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
                let reason = "the brokers did not report the record's offset".to_owned();
                call.fail_because(reason, false);
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
