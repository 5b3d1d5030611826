//! The names of topics and consumer groups.

use ports::Group;
use schemas::ids::Partition;
use schemas::topics::Topic;

/// A partition of a topic.
pub(crate) type TopicPartition = (Topic, Partition);

/// The name of a topic on the brokers.
pub fn topic_name(prefix: &str, topic: Topic) -> String {
    format!("{prefix}{}", topic.name())
}

/// The name of a consumer group on the brokers.
pub fn group_name(prefix: &str, group: Group) -> String {
    match group {
        Group::Deciders => format!("{prefix}doorbuster-deciders"),
        Group::Projectors => format!("{prefix}doorbuster-projectors"),
    }
}

/// The topic whose partitions a group shares.
pub(crate) fn topic_of(group: Group) -> Topic {
    match group {
        Group::Deciders => Topic::PurchaseAttempts,
        Group::Projectors => Topic::StockDecisions,
    }
}

/// The topics' names, formatted once.
pub(crate) struct Names([String; Topic::ALL.len()]);

impl Names {
    pub(crate) fn new(prefix: &str) -> Self {
        Self(Topic::ALL.map(|topic| topic_name(prefix, topic)))
    }

    pub(crate) fn topic(&self, topic: Topic) -> &str {
        let at = Topic::ALL.iter().position(|each| *each == topic);
        &self.0[at.expect("every topic is in the list of all topics")]
    }

    /// A partition of a topic, for messages.
    pub(crate) fn describe(&self, (topic, partition): TopicPartition) -> String {
        format!("partition {partition} of {}", self.topic(topic))
    }
}
