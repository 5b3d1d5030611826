//! Membership in a consumer group: which partitions are assigned to this process, and the progress on
//! them. The member fetches no records; readers do.

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

/// The least interval between two commits of progress.
const COMMIT_EVERY: Duration = Duration::from_secs(1);
/// How long the thread waits for an event.
const POLL: Duration = Duration::from_millis(50);
/// How long a member has no partitions before it checks whether the group has left it out.
const LEFT_OUT_AFTER: Duration = Duration::from_secs(5);
/// How long the brokers may take to list the group's members.
const GROUP_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause before joining again after the membership failed.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A group's member.
pub(crate) struct Member {
    shared: Arc<Shared>,
    /// Completes when the member has left. None once a caller waits for it.
    left: Mutex<Option<oneshot::Receiver<()>>>,
}

struct Shared {
    group: String,
    topic: String,
    /// The number of partitions that the group shares.
    partitions: usize,
    assigned: watch::Sender<BTreeSet<Partition>>,
    /// Progress that is not committed yet.
    progress: Mutex<BTreeMap<Partition, Offset>>,
    stop: AtomicBool,
}

impl Member {
    /// Joins a group that shares the partitions of a topic. Needs tokio's runtime.
    pub(crate) fn join(
        config: ClientConfig,
        context: Context,
        group: String,
        topic: String,
        partitions: usize,
    ) -> Self {
        let shared = Arc::new(Shared {
            group,
            topic,
            partitions,
            assigned: watch::Sender::default(),
            progress: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let (leave, left) = oneshot::channel();
        tokio::spawn(start(shared.clone(), config, context, leave));
        Self {
            shared,
            left: Mutex::new(Some(left)),
        }
    }

    /// The partitions that are assigned to this process, now and as that changes.
    pub(crate) fn assigned(&self) -> watch::Receiver<BTreeSet<Partition>> {
        self.shared.assigned.subscribe()
    }

    /// Notes a partition's progress for the next commit.
    pub(crate) fn note(&self, partition: Partition, next: Offset) {
        self.shared.progress.lock().insert(partition, next);
    }

    /// Begins to leave. Returns a receiver that completes when that is done, unless another caller has
    /// it.
    pub(crate) fn leave(&self) -> Option<oneshot::Receiver<()>> {
        self.shared.stop.store(true, Relaxed);
        self.left.lock().take()
    }
}

/// Starts the member's thread. While the machine has no thread to give, tries again until the member
/// is to leave.
async fn start(
    member: Arc<Shared>,
    config: ClientConfig,
    context: Context,
    leave: oneshot::Sender<()>,
) {
    // The thread takes it. Dropping it, as here when no thread started, tells of the end as well.
    let leave = Arc::new(Mutex::new(Some(leave)));
    while !member.stop.load(Relaxed) {
        let (its_member, its_leave) = (member.clone(), leave.clone());
        let (config, context) = (config.clone(), context.clone());
        let run = move || {
            let leave = its_leave.lock().take();
            its_member.run(&config, &context);
            // Fails when no caller waits for it.
            let _ = leave.map(|leave| leave.send(()));
        };
        let thread = std::thread::Builder::new().name("kafka-member".to_owned());
        let Err(error) = thread.spawn(run) else {
            return;
        };
        error!(%error, group = member.group, "cannot start the thread of the consumer group's member; trying again");
        tokio::time::sleep(RETRY_AFTER).await;
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
                error!(%error, group = self.group, "cannot be a member of the consumer group; joining again");
                std::thread::sleep(RETRY_AFTER);
            }
            self.assigned.send_replace(BTreeSet::new());
        }
    }

    /// Is a member until it is stopped, or fails with a fatal error.
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
                // A record that was fetched before the partition was paused; readers read it.
                None | Some(Ok(_)) => {}
                Some(Err(error @ KafkaError::MessageConsumptionFatal(_))) => return Err(error),
                Some(Err(error)) => {
                    debug!(%error, group = self.group, "the member reports an error")
                }
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
                        "has no partitions though there are enough for all members; joining again"
                    );
                    consumer.unsubscribe();
                    consumer.subscribe(&[&self.topic])?;
                }
            }
        }
        // Leaving revokes the partitions, which commits the rest.
        Ok(())
    }

    /// Whether the group is stable with no partition for this member although there are enough for all
    /// members. A broker that has just started may not know the topic yet. A group that rebalances at
    /// that moment assigns no partitions, and would stay that way.
    fn is_left_out(&self, consumer: &BaseConsumer<Membership>) -> bool {
        match consumer.fetch_group_list(Some(&self.group), GROUP_TIMEOUT) {
            Ok(list) => list.groups().iter().any(|group| {
                let members = group.members().len();
                group.state() == "Stable" && (1..=self.partitions).contains(&members)
            }),
            Err(error) => {
                debug!(%error, group = self.group, "the brokers do not list the group's members");
                false
            }
        }
    }

    /// Commits the noted progress of this process's partitions. Progress of other partitions is
    /// dropped, and a failed commit is superseded by the next one.
    fn commit(&self, consumer: &BaseConsumer<Membership>) {
        let noted = std::mem::take(&mut *self.progress.lock());
        let mut list = TopicPartitionList::new();
        for (partition, next) in noted {
            if self.assigned.borrow().contains(&partition) {
                let next = rdkafka::Offset::Offset(next.0);
                // Fails only for negative offsets, which do not occur.
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

/// Receives the group's rebalances.
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
                info!(group = shared.group, partitions = ?gone, "partitions were revoked");
                shared
                    .assigned
                    .send_modify(|assigned| assigned.retain(|p| !gone.contains(p)));
            }
            Rebalance::Error(error) => {
                error!(%error, group = shared.group, "the consumer group cannot assign partitions");
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
            debug!(%error, group = shared.group, "cannot pause partitions; the member fetches records that it does not need");
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
