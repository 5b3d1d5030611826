//! Where partitions begin and end. All who ask at the same time are answered by one round trip,
//! and nobody by one that began before the question.

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
use crate::names::{Names, Place};

/// How long the brokers have for an answer. Who asks while a round trip is under way waits for
/// that one too, so no answer takes longer than about twice this.
const TIMEOUT: Duration = Duration::from_secs(2);
/// How long they have to say who leads which partition, once one did not answer.
const LEADERS_TIMEOUT: Duration = Duration::from_millis(500);
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(50);
/// The most questions that wait.
const MAX_WAITING: usize = 65_536;
/// How often the client's own events, such as log lines, are taken when nothing is asked.
const SERVE_EVERY: Duration = Duration::from_millis(200);

/// Which of a partition's offsets is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Which {
    /// The first record's.
    First,
    /// The one behind the last record that all replicas in sync have.
    End,
    /// The first record's of this time or later.
    At(TimestampMs),
}

/// Asks the brokers.
#[derive(Clone)]
pub(crate) struct Offsets {
    questions: SyncSender<Question>,
}

struct Question {
    place: Place,
    which: Which,
    answer: oneshot::Sender<Result<Option<Offset>, ReadError>>,
}

impl Offsets {
    /// Starts the thread that asks. It ends when nobody is left who could ask it.
    pub(crate) fn start(
        consumer: BaseConsumer<Context>,
        names: Arc<Names>,
    ) -> std::io::Result<Self> {
        let (questions, received) = sync_channel(MAX_WAITING);
        let thread = std::thread::Builder::new().name("kafka-offsets".to_owned());
        let asking = Asking { consumer, names };
        thread.spawn(move || asking.run(&received))?;
        Ok(Self { questions })
    }

    /// The partition's first offset or its end.
    pub(crate) async fn ask(&self, place: Place, which: Which) -> Result<Offset, ReadError> {
        let none = || ReadError::Unavailable("the brokers named no offset".to_owned());
        self.find(place, which).await?.ok_or_else(none)
    }

    /// Also none, when there is no record of the time asked for or later.
    pub(crate) async fn find(
        &self,
        place: Place,
        which: Which,
    ) -> Result<Option<Offset>, ReadError> {
        let (answer, answered) = oneshot::channel();
        let question = Question {
            place,
            which,
            answer,
        };
        self.questions
            .try_send(question)
            .map_err(|error| match error {
                TrySendError::Full(_) => ReadError::Unavailable(format!(
                    "{MAX_WAITING} questions for offsets are waiting already"
                )),
                TrySendError::Disconnected(_) => ReadError::Closed,
            })?;
        answered.await.unwrap_or(Err(ReadError::Closed))
    }
}

/// The thread's own.
struct Asking {
    consumer: BaseConsumer<Context>,
    names: Arc<Names>,
}

impl Asking {
    fn run(self, questions: &Receiver<Question>) {
        loop {
            match questions.recv_timeout(SERVE_EVERY) {
                Ok(first) => self.answer([first].into_iter().chain(questions.try_iter())),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            for _ in 0..EVENTS_AT_ONCE {
                let _ = self.consumer.poll(Duration::ZERO);
            }
        }
    }

    fn answer(&self, questions: impl Iterator<Item = Question>) {
        let mut waiting: Vec<Question> = questions.collect();
        let mut failed = false;
        while let Some(which) = waiting.last().map(|question| question.which) {
            let (same, others) = waiting.into_iter().partition(|q| q.which == which);
            waiting = others;
            let asked = self.round_trip(which, &same);
            if let Err(error) = &asked {
                // They would wait as long for nothing.
                for question in waiting.drain(..) {
                    let _ = question.answer.send(Err(error.clone()));
                }
            }
            for question in same {
                let found = match &asked {
                    Ok(found) => found[&question.place].clone(),
                    Err(error) => Err(error.clone()),
                };
                failed |= found.is_err();
                // Whoever no longer waits does not care.
                let _ = question.answer.send(found);
            }
        }
        if failed {
            self.learn_leaders();
        }
    }

    /// Learns anew who leads which partition. librdkafka does so by itself only for partitions
    /// that it reads or writes, and this client does neither: it would go on asking a broker
    /// that is gone.
    fn learn_leaders(&self) {
        if let Err(error) = self.consumer.fetch_metadata(None, LEADERS_TIMEOUT) {
            debug!(%error, "the brokers do not say who leads which partition");
        }
    }

    fn round_trip(
        &self,
        which: Which,
        questions: &[Question],
    ) -> Result<BTreeMap<Place, Result<Option<Offset>, ReadError>>, ReadError> {
        let asked = self.ask(which, questions);
        let unavailable =
            |error: &KafkaError| ReadError::Unavailable(self.consumer.context().explain(error));
        let found = asked.map_err(|error| unavailable(&error))?;
        let of = |place: Place| {
            let (topic, partition) = (self.names.topic(place.0), place.1.0 as i32);
            let found = found.find_partition(topic, partition);
            let found = found.ok_or_else(|| {
                ReadError::Unavailable(format!(
                    "the brokers did not answer for {}",
                    self.names.place(place)
                ))
            })?;
            found.error().map_err(|error| unavailable(&error))?;
            Ok(match found.offset() {
                rdkafka::Offset::Offset(offset) => Some(Offset(offset)),
                _ => None,
            })
        };
        let places = questions.iter().map(|question| question.place);
        Ok(places.map(|place| (place, of(place))).collect())
    }

    /// Asks until the brokers answer or the time is over: after a leader has moved, the first
    /// question only leads to asking who leads now.
    fn ask(&self, which: Which, questions: &[Question]) -> KafkaResult<TopicPartitionList> {
        let deadline = Instant::now() + TIMEOUT;
        let list = self.list(which, questions)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.consumer.offsets_for_times(list.clone(), left) {
                Err(_) if left > ASK_AGAIN_AFTER => std::thread::sleep(ASK_AGAIN_AFTER),
                answered => return answered,
            }
        }
    }

    /// librdkafka takes the time to look for in place of an offset; as the protocol has it, the
    /// first and the last are special times.
    fn list(&self, which: Which, questions: &[Question]) -> KafkaResult<TopicPartitionList> {
        let time = match which {
            Which::First => rdkafka::Offset::Beginning,
            Which::End => rdkafka::Offset::End,
            Which::At(time) => rdkafka::Offset::Offset(time.max(0)),
        };
        let mut places: Vec<Place> = questions.iter().map(|question| question.place).collect();
        places.sort_unstable();
        places.dedup();
        let mut list = TopicPartitionList::with_capacity(places.len());
        for (topic, partition) in places {
            list.add_partition_offset(self.names.topic(topic), partition.0 as i32, time)?;
        }
        Ok(list)
    }
}
