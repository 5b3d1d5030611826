//! What of Kafka takes no records at the moment, so that an append is refused at once.

use std::collections::BTreeMap;

use parking_lot::RwLock;
use ports::AppendError;

use crate::names::TopicPartition;

/// What takes no records at the moment, as far as is known.
#[derive(Default)]
pub(crate) struct Availability(RwLock<Unavailable>);

/// What takes no records.
#[derive(Default)]
pub(crate) struct Unavailable {
    /// Why no broker takes records.
    pub(crate) brokers: Option<String>,
    /// Why a partition takes no records, for each of those.
    pub(crate) partitions: BTreeMap<TopicPartition, String>,
}

impl Availability {
    /// Refuses an append that cannot succeed.
    pub(crate) fn check(&self, partition: TopicPartition) -> Result<(), AppendError> {
        let unavailable = self.0.read();
        let brokers = unavailable.brokers.as_ref();
        match brokers.or_else(|| unavailable.partitions.get(&partition)) {
            Some(why) => Err(AppendError::Unavailable(why.clone())),
            None => Ok(()),
        }
    }

    /// Replaces what is known.
    pub(crate) fn set(&self, unavailable: Unavailable) {
        *self.0.write() = unavailable;
    }
}
