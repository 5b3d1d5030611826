//! The topics: created with the settings that the product needs, and refused when they have others. The
//! settings can be changed while services run, so services check them again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::admin::{
    AdminClient, AdminOptions, ConfigResource, NewTopic, OwnedResourceSpecifier, ResourceSpecifier,
    TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::metadata::MetadataTopic;
use schemas::topics::Topic;
use tracing::info;

use crate::context::{Context, EVENTS_AT_ONCE};
use crate::names::Names;
use crate::{OpenError, Options};

/// How long one request to the brokers may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long new topics may take to become usable.
const READY_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// The least limit on the size of a batch that every topic must have: that of the largest record, and
/// of the producer's largest batch.
const MAX_MESSAGE_BYTES: u64 = 1 << 20;

/// A setting of a topic.
struct Setting {
    name: &'static str,
    value: String,
    /// Whether a larger number is valid as well.
    at_least: bool,
}

fn settings(options: &Options) -> Vec<Setting> {
    let exactly = |name, value: &str| Setting {
        name,
        value: value.to_owned(),
        at_least: false,
    };
    let at_least = |name, value: u64| Setting {
        name,
        value: value.to_string(),
        at_least: true,
    };
    vec![
        // All time in the product comes from the log.
        exactly("message.timestamp.type", "LogAppendTime"),
        // The topics are the source of truth and are kept whole. Old checkpoints are deleted
        // record by record: compaction could remove single records of one that is still needed.
        exactly("cleanup.policy", "delete"),
        exactly("retention.ms", "-1"),
        exactly("retention.bytes", "-1"),
        // Acknowledged records survive the loss of a broker.
        at_least("min.insync.replicas", options.min_insync.into()),
        exactly("unclean.leader.election.enable", "false"),
        at_least("max.message.bytes", MAX_MESSAGE_BYTES),
        // Otherwise the brokers would compress the producer's batches again.
        exactly("compression.type", "producer"),
    ]
}

/// Creates missing topics and checks all topics; blocks until that is done.
pub(crate) fn ensure(
    options: &Options,
    names: &Names,
    consumer: &BaseConsumer<Context>,
) -> Result<(), OpenError> {
    let topics = Topics::new(options, names, consumer)?;
    topics.create_missing()?;
    topics.check()
}

/// Checks that the topics exist with their partitions, as far as it matters to who only reads. Creates
/// none; blocks until that is done.
pub(crate) fn check_readable(
    options: &Options,
    names: &Names,
    consumer: &BaseConsumer<Context>,
) -> Result<(), OpenError> {
    let topics = Topics::new(options, names, consumer)?;
    let shapes = topics.shapes()?;
    for topic in topics.names {
        let shape = shapes.get(topic).ok_or_else(|| OpenError::Absent {
            topic: topic.to_owned(),
        })?;
        topics.check_partitions(topic, shape)?;
    }
    Ok(())
}

/// Checks all topics once, and creates none; blocks until that is done.
pub(crate) fn check(
    options: &Options,
    names: &Names,
    consumer: &BaseConsumer<Context>,
) -> Result<(), OpenError> {
    let unusable = Topics::new(options, names, consumer)?.check_now()?;
    unusable.map_or(Ok(()), |why| Err(OpenError::Unreachable(why)))
}

struct Topics<'a> {
    options: &'a Options,
    names: [&'a str; Topic::ALL.len()],
    consumer: &'a BaseConsumer<Context>,
    admin: AdminClient<DefaultClientContext>,
}

/// The partitions and replicas of an existing topic.
struct Shape {
    partitions: usize,
    replicas: usize,
    /// A partition without a leader, if there is one.
    leaderless: Option<i32>,
}

impl<'a> Topics<'a> {
    /// The client for administration lives as long as this, since its log lines cannot be polled.
    fn new(
        options: &'a Options,
        names: &'a Names,
        consumer: &'a BaseConsumer<Context>,
    ) -> Result<Self, OpenError> {
        let admin = options.client().create();
        Ok(Self {
            options,
            names: Topic::ALL.map(|topic| names.topic(topic)),
            consumer,
            admin: admin.map_err(|error| OpenError::Options(error.to_string()))?,
        })
    }

    fn unreachable(&self, error: &KafkaError) -> OpenError {
        // Polls the consumer's events, which carry the cause.
        for _ in 0..EVENTS_AT_ONCE {
            let _ = self.consumer.poll(Duration::ZERO);
        }
        let why = self.consumer.context().explain(error);
        let brokers = &self.options.brokers;
        OpenError::Unreachable(format!("the brokers at {brokers} do not answer: {why}"))
    }

    /// Our existing topics, by name.
    fn shapes(&self) -> Result<BTreeMap<String, Shape>, OpenError> {
        let metadata = self.consumer.fetch_metadata(None, TIMEOUT);
        let metadata = metadata.map_err(|error| self.unreachable(&error))?;
        let topics = metadata.topics().iter();
        let ours =
            topics.filter(|topic| self.names.contains(&topic.name()) && topic.error().is_none());
        Ok(ours
            .map(|topic| (topic.name().to_owned(), shape(topic)))
            .collect())
    }

    fn create_missing(&self) -> Result<(), OpenError> {
        let there = self.shapes()?;
        let missing = self.names.iter().filter(|name| !there.contains_key(**name));
        let settings = settings(self.options);
        let (partitions, replication) = (self.options.partitions, self.options.replication);
        let new = missing.map(|name| {
            let replication = TopicReplication::Fixed(replication as i32);
            let new = NewTopic::new(name, partitions as i32, replication);
            settings
                .iter()
                .fold(new, |new, s| new.set(s.name, &s.value))
        });
        let new: Vec<NewTopic<'_>> = new.collect();
        if new.is_empty() {
            return Ok(());
        }
        let created = wait(self.admin.create_topics(&new, &admin_options()));
        for created in created.map_err(|error| self.unreachable(&error))? {
            let (topic, error) = match created {
                Ok(topic) => {
                    info!(topic, "created the topic");
                    continue;
                }
                // Another process has created it first.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => continue,
                Err(refused) => refused,
            };
            let advice = match error {
                RDKafkaErrorCode::InvalidReplicationFactor => format!(
                    "there are fewer than {replication} running brokers; start more, or configure \
                     fewer replicas"
                ),
                _ => {
                    let settings = settings.iter().map(|s| format!("{}={}", s.name, s.value));
                    let settings = settings.collect::<Vec<_>>().join(", ");
                    format!("allow this user to create it, or create it with {settings}")
                }
            };
            return Err(OpenError::Unreachable(format!(
                "topic {topic} cannot be created with {partitions} partitions and {replication} \
                 replicas: {error}: {advice}"
            )));
        }
        Ok(())
    }

    /// Waits until the topics can be used, and checks all of them.
    fn check(&self) -> Result<(), OpenError> {
        let began = Instant::now();
        loop {
            let Some(what) = self.check_now()? else {
                return Ok(());
            };
            if began.elapsed() > READY_WITHIN {
                return Err(OpenError::Unreachable(what));
            }
            std::thread::sleep(LOOK_AGAIN_AFTER);
        }
    }

    /// Checks all topics once. Returns why they cannot be used yet, if so.
    fn check_now(&self) -> Result<Option<String>, OpenError> {
        let (shapes, found) = (self.shapes()?, self.describe()?);
        for topic in self.names {
            let Some(shape) = shapes.get(topic) else {
                return Ok(Some(format!("topic {topic} does not exist yet")));
            };
            self.check_partitions(topic, shape)?;
            self.check_replicas(topic, shape)?;
            if let Some(partition) = shape.leaderless {
                return Ok(Some(format!(
                    "partition {partition} of topic {topic} has no leader"
                )));
            }
            let of_topic = |resource: &&ConfigResource| match &resource.specifier {
                OwnedResourceSpecifier::Topic(name) => name == topic,
                _ => false,
            };
            // A broker that does not know the topic yet, or may not show it, returns no settings.
            let shown = found
                .iter()
                .find(of_topic)
                .filter(|found| !found.entries.is_empty());
            let Some(shown) = shown else {
                return Ok(Some(format!(
                    "the brokers do not show the settings of topic {topic}; allow this user to \
                     describe its configuration"
                )));
            };
            for setting in settings(self.options) {
                let found = shown
                    .get(setting.name)
                    .and_then(|entry| entry.value.as_deref());
                self.check_setting(topic, &setting, found.unwrap_or("nothing"))?;
            }
        }
        Ok(None)
    }

    fn describe(&self) -> Result<Vec<ConfigResource>, OpenError> {
        let topics = self.names.map(ResourceSpecifier::Topic);
        let described = wait(self.admin.describe_configs(&topics, &admin_options()));
        let described = described.map_err(|error| self.unreachable(&error))?;
        Ok(described.into_iter().flatten().collect())
    }

    fn check_partitions(&self, topic: &str, shape: &Shape) -> Result<(), OpenError> {
        let (found, expected) = (shape.partitions, self.options.partitions as usize);
        if found != expected {
            return Err(OpenError::Misconfigured {
                topic: topic.to_owned(),
                setting: "partitions".to_owned(),
                found: found.to_string(),
                expected: expected.to_string(),
                remedy: "the number determines each product's partition and cannot be changed; \
                         configure the number with which the topics were created, which the claims \
                         in stock-decisions name. If the topics were altered, stop all services and \
                         restore topics with that number"
                    .to_owned(),
            });
        }
        Ok(())
    }

    fn check_replicas(&self, topic: &str, shape: &Shape) -> Result<(), OpenError> {
        let (found, expected) = (shape.replicas, self.options.replication as usize);
        if found < expected {
            return Err(OpenError::Misconfigured {
                topic: topic.to_owned(),
                setting: "replication factor".to_owned(),
                found: found.to_string(),
                expected: format!("at least {expected}"),
                remedy: format!(
                    "add replicas with kafka-reassign-partitions.sh, or configure {found}"
                ),
            });
        }
        Ok(())
    }

    fn check_setting(&self, topic: &str, setting: &Setting, found: &str) -> Result<(), OpenError> {
        let Setting {
            name,
            value,
            at_least,
        } = setting;
        let larger = match (found.parse::<u64>(), value.parse::<u64>()) {
            (Ok(found), Ok(value)) => *at_least && found >= value,
            _ => false,
        };
        if larger || found == value {
            return Ok(());
        }
        let brokers = &self.options.brokers;
        Err(OpenError::Misconfigured {
            topic: topic.to_owned(),
            setting: (*name).to_owned(),
            found: found.to_owned(),
            expected: format!("{}{value}", if *at_least { "at least " } else { "" }),
            remedy: format!(
                "kafka-configs.sh --bootstrap-server {brokers} --alter --entity-type topics \
                 --entity-name {topic} --add-config {name}={value}"
            ),
        })
    }
}

fn shape(topic: &MetadataTopic) -> Shape {
    let partitions = topic.partitions();
    let replicas = partitions
        .iter()
        .map(|partition| partition.replicas().len());
    Shape {
        partitions: partitions.len(),
        replicas: replicas.min().unwrap_or(0),
        leaderless: partitions.iter().find(|p| p.leader() < 0).map(|p| p.id()),
    }
}

/// Deletes a partition's records below an offset; blocks until the brokers have done so.
pub(crate) fn forget(
    options: &Options,
    topic: &str,
    partition: i32,
    before: i64,
) -> KafkaResult<()> {
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(topic, partition, rdkafka::Offset::Offset(before))?;
    // Created for this call, since its log lines cannot be polled.
    let admin: AdminClient<_> = options.client().create()?;
    let dropped = wait(admin.delete_records(&list, &admin_options()))?;
    dropped
        .elements()
        .iter()
        .try_for_each(|element| element.error())
}

fn admin_options() -> AdminOptions {
    AdminOptions::new()
        .request_timeout(Some(TIMEOUT))
        .operation_timeout(Some(TIMEOUT))
}

/// Waits on a blocking thread of the runtime; librdkafka limits the time.
fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Handle::current().block_on(future)
}
