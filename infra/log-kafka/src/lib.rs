//! The event log on Apache Kafka.
//!
//! One idempotent producer [appends](append), refusing when too much is on its way. Readers
//! ([`reader`]) share a few [`consumers`]. Where partitions end is [asked](offsets) for all who
//! want to know at once. A [`member`] of a consumer group knows which partitions are this
//! process's. At the start the [`topics`] are created or checked. Whatever blocks has a thread
//! of its own; nothing blocks the runtime.

mod names;
mod options;

mod topics;

mod append;
mod consumers;
mod member;
mod offsets;
mod reader;

mod context;

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::Mutex;
use ports::event_log::{AppendError, EventLog, Group, LogReader, NewRecord, ReadError};
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::BaseConsumer;
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tokio::sync::watch;
use tokio::task::spawn_blocking;
use tracing::{error, warn};

use crate::append::Appender;
use crate::consumers::Consumers;
use crate::context::Context;
use crate::member::Member;
use crate::names::Names;
use crate::offsets::{Offsets, Which};
use crate::reader::{Reader, Reading};

pub use crate::names::{group_name, topic_name};
pub use crate::options::{Options, Protocol, Security};

/// How long closing waits for the groups to be left.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// Why a log was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The brokers cannot be asked, or cannot have the topics as they should be just now.
    /// Trying again may succeed.
    #[error("{0}")]
    Unreachable(String),
    /// A topic is not as it must be. Trying again cannot help before somebody has changed it.
    #[error("topic {topic} has {setting} {found}, but must have {expected}: {remedy}")]
    Misconfigured {
        /// The topic.
        topic: String,
        /// What about it.
        setting: String,
        /// How it is.
        found: String,
        /// How it must be.
        expected: String,
        /// What to do.
        remedy: String,
    },
    /// The options cannot be used. Trying again cannot help.
    #[error("the log cannot be run so: {0}")]
    Options(String),
}

/// The event log of a Kafka cluster.
///
/// It needs the runtime of tokio. Dropping it closes it without waiting: what is on its way is
/// given up. Readers may outlive it, and return [`ReadError::Closed`] then.
pub struct KafkaLog {
    options: Options,
    context: Context,
    names: Arc<Names>,
    appender: Arc<Appender>,
    reading: Reading,
    /// None when the log is closed.
    members: Mutex<Option<HashMap<Group, Member>>>,
    closed: watch::Sender<bool>,
}

impl KafkaLog {
    /// Connects to the brokers, creates the topics that are missing and checks all of them.
    /// Takes half a minute at most.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        let opened = spawn_blocking(move || Self::open_blocking(options)).await;
        opened.unwrap_or_else(|error| Err(OpenError::Unreachable(error.to_string())))
    }

    fn open_blocking(options: Options) -> Result<Self, OpenError> {
        options.check()?;
        let context = Context::default();
        let names = Arc::new(Names::new(&options.topic_prefix));
        let client = |error: rdkafka::error::KafkaError| OpenError::Options(error.to_string());
        let asking = BaseConsumer::from_config_and_context(&options.client(), context.clone());
        let asking = asking.map_err(client)?;
        topics::ensure(&options, &names, &asking)?;

        let thread = |error| OpenError::Unreachable(format!("no thread can be started: {error}"));
        let (producer, reader) = (options.producer(), options.reader());
        let appender = Appender::new(
            producer,
            context.clone(),
            names.clone(),
            options.queue_records,
            options.queue_bytes,
        );
        let closed = watch::Sender::new(false);
        let consumers = Consumers::start(reader, context.clone(), names.clone());
        let reading = Reading {
            names: names.clone(),
            consumers: consumers.map_err(thread)?,
            offsets: Offsets::start(asking, names.clone()).map_err(thread)?,
            closed: closed.subscribe(),
        };
        Ok(Self {
            options,
            context,
            names,
            appender: Arc::new(appender.map_err(client)?),
            reading,
            members: Mutex::new(Some(HashMap::new())),
            closed,
        })
    }

    /// Leaves the groups, so that others take over at once, and waits until all that was taken
    /// to be appended has been answered, some ten seconds at most. From then on appending is
    /// refused and readers return [`ReadError::Closed`]. A second call does nothing.
    pub async fn close(&self) {
        self.closed.send_replace(true);
        self.reading.consumers.close();
        let appender = self.appender.clone();
        let flushing = spawn_blocking(move || appender.close());
        let members = self.members.lock().take().unwrap_or_default();
        let leaving: Vec<_> = members.values().filter_map(Member::leave).collect();
        let left = tokio::time::timeout(LEAVE_WITHIN, join_all(leaving)).await;
        if left.is_err() {
            warn!("a consumer group was not left in time; others take over when the session ends");
        }
        if let Err(error) = flushing.await {
            error!(%error, "the log was not closed in order");
        }
    }

    fn check(&self, partition: Partition) -> Result<(), String> {
        let partitions = self.options.partitions;
        if partition.0 < partitions {
            return Ok(());
        }
        let last = partitions - 1;
        Err(format!(
            "there is no partition {partition}; partitions are 0 to {last}"
        ))
    }

    fn check_to_read(&self, partition: Partition) -> Result<(), ReadError> {
        if *self.closed.borrow() {
            return Err(ReadError::Closed);
        }
        self.check(partition).map_err(ReadError::Unavailable)
    }

    fn join(&self, group: Group) -> std::io::Result<Member> {
        let name = group_name(&self.options.topic_prefix, group);
        let topic = self.names.topic(names::topic_of(group)).to_owned();
        let config = self.options.member(&name);
        let partitions = self.options.partitions as usize;
        Member::join(config, self.context.clone(), name, topic, partitions)
    }
}

impl Drop for KafkaLog {
    fn drop(&mut self) {
        self.reading.consumers.close();
        self.appender.abandon();
    }
}

#[async_trait]
impl EventLog for KafkaLog {
    fn partitions(&self) -> u32 {
        self.options.partitions
    }

    async fn append(
        &self,
        topic: Topic,
        partition: Partition,
        records: Vec<NewRecord>,
    ) -> Result<Offset, AppendError> {
        self.check(partition).map_err(AppendError::Stopped)?;
        let answer = self.appender.enqueue(topic, partition, &records)?;
        // librdkafka has a copy of them.
        drop(records);
        let lost = || AppendError::Unknown("the producer ended without an answer".to_owned());
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    async fn read(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, ReadError> {
        self.check_to_read(partition)?;
        let reader = Reader::open(self.reading.clone(), (topic, partition), from.0).await?;
        Ok(Box::new(reader))
    }

    async fn end(&self, topic: Topic, partition: Partition) -> Result<Offset, ReadError> {
        self.check_to_read(partition)?;
        self.reading
            .offsets
            .ask((topic, partition), Which::End)
            .await
    }

    async fn offset_at(
        &self,
        topic: Topic,
        partition: Partition,
        time: TimestampMs,
    ) -> Result<Offset, ReadError> {
        self.check_to_read(partition)?;
        let place = (topic, partition);
        // The end first: of what comes in between, nothing may lie before the answer.
        let end = self.reading.offsets.ask(place, Which::End).await?;
        let found = self.reading.offsets.find(place, Which::At(time)).await?;
        Ok(found.unwrap_or(end))
    }

    fn assignment(&self, group: Group) -> watch::Receiver<BTreeSet<Partition>> {
        let mut members = self.members.lock();
        let Some(members) = members.as_mut() else {
            return watch::Sender::default().subscribe();
        };
        if let Some(member) = members.get(&group) {
            return member.assigned();
        }
        match self.join(group) {
            Ok(member) => members.entry(group).or_insert(member).assigned(),
            Err(error) => {
                error!(%error, "no thread can be started to be a member of the consumer group");
                watch::Sender::default().subscribe()
            }
        }
    }

    fn note_progress(&self, group: Group, partition: Partition, next: Offset) {
        let members = self.members.lock();
        if let Some(member) = members.as_ref().and_then(|members| members.get(&group)) {
            member.note(partition, next);
        }
    }

    async fn forget(
        &self,
        topic: Topic,
        partition: Partition,
        before: Offset,
    ) -> Result<(), ReadError> {
        self.check_to_read(partition)?;
        if before.0 <= 0 {
            return Ok(());
        }
        let (options, topic) = (self.options.clone(), self.names.topic(topic).to_owned());
        let forgetting =
            spawn_blocking(move || topics::forget(&options, &topic, partition.0 as i32, before.0));
        let unavailable = |error: String| ReadError::Unavailable(error);
        let forgotten = forgetting
            .await
            .map_err(|error| unavailable(error.to_string()))?;
        forgotten.map_err(|error| unavailable(self.context.explain(&error)))
    }
}
