//! The event log on Apache Kafka.
//!
//! One idempotent producer [appends](append), and refuses records when too many are in flight, or while
//! the brokers are known to be away ([`availability`], which [`broker_watch`] keeps up to date). Readers
//! ([`reader`]) share a few [`consumers`]. One request [looks up](offsets) the partitions' ends for all
//! callers at once. A [`member`] of a consumer group knows which partitions are assigned to this
//! process. At the start the [`topics`] are created or checked. Blocking calls have threads of their
//! own; nothing blocks the runtime.

mod names;
mod options;

mod topics;

mod append;
mod availability;
mod broker_watch;
mod consumers;
mod member;
mod offsets;
mod reader;

mod context;
mod counts;

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
use crate::broker_watch::Watch;
use crate::consumers::Consumers;
use crate::context::Context;
use crate::member::Member;
use crate::names::Names;
use crate::offsets::{Offsets, Query};
use crate::reader::{Reader, Reading};

pub use crate::counts::ERROR_KINDS;
pub use crate::names::{group_name, topic_name};
pub use crate::options::{Options, Protocol, Security};

/// How long closing waits until the groups have been left.
const LEAVE_WITHIN: Duration = Duration::from_secs(5);

/// Why a log was not opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The brokers do not answer, or cannot provide the topics at the moment. A retry may succeed.
    #[error("{0}")]
    Unreachable(String),
    /// A topic has a wrong setting. A retry cannot help before an operator has changed it.
    #[error("topic {topic} has {setting} {found}, but must have {expected}: {remedy}")]
    Misconfigured {
        /// The topic.
        topic: String,
        /// The setting.
        setting: String,
        /// The value found.
        found: String,
        /// The value expected.
        expected: String,
        /// How to fix it.
        remedy: String,
    },
    /// A topic does not exist, and was to be opened for reading only.
    #[error("topic {topic} does not exist: no service was started with these brokers and prefix")]
    Absent {
        /// The topic.
        topic: String,
    },
    /// The options are not valid. A retry cannot help.
    #[error("the log's options are not valid: {0}")]
    Options(String),
}

/// What a log may do at the brokers.
#[derive(Debug, Clone, Copy)]
enum Access {
    /// Create topics and append records.
    Full,
    /// Nothing.
    ReadOnly,
}

/// The event log of a Kafka cluster.
///
/// It needs tokio's runtime. Dropping it closes it without waiting: records in flight are abandoned.
/// Readers may outlive it, and then return [`ReadError::Closed`].
pub struct KafkaLog {
    options: Options,
    context: Context,
    /// Answers what is asked about topics.
    consumer: Arc<BaseConsumer<Context>>,
    names: Arc<Names>,
    /// None when the log is open for reading only.
    appender: Option<Arc<Appender>>,
    reading: Reading,
    /// None once the log is closed.
    members: Mutex<Option<HashMap<Group, Member>>>,
    closed: watch::Sender<bool>,
}

impl KafkaLog {
    /// Connects to the brokers, creates missing topics and checks all topics. Takes half a minute at
    /// most.
    pub async fn open(options: Options) -> Result<Self, OpenError> {
        Self::open_with(options, Access::Full).await
    }

    /// Like [`KafkaLog::open`], for reading only: creates nothing, and refuses to append.
    ///
    /// # Errors
    ///
    /// [`OpenError::Absent`] names a topic that does not exist.
    pub async fn open_to_read(options: Options) -> Result<Self, OpenError> {
        Self::open_with(options, Access::ReadOnly).await
    }

    async fn open_with(options: Options, access: Access) -> Result<Self, OpenError> {
        let opened = spawn_blocking(move || Self::open_blocking(options, access)).await;
        opened.unwrap_or_else(|error| Err(OpenError::Unreachable(error.to_string())))
    }

    fn open_blocking(options: Options, access: Access) -> Result<Self, OpenError> {
        options.check()?;
        let context = Context::default();
        let names = Arc::new(Names::new(&options.topic_prefix));
        let client = |error: rdkafka::error::KafkaError| OpenError::Options(error.to_string());
        let consumer = BaseConsumer::from_config_and_context(&options.client(), context.clone());
        let consumer = consumer.map_err(client)?;
        let thread = |error| OpenError::Unreachable(format!("cannot start a thread: {error}"));
        let consumer = Arc::new(consumer);
        let appender = match access {
            Access::Full => {
                topics::ensure(&options, &names, &consumer)?;
                let appender = Appender::new(&options, context.clone(), names.clone());
                let appender = Arc::new(appender.map_err(client)?);
                let watch = Watch::new(&options, &appender, consumer.clone(), names.clone());
                watch.start().map_err(thread)?;
                Some(appender)
            }
            Access::ReadOnly => {
                topics::check_readable(&options, &names, &consumer)?;
                None
            }
        };
        let reader = options.reader();
        let closed = watch::Sender::new(false);
        let consumers = Consumers::start(reader, context.clone(), names.clone());
        let reading = Reading {
            names: names.clone(),
            consumers: consumers.map_err(thread)?,
            offsets: Offsets::start(consumer.clone(), names.clone()).map_err(thread)?,
            closed: closed.subscribe(),
        };
        Ok(Self {
            options,
            context,
            consumer,
            names,
            appender,
            reading,
            members: Mutex::new(Some(HashMap::new())),
            closed,
        })
    }

    /// Leaves the groups, so that other members take over at once, and waits until all appends in
    /// flight have been answered, about ten seconds at most. From then on appends are refused and
    /// readers return [`ReadError::Closed`]. A second call does nothing.
    pub async fn close(&self) {
        self.closed.send_replace(true);
        self.reading.consumers.close();
        let appender = self.appender.clone();
        let flushing = spawn_blocking(move || {
            if let Some(appender) = appender {
                appender.close();
            }
        });
        let members = self.members.lock().take().unwrap_or_default();
        let leaving: Vec<_> = members.values().filter_map(Member::leave).collect();
        let left = tokio::time::timeout(LEAVE_WITHIN, join_all(leaving)).await;
        if left.is_err() {
            warn!(
                "a consumer group was not left in time; other members take over when the session ends"
            );
        }
        if let Err(error) = flushing.await {
            error!(%error, "the log was not closed properly: flushing the producer failed");
        }
    }

    /// Checks that the topics still have the settings that they had to have when the log was opened.
    /// Takes about twenty seconds at most.
    ///
    /// # Errors
    ///
    /// [`OpenError::Misconfigured`] names the setting that was changed and the command that corrects
    /// it; [`OpenError::Unreachable`] says that nothing could be checked.
    pub async fn check_topics(&self) -> Result<(), OpenError> {
        let (options, names) = (self.options.clone(), self.names.clone());
        let consumer = self.consumer.clone();
        let checking = spawn_blocking(move || topics::check(&options, &names, &consumer));
        let checked = checking.await;
        checked.unwrap_or_else(|error| Err(OpenError::Unreachable(error.to_string())))
    }

    /// How many errors of each of the [`ERROR_KINDS`] librdkafka has reported since the log was opened.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.context.counts.errors()
    }

    /// How many appends the brokers did not acknowledge in time.
    pub fn appends_timed_out(&self) -> u64 {
        self.context.counts.appends_timed_out_so_far()
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

    fn check_readable(&self, partition: Partition) -> Result<(), ReadError> {
        if *self.closed.borrow() {
            return Err(ReadError::Closed);
        }
        self.check(partition).map_err(ReadError::Unavailable)
    }

    fn join(&self, group: Group) -> Member {
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
        if let Some(appender) = &self.appender {
            appender.abandon();
        }
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
        let appender = self
            .appender
            .as_ref()
            .ok_or_else(|| AppendError::Stopped("it is open for reading only".to_owned()))?;
        let answer = appender.enqueue(topic, partition, &records)?;
        // librdkafka has a copy.
        drop(records);
        let lost = || AppendError::Unknown("the producer ended without answering".to_owned());
        answer.await.unwrap_or_else(|_| Err(lost()))
    }

    async fn read(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, ReadError> {
        if from.0 > 0 {
            let end = self.end(topic, partition).await?;
            ReadError::check_end(topic, partition, from, end)?;
        }
        self.check_readable(partition)?;
        let reader = Reader::open(self.reading.clone(), (topic, partition), from.0).await?;
        Ok(Box::new(reader))
    }

    async fn end(&self, topic: Topic, partition: Partition) -> Result<Offset, ReadError> {
        self.check_readable(partition)?;
        self.reading
            .offsets
            .get((topic, partition), Query::End)
            .await
    }

    async fn offset_at(
        &self,
        topic: Topic,
        partition: Partition,
        time: TimestampMs,
    ) -> Result<Offset, ReadError> {
        self.check_readable(partition)?;
        let partition = (topic, partition);
        // The end first, so that records appended in between are not below the answer.
        let end = self.reading.offsets.get(partition, Query::End).await?;
        let found = self
            .reading
            .offsets
            .find(partition, Query::At(time))
            .await?;
        Ok(found.unwrap_or(end))
    }

    /// Does nothing: the brokers stamp the records, and let times fall.
    fn correct_clock(&self) {}

    fn assignment(&self, group: Group) -> watch::Receiver<BTreeSet<Partition>> {
        let mut members = self.members.lock();
        let Some(members) = members.as_mut() else {
            return watch::Sender::default().subscribe();
        };
        if let Some(member) = members.get(&group) {
            return member.assigned();
        }
        let member = self.join(group);
        members.entry(group).or_insert(member).assigned()
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
        self.check_readable(partition)?;
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
