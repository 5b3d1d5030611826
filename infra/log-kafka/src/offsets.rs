//! Lookups of partitions' offsets. One round trip answers all lookups that are waiting, and no lookup
//! is answered by a round trip that began before it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::{Duration, Instant};

use ports::ReadError;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult};
use schemas::ids::{Offset, TimestampMs};
use tokio::sync::oneshot;
use tracing::debug;

use crate::context::{Context, EVENTS_AT_ONCE};
use crate::names::{Names, TopicPartition};

/// How long the brokers have for an answer. A lookup that begins during a round trip waits for that
/// one too, so no lookup takes longer than about twice this.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long the brokers may take to report the partitions' leaders after one did not answer.
const LEADERS_TIMEOUT: Duration = Duration::from_millis(500);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// The most lookups that wait.
const MAX_WAITING: usize = 65_536;
/// How often the client's own events, such as log lines, are polled when there are no lookups.
const SERVE_EVERY: Duration = Duration::from_millis(200);

/// Which of a partition's offsets to look up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Query {
    /// The offset of the first record.
    First,
    /// The offset after the last record that all in-sync replicas have.
    End,
    /// The offset of the first record of this time or later.
    At(TimestampMs),
}

/// Looks up offsets at the brokers.
#[derive(Clone)]
pub(crate) struct Offsets {
    lookups: SyncSender<Lookup>,
}

struct Lookup {
    partition: TopicPartition,
    query: Query,
    answer: oneshot::Sender<Result<Option<Offset>, ReadError>>,
}

impl Offsets {
    /// Starts the thread that asks the brokers. It ends when all handles are gone.
    pub(crate) fn start(
        consumer: Arc<BaseConsumer<Context>>,
        names: Arc<Names>,
    ) -> std::io::Result<Self> {
        let (lookups, received) = sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new().name("kafka-offsets".to_owned());
        let worker = Worker { consumer, names };
        thread.spawn(move || worker.run(&received))?;
        Ok(Self { lookups })
    }

    /// The partition's first offset or its end; for [`Query::First`] and [`Query::End`].
    pub(crate) async fn get(
        &self,
        partition: TopicPartition,
        query: Query,
    ) -> Result<Offset, ReadError> {
        let none = || ReadError::Unavailable("the brokers returned no offset".to_owned());
        self.find(partition, query).await?.ok_or_else(none)
    }

    /// The offset; none when there is no record of the requested time or later.
    pub(crate) async fn find(
        &self,
        partition: TopicPartition,
        query: Query,
    ) -> Result<Option<Offset>, ReadError> {
        let (answer, answered) = oneshot::channel();
        let lookup = Lookup {
            partition,
            query,
            answer,
        };
        self.lookups.try_send(lookup).map_err(|error| match error {
            TrySendError::Full(_) => ReadError::Unavailable(format!(
                "{MAX_WAITING} lookups of offsets are waiting already"
            )),
            TrySendError::Disconnected(_) => ReadError::Closed,
        })?;
        answered.await.unwrap_or(Err(ReadError::Closed))
    }
}

/// The state of the thread.
struct Worker {
    consumer: Arc<BaseConsumer<Context>>,
    names: Arc<Names>,
}

impl Worker {
    fn run(self, lookups: &Receiver<Lookup>) {
        loop {
            match lookups.recv_timeout(SERVE_EVERY) {
                Ok(first) => self.answer([first].into_iter().chain(lookups.try_iter())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for _ in 0..EVENTS_AT_ONCE {
                let _ = self.consumer.poll(Duration::ZERO);
            }
        }
    }

    fn answer(&self, lookups: impl Iterator<Item = Lookup>) {
        let mut waiting: Vec<Lookup> = lookups.collect();
        let mut failed = false;
        while let Some(query) = waiting.last().map(|lookup| lookup.query) {
            let (same, others) = waiting
                .into_iter()
                .partition(|lookup| lookup.query == query);
            waiting = others;
            let answers = self.round_trip(query, &same);
            if let Err(error) = &answers {
                // The others would only wait for the same failure.
                for lookup in waiting.drain(..) {
                    let _ = lookup.answer.send(Err(error.clone()));
                }
            }
            for lookup in same {
                let found = match &answers {
                    Ok(found) => found[&lookup.partition].clone(),
                    Err(error) => Err(error.clone()),
                };
                failed |= found.is_err();
                // The caller may have gone away.
                let _ = lookup.answer.send(found);
            }
        }
        if failed {
            self.fetch_leaders();
        }
    }

    /// Fetches the partitions' leaders again. librdkafka does so by itself only for partitions that it
    /// reads or writes, and this client does neither: it would keep asking a broker that is gone.
    fn fetch_leaders(&self) {
        if let Err(error) = self.consumer.fetch_metadata(None, LEADERS_TIMEOUT) {
            debug!(%error, "the brokers do not report the partitions' leaders");
        }
    }

    fn round_trip(
        &self,
        query: Query,
        lookups: &[Lookup],
    ) -> Result<BTreeMap<TopicPartition, Result<Option<Offset>, ReadError>>, ReadError> {
        let asked = self.ask(query, lookups);
        let unavailable =
            |error: &KafkaError| ReadError::Unavailable(self.consumer.context().explain(error));
        let found = asked.map_err(|error| unavailable(&error))?;
        let of = |partition: TopicPartition| {
            let (topic, number) = (self.names.topic(partition.0), partition.1.0 as i32);
            let found = found.find_partition(topic, number);
            let found = found.ok_or_else(|| {
                ReadError::Unavailable(format!(
                    "the brokers did not answer for {}",
                    self.names.describe(partition)
                ))
            })?;
            found.error().map_err(|error| unavailable(&error))?;
            Ok(match found.offset() {
                rdkafka::Offset::Offset(offset) => Some(Offset(offset)),
                _ => None,
            })
        };
        let partitions = lookups.iter().map(|lookup| lookup.partition);
        Ok(partitions
            .map(|partition| (partition, of(partition)))
            .collect())
    }

    /// Asks until the brokers answer or the time is over: after a leader has moved, the first request
    /// only leads to fetching the new leader.
    fn ask(&self, query: Query, lookups: &[Lookup]) -> KafkaResult<TopicPartitionList> {
        let deadline = Instant::now() + TIMEOUT;
        let list = self.list(query, lookups)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.offsets_for_times(list.clone(), left) {
                Err(_) if left > ASK_AGAIN_AFTER => std::thread::sleep(ASK_AGAIN_AFTER),
                answered => return answered,
            }
        }
    }

    /// librdkafka takes the requested time in the offset field; in Kafka's protocol the first offset and
    /// the end are special times.
    fn list(&self, query: Query, lookups: &[Lookup]) -> KafkaResult<TopicPartitionList> {
        let time = match query {
            Query::First => rdkafka::Offset::Beginning,
            Query::End => rdkafka::Offset::End,
            Query::At(time) => rdkafka::Offset::Offset(time.max(0)),
        };
        let mut partitions: Vec<TopicPartition> =
            lookups.iter().map(|lookup| lookup.partition).collect();
        partitions.sort_unstable();
        partitions.dedup();
        let mut list = TopicPartitionList::with_capacity(partitions.len());
        for (topic, partition) in partitions {
            list.add_partition_offset(self.names.topic(topic), partition.0 as i32, time)?;
        }
        Ok(list)
    }
}
