//! The consumers that readers share. A client of librdkafka has threads and connections of its own, so
//! a reader only gets one partition of a shared consumer, with a queue of its own. Two readers of one
//! partition need two consumers.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use ports::ReadError;
use rdkafka::TopicPartitionList;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use schemas::topics::Topic;
use tokio::sync::{Notify, oneshot};
use tracing::{debug, warn};

use crate::context::{Context, EVENTS_AT_ONCE};
use crate::names::{Names, TopicPartition};

/// The most consumers, and so the most readers of one partition. A process that runs all services has
/// four readers of a partition.
const MAX_CONSUMERS: usize = 8;
/// How long a new reader waits for another reader of its partition to end when there are that many.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// How long a consumer waits for the metadata of a topic that is new to it. By itself it fetches
/// metadata once a second, and a decider that takes a partition reads three topics in turn.
const METADATA_WAIT: Duration = Duration::from_millis(500);
/// How often the consumers' own events, such as log lines, are polled when nothing else happens.
const SERVE_EVERY: Duration = Duration::from_millis(50);

/// Opens partitions for readers.
#[derive(Clone)]
pub(crate) struct Consumers {
    names: Arc<Names>,
    requests: Sender<Request>,
}

/// A partition that is being read, with its fetched records in order.
pub(crate) struct Source {
    /// None once returned to the pool.
    queue: Option<PartitionQueue<Context>>,
    filled: Arc<Notify>,
    partition: TopicPartition,
    /// The index of its consumer.
    consumer: usize,
    requests: Sender<Request>,
}

struct Open {
    partition: TopicPartition,
    from: i64,
    requests: Sender<Request>,
    answer: oneshot::Sender<Result<Source, ReadError>>,
}

enum Request {
    Open(Open),
    Return {
        partition: TopicPartition,
        consumer: usize,
        queue: PartitionQueue<Context>,
    },
    Close,
}

impl Consumers {
    /// Starts the thread that owns the consumers. It ends when the log and all its readers are gone.
    pub(crate) fn start(
        config: ClientConfig,
        context: Context,
        names: Arc<Names>,
    ) -> std::io::Result<Self> {
        let (requests, received) = channel();
        let pool = Pool {
            config,
            context,
            names: names.clone(),
            consumers: Vec::new(),
            waiting: VecDeque::new(),
            closed: false,
        };
        let thread = std::thread::Builder::new().name("kafka-readers".to_owned());
        thread.spawn(move || pool.run(&received))?;
        Ok(Self { names, requests })
    }

    /// Opens a partition for a reader that begins at offset `from`.
    pub(crate) async fn open(
        &self,
        partition: TopicPartition,
        from: i64,
    ) -> Result<Source, ReadError> {
        let (answer, opened) = oneshot::channel();
        let requests = self.requests.clone();
        let open = Open {
            partition,
            from,
            requests,
            answer,
        };
        let gone = |_| ReadError::Closed;
        self.requests
            .send(Request::Open(open))
            .map_err(|_| ReadError::Closed)?;
        match tokio::time::timeout(MAX_WAIT, opened).await {
            Ok(opened) => opened.map_err(gone)?,
            Err(_) => Err(ReadError::Unavailable(format!(
                "{MAX_CONSUMERS} readers of {} are open, which is the limit",
                self.names.describe(partition)
            ))),
        }
    }

    /// Stops fetching, and refuses to open further partitions.
    pub(crate) fn close(&self) {
        // If the thread has ended, it has stopped fetching already.
        let _ = self.requests.send(Request::Close);
    }
}

impl Source {
    /// The fetched records. When it is empty, wait for [`Source::filled`].
    pub(crate) fn queue(&self) -> &PartitionQueue<Context> {
        self.queue
            .as_ref()
            .expect("the queue is returned only when the source is dropped")
    }

    /// Waits until a record has been fetched since the queue was last found empty.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            let (partition, consumer) = (self.partition, self.consumer);
            // The thread receives requests as long as there are sources.
            let _ = self.requests.send(Request::Return {
                partition,
                consumer,
                queue,
            });
        }
    }
}

/// The consumers and waiting requests, which the thread owns.
struct Pool {
    config: ClientConfig,
    context: Context,
    names: Arc<Names>,
    consumers: Vec<SharedConsumer>,
    /// Requests that wait for another reader of their partition to end.
    waiting: VecDeque<Open>,
    closed: bool,
}

struct SharedConsumer {
    consumer: Arc<BaseConsumer<Context>>,
    /// The topics whose metadata it has fetched.
    known_topics: BTreeSet<Topic>,
    /// The partitions that it is reading.
    partitions: BTreeSet<TopicPartition>,
}

impl Pool {
    fn run(mut self, requests: &Receiver<Request>) {
        loop {
            match requests.recv_timeout(SERVE_EVERY) {
                Ok(Request::Open(open)) => self.open(open),
                Ok(Request::Return {
                    partition,
                    consumer,
                    queue,
                }) => {
                    // Dropped before another reader gets the partition: dropping a queue removes
                    // the partition's waker.
                    drop(queue);
                    self.stop(consumer, partition);
                    for open in std::mem::take(&mut self.waiting) {
                        self.open(open);
                    }
                }
                Ok(Request::Close) => self.close(),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.serve();
        }
    }

    fn open(&mut self, open: Open) {
        if open.answer.is_closed() {
            return;
        }
        if self.closed {
            let _ = open.answer.send(Err(ReadError::Closed));
            return;
        }
        let free = |shared: &SharedConsumer| !shared.partitions.contains(&open.partition);
        let at = match self.consumers.iter().position(free) {
            None if self.consumers.len() == MAX_CONSUMERS => {
                self.waiting.push_back(open);
                return;
            }
            None => self.add_consumer().map(|()| self.consumers.len() - 1),
            Some(at) => Ok(at),
        };
        let started = at.and_then(|at| self.start(at, &open));
        let started = started.map_err(|error| ReadError::Unavailable(error.to_string()));
        // If the caller has gone away, the source is dropped and returns itself.
        let _ = open.answer.send(started);
    }

    fn add_consumer(&mut self) -> KafkaResult<()> {
        let context = self.context.clone();
        let consumer = BaseConsumer::from_config_and_context(&self.config, context)?;
        self.consumers.push(SharedConsumer {
            consumer: Arc::new(consumer),
            known_topics: BTreeSet::new(),
            partitions: BTreeSet::new(),
        });
        Ok(())
    }

    fn start(&mut self, at: usize, open: &Open) -> KafkaResult<Source> {
        let shared = &mut self.consumers[at];
        let (topic, partition) = (
            self.names.topic(open.partition.0),
            open.partition.1.0 as i32,
        );
        // The queue is split off first, so that no record enters the consumer's own queue.
        let queue = shared.consumer.split_partition_queue(topic, partition);
        let mut queue = queue.ok_or(rdkafka::error::KafkaError::Subscription(format!(
            "librdkafka has no queue for {}",
            self.names.describe(open.partition)
        )))?;
        if shared.known_topics.insert(open.partition.0)
            && let Err(error) = shared.consumer.fetch_metadata(Some(topic), METADATA_WAIT)
        {
            debug!(%error, topic, "the topic's metadata is not known yet");
        }
        let filled = Arc::new(Notify::new());
        let waker = filled.clone();
        queue.set_nonempty_callback(move || waker.notify_one());
        let mut list = TopicPartitionList::new();
        let from = rdkafka::Offset::Offset(open.from);
        list.add_partition_offset(topic, partition, from)?;
        shared.consumer.incremental_assign(&list)?;
        shared.partitions.insert(open.partition);
        Ok(Source {
            queue: Some(queue),
            filled,
            partition: open.partition,
            consumer: at,
            requests: open.requests.clone(),
        })
    }

    fn stop(&mut self, at: usize, partition: TopicPartition) {
        let shared = &mut self.consumers[at];
        if !shared.partitions.remove(&partition) {
            // Closing the log has stopped it already.
            return;
        }
        let mut list = TopicPartitionList::new();
        list.add_partition(self.names.topic(partition.0), partition.1.0 as i32);
        if let Err(error) = shared.consumer.incremental_unassign(&list) {
            warn!(%error, "cannot stop fetching {}, though no reader needs it", self.names.describe(partition));
        }
    }

    fn close(&mut self) {
        self.closed = true;
        for at in 0..self.consumers.len() {
            for partition in self.consumers[at].partitions.clone() {
                self.stop(at, partition);
            }
        }
        for open in self.waiting.drain(..) {
            let _ = open.answer.send(Err(ReadError::Closed));
        }
    }

    /// Polls the consumers' own events. Records never arrive this way.
    fn serve(&self) {
        for shared in &self.consumers {
            for _ in 0..EVENTS_AT_ONCE {
                if let Some(Err(error)) = shared.consumer.poll(Duration::ZERO) {
                    debug!(%error, "a Kafka consumer reports an error");
                }
            }
        }
    }
}
