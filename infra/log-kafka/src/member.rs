//! Membership in a consumer group: which partitions are this process's, and how far it is with
//! them. The member fetches nothing; readers do that, wherever they are told to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::{ClientContext, TopicPartitionList};
use schemas::ids::{Offset, Partition};
use tokio::sync::{oneshot, watch};
use tracing::{debug, error, info, warn};

use crate::context::Context;

/// Progress is committed once in this time at most.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How long the thread sleeps at most when nothing happens.
const POLL: Duration = Duration::from_millis(50);
/// How long a member without partitions waits before it asks whether that can be right.
const LEFT_OUT_AFTER: Duration = Duration::from_secs(5);
/// How long the brokers may take to say who is in the group.
const GROUP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long it rests when it cannot be a member at all.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A group's member.
pub(crate) struct Member {
    shared: Arc<Shared>,
    /// Answered when it has left. None when somebody waits for that already.
    left: Mutex<Option<oneshot::Receiver<()>>>,
}

struct Shared {
    group: String,
    topic: String,
    /// How many partitions the group shares.
    partitions: usize,
    assigned: watch::Sender<BTreeSet<Partition>>,
    /// What is to be committed.
    progress: Mutex<BTreeMap<Partition, Offset>>,
    stop: AtomicBool,
}

impl Member {
    /// Joins a group that shares a topic's partitions, of which there are so many.
    pub(crate) fn join(
        config: ClientConfig,
        context: Context,
        group: String,
        topic: String,
        partitions: usize,
    ) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            group,
            topic,
            partitions,
            assigned: watch::Sender::default(),
            progress: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let (leaves, left) = oneshot::channel();
        let member = shared.clone();
        let thread = std::thread::Builder::new().name("kafka-member".to_owned());
        thread.spawn(move || {
            member.run(&config, &context);
            // Nobody may wait for it.
            let _ = leaves.send(());
        })?;
        Ok(Self {
            shared,
            left: Mutex::new(Some(left)),
        })
    }

    /// The partitions that are this process's.
    pub(crate) fn assigned(&self) -> watch::Receiver<BTreeSet<Partition>> {
        self.shared.assigned.subscribe()
    }

    /// Remembers to commit how far a partition is.
    pub(crate) fn note(&self, partition: Partition, next: Offset) {
        self.shared.progress.lock().insert(partition, next);
    }

    /// Begins to leave; returns what is answered when that is done, if nobody else has it.
    pub(crate) fn leave(&self) -> Option<oneshot::Receiver<()>> {
        self.shared.stop.store(true, Relaxed);
        self.left.lock().take()
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.shared.stop.store(true, Relaxed);
    }
}

impl Shared {
    fn run(self: &Arc<Self>, config: &ClientConfig, context: &Context) {
        while !self.stop.load(Relaxed) {
            if let Err(error) = self.take_part(config, context) {
                error!(%error, group = self.group, "cannot be a member of the consumer group");
                std::thread::sleep(RETRY_AFTER);
            }
            self.assigned.send_replace(BTreeSet::new());
        }
    }

    /// Is a member until told to stop, or until that has failed for good.
    fn take_part(self: &Arc<Self>, config: &ClientConfig, context: &Context) -> KafkaResult<()> {
        let context = Membership {
            context: context.clone(),
            shared: self.clone(),
        };
        // Dropping it leaves the group.
        let consumer = BaseConsumer::from_config_and_context(config, context)?;
        consumer.subscribe(&[&self.topic])?;
        let mut committed = Instant::now();
        let mut idle = Instant::now();
        while !self.stop.load(Relaxed) {
            match consumer.poll(POLL) {
                // Fetched before the partition was paused; it is a reader's to read.
                None | Some(Ok(_)) => {}
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error),
                Some(Err(error)) => debug!(%error, group = self.group, "the member has trouble"),
            }
            if committed.elapsed() >= COMMIT_EVERY {
                committed = Instant::now();
                self.commit(&consumer);
            }
            if !self.assigned.borrow().is_empty() {
                idle = Instant::now();
            } else if idle.elapsed() >= LEFT_OUT_AFTER {
                idle = Instant::now();
                if self.is_left_out(&consumer) {
                    warn!(
                        group = self.group,
                        "has no partitions though there are enough; joining again"
                    );
                    consumer.unsubscribe();
                    consumer.subscribe(&[&self.topic])?;
                }
            }
        }
        // Leaving takes the partitions back, and commits what is left then.
        Ok(())
    }

    /// Whether the group has settled with nothing for this member although there is a partition
    /// for everyone. A broker that has just come up may not know the topic yet; a group that
    /// shares its partitions at that moment shares none, and would leave it at that.
    fn is_left_out(&self, consumer: &BaseConsumer<Membership>) -> bool {
        match consumer.fetch_group_list(Some(&self.group), GROUP_TIMEOUT) {
            Ok(list) => list.groups().iter().any(|group| {
                let members = group.members().len();
                group.state() == "Stable" && (1..=self.partitions).contains(&members)
            }),
            Err(error) => {
                debug!(%error, group = self.group, "the brokers do not say who is in the group");
                false
            }
        }
    }

    /// Commits what has been noted of partitions that are ours. What others have is theirs to
    /// say, and what fails is said again with the next progress.
    fn commit(&self, consumer: &BaseConsumer<Membership>) {
        let noted = std::mem::take(&mut *self.progress.lock());
        let mut list = TopicPartitionList::new();
        for (partition, next) in noted {
            if self.assigned.borrow().contains(&partition) {
                let next = rdkafka::Offset::Offset(next.0);
                // It fails for offsets below 0 only, and before the first record there are none.
                let _ = list.add_partition_offset(&self.topic, partition.0 as i32, next);
            }
        }
        if list.count() == 0 {
            return;
        }
        if let Err(error) = consumer.commit(&list, CommitMode::Async) {
            debug!(%error, group = self.group, "progress was not committed");
        }
    }
}

/// Hears which partitions come and go.
struct Membership {
    context: Context,
    shared: Arc<Shared>,
}

impl ClientContext for Membership {
    fn log(&self, level: RDKafkaLogLevel, kind: &str, line: &str) {
        self.context.log(level, kind, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.context.error(error, reason);
    }
}

impl ConsumerContext for Membership {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, change: &Rebalance<'_>) {
        let shared = &self.shared;
        match change {
            Rebalance::Assign(_) => {}
            Rebalance::Revoke(list) => {
                shared.commit(consumer);
                let gone = partitions(list);
                info!(group = shared.group, partitions = ?gone, "partitions were taken back");
                shared
                    .assigned
                    .send_modify(|assigned| assigned.retain(|p| !gone.contains(p)));
            }
            Rebalance::Error(error) => {
                error!(%error, group = shared.group, "the group cannot share partitions");
                shared.assigned.send_replace(BTreeSet::new());
            }
        }
    }

    fn post_rebalance(&self, consumer: &BaseConsumer<Self>, change: &Rebalance<'_>) {
        let Rebalance::Assign(list) = change else {
            return;
        };
        let shared = &self.shared;
        if let Err(error) = consumer.pause(list) {
            debug!(%error, group = shared.group, "the member fetches what it does not need");
        }
        let new = partitions(list);
        if !new.is_empty() {
            info!(group = shared.group, partitions = ?new, "partitions were assigned");
        }
        shared.assigned.send_modify(|assigned| assigned.extend(new));
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            debug!(%error, group = self.shared.group, "progress was not committed");
        }
    }
}

fn partitions(list: &TopicPartitionList) -> BTreeSet<Partition> {
    let elements = list.elements();
    elements
        .iter()
        .map(|element| Partition(element.partition() as u32))
        .collect()
}
