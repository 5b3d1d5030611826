//! The consumers that readers share. A client of librdkafka has threads and connections of its
//! own, so a reader is only a partition of a consumer, with a queue of its own. Two readers of
//! one partition need two consumers.

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
use crate::names::{Names, Place};

/// The most consumers, and so the most readers of one partition. There are four of them in a
/// process that runs all services.
const MAX_CONSUMERS: usize = 8;
/// How long a reader waits for another one of its partition to go away when there are so many.
const MAX_WAIT: Duration = Duration::from_secs(5);
/// How long a consumer waits to be told the brokers of a topic that is new to it. By itself it
/// looks for them once a second; whoever takes a partition reads three topics one after another.
const METADATA_WAIT: Duration = Duration::from_millis(500);
/// How often the consumers' own events, such as log lines, are taken when nothing else happens.
const SERVE_EVERY: Duration = Duration::from_millis(50);

/// Opens partitions for readers.
#[derive(Clone)]
pub(crate) struct Consumers {
    names: Arc<Names>,
    requests: Sender<Request>,
}

/// A partition that is being read: what has been fetched of it, in order.
pub(crate) struct Source {
    /// None once given back.
    queue: Option<PartitionQueue<Context>>,
    filled: Arc<Notify>,
    place: Place,
    /// Which consumer it is of.
    consumer: usize,
    requests: Sender<Request>,
}

struct Open {
    place: Place,
    from: i64,
    requests: Sender<Request>,
    answer: oneshot::Sender<Result<Source, ReadError>>,
}

enum Request {
    Open(Open),
    GiveBack {
        place: Place,
        consumer: usize,
        queue: PartitionQueue<Context>,
    },
    Close,
}

impl Consumers {
    /// Starts the thread that keeps the consumers. It ends when the log and all its readers
    /// are gone.
    pub(crate) fn start(
        config: ClientConfig,
        context: Context,
        names: Arc<Names>,
    ) -> std::io::Result<Self> {
        let (requests, received) = channel();
        let keeper = Keeper {
            config,
            context,
            names: names.clone(),
            consumers: Vec::new(),
            waiting: VecDeque::new(),
            closed: false,
        };
        let thread = std::thread::Builder::new().name("kafka-readers".to_owned());
        thread.spawn(move || keeper.run(&received))?;
        Ok(Self { names, requests })
    }

    /// Begins to read a partition.
    pub(crate) async fn open(&self, place: Place, from: i64) -> Result<Source, ReadError> {
        let (answer, opened) = oneshot::channel();
        let requests = self.requests.clone();
        let open = Open {
            place,
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
                "{MAX_CONSUMERS} readers of {} are at work, and no more are allowed",
                self.names.place(place)
            ))),
        }
    }

    /// Stops fetching; no partition is opened from now on.
    pub(crate) fn close(&self) {
        // If the thread has ended, that is done already.
        let _ = self.requests.send(Request::Close);
    }
}

impl Source {
    /// What has been fetched. Whoever finds it empty waits for [`Source::filled`].
    pub(crate) fn queue(&self) -> &PartitionQueue<Context> {
        self.queue
            .as_ref()
            .expect("it is given back only when it is dropped")
    }

    /// Waits until something has been fetched since the queue was last found empty.
    pub(crate) async fn filled(&self) {
        self.filled.notified().await;
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if let Some(queue) = self.queue.take() {
            let (place, consumer) = (self.place, self.consumer);
            // The thread takes requests as long as there are sources.
            let _ = self.requests.send(Request::GiveBack {
                place,
                consumer,
                queue,
            });
        }
    }
}

/// The thread's own.
struct Keeper {
    config: ClientConfig,
    context: Context,
    names: Arc<Names>,
    consumers: Vec<Shared>,
    /// Those who wait for another reader of their partition to go away.
    waiting: VecDeque<Open>,
    closed: bool,
}

struct Shared {
    consumer: Arc<BaseConsumer<Context>>,
    /// The topics whose brokers it has been told to ask for.
    asked: BTreeSet<Topic>,
    /// What is being read by it.
    places: BTreeSet<Place>,
}

impl Keeper {
    fn run(mut self, requests: &Receiver<Request>) {
        loop {
            match requests.recv_timeout(SERVE_EVERY) {
                Ok(Request::Open(open)) => self.open(open),
                Ok(Request::GiveBack {
                    place,
                    consumer,
                    queue,
                }) => {
                    // Before another reader gets the place: a queue that is dropped takes the
                    // partition's waker with it.
                    drop(queue);
                    self.stop(consumer, place);
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
        let free = |shared: &Shared| !shared.places.contains(&open.place);
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
        // A source that nobody waits for any more gives itself back.
        let _ = open.answer.send(started);
    }

    fn add_consumer(&mut self) -> KafkaResult<()> {
        let context = self.context.clone();
        let consumer = BaseConsumer::from_config_and_context(&self.config, context)?;
        self.consumers.push(Shared {
            consumer: Arc::new(consumer),
            asked: BTreeSet::new(),
            places: BTreeSet::new(),
        });
        Ok(())
    }

    fn start(&mut self, at: usize, open: &Open) -> KafkaResult<Source> {
        let shared = &mut self.consumers[at];
        let (topic, partition) = (self.names.topic(open.place.0), open.place.1.0 as i32);
        // The queue is split off first, so that no record goes to the consumer's own queue.
        let queue = shared.consumer.split_partition_queue(topic, partition);
        let mut queue = queue.ok_or(rdkafka::error::KafkaError::Subscription(format!(
            "librdkafka has no queue for {}",
            self.names.place(open.place)
        )))?;
        if shared.asked.insert(open.place.0)
            && let Err(error) = shared.consumer.fetch_metadata(Some(topic), METADATA_WAIT)
        {
            debug!(%error, topic, "its brokers are not known yet");
        }
        let filled = Arc::new(Notify::new());
        let waker = filled.clone();
        queue.set_nonempty_callback(move || waker.notify_one());
        let mut list = TopicPartitionList::new();
        let from = rdkafka::Offset::Offset(open.from);
        list.add_partition_offset(topic, partition, from)?;
        shared.consumer.incremental_assign(&list)?;
        shared.places.insert(open.place);
        Ok(Source {
            queue: Some(queue),
            filled,
            place: open.place,
            consumer: at,
            requests: open.requests.clone(),
        })
    }

    fn stop(&mut self, at: usize, place: Place) {
        let shared = &mut self.consumers[at];
        if !shared.places.remove(&place) {
            // It was stopped when the log was closed.
            return;
        }
        let mut list = TopicPartitionList::new();
        list.add_partition(self.names.topic(place.0), place.1.0 as i32);
        if let Err(error) = shared.consumer.incremental_unassign(&list) {
            warn!(%error, "{} is fetched on though nobody reads it", self.names.place(place));
        }
    }

    fn close(&mut self) {
        self.closed = true;
        for at in 0..self.consumers.len() {
            for place in self.consumers[at].places.clone() {
                self.stop(at, place);
            }
        }
        for open in self.waiting.drain(..) {
            let _ = open.answer.send(Err(ReadError::Closed));
        }
    }

    /// Takes what the consumers have to say themselves. Records never come this way.
    fn serve(&self) {
        for shared in &self.consumers {
            for _ in 0..EVENTS_AT_ONCE {
                if let Some(Err(error)) = shared.consumer.poll(Duration::ZERO) {
                    debug!(%error, "a Kafka consumer has trouble");
                }
            }
        }
    }
}
