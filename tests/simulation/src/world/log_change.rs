//! A log that is not the one it was: what nodes find after topics were deleted, restored or cut off.

use std::collections::BTreeSet;

use rand::RngExt;
use schemas::codec::Codec;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

use super::disk::Disk;
use super::log::Log;
use super::{Inner, World};

/// How much later the records of the other log were appended.
const OTHER_LOG_MS: i64 = 3_600_000;

/// What becomes of the log once all work is done.
#[derive(Debug, Clone, Copy)]
pub enum LogChange {
    /// While everything is down, the topics are deleted and created again.
    Recreated {
        /// Whether `product-snapshots` stays as it was.
        keeps_checkpoints: bool,
    },
    /// While everything is down, the topics of another log take the place of these. They have the
    /// same values, appended at other times.
    Replaced {
        /// Whether `product-snapshots` stays as it was. Otherwise it is empty.
        keeps_checkpoints: bool,
    },
    /// While everything is down, the last decisions are lost. Deciders start first and decide again, so
    /// that the log may be as long as before when the others start.
    Continued,
    /// The last records of `purchase-attempts` and `stock-decisions` are lost.
    LostEnd {
        /// Whether this happens while everything is down.
        restarts: bool,
    },
}

impl LogChange {
    /// Whether this happens while everything is down.
    pub fn restarts(self) -> bool {
        !matches!(self, Self::LostEnd { restarts: false })
    }

    fn is_of(self, topic: Topic) -> bool {
        match self {
            Self::Recreated { keeps_checkpoints } | Self::Replaced { keeps_checkpoints } => {
                topic != Topic::ProductSnapshots || !keeps_checkpoints
            }
            Self::Continued => topic == Topic::StockDecisions,
            Self::LostEnd { .. } => topic != Topic::ProductSnapshots,
        }
    }
}

impl World {
    /// Changes the log. Returns the partitions whose deciders can know that: those that go on, and
    /// those whose checkpoint does not fit the log any more.
    pub fn change_log(&self, change: LogChange) -> BTreeSet<Partition> {
        let mut inner = self.lock();
        let partitions: Vec<_> = (0..inner.log.partitions()).map(Partition).collect();
        let before = inner.log.all();
        for &partition in &partitions {
            let lost = inner.lost(partition, change);
            for topic in Topic::ALL.into_iter().filter(|topic| change.is_of(*topic)) {
                let mut records = before[&(topic, partition)].clone();
                match change {
                    LogChange::Recreated { .. } => records.clear(),
                    LogChange::Replaced { .. } if topic == Topic::ProductSnapshots => {
                        records.clear();
                    }
                    LogChange::Replaced { .. } => records
                        .iter_mut()
                        .for_each(|record| record.appended_at_ms += OTHER_LOG_MS),
                    LogChange::LostEnd { .. } | LogChange::Continued => {
                        let lost = lost[usize::from(topic == Topic::StockDecisions)];
                        records.truncate(records.len() - lost);
                    }
                }
                inner.log.rewrite(topic, partition, records);
            }
        }
        // From here on an embedded log's disk only sets the records' times.
        inner.disk = inner
            .disk
            .as_ref()
            .map(|_| Disk::new(partitions.len() as u32));
        let can_know = |partition: &Partition| {
            !change.restarts() || has_foreign_checkpoint(&inner.log, *partition)
        };
        partitions.into_iter().filter(can_know).collect()
    }
}

impl Inner {
    /// How many records of `purchase-attempts` and `stock-decisions` are lost: at least one. Where
    /// deciders decide again, only so many that the log is soon as long as before.
    fn lost(&mut self, partition: Partition, change: LogChange) -> [usize; 2] {
        let [attempts, decisions] = [Topic::PurchaseAttempts, Topic::StockDecisions]
            .map(|topic| self.log.end(topic, partition).0 as usize);
        let one = decisions.min(1);
        if let LogChange::Continued = change {
            return [0, self.rng.random_range(one..=decisions.min(4))];
        }
        let lost = [
            self.rng.random_range(0..=attempts),
            self.rng.random_range(0..=decisions),
        ];
        match lost {
            [0, 0] => [0, one],
            lost => lost,
        }
    }
}

/// Whether the last record of `product-snapshots` completes a checkpoint of another log than this, or
/// of records that this one does not have.
fn has_foreign_checkpoint(log: &Log, partition: Partition) -> bool {
    let first_of = |topic, from| log.from(topic, partition, from, 1).into_iter().next();
    let topic = Topic::ProductSnapshots;
    let last = Offset(log.end(topic, partition).0 - 1);
    let Some(record) = first_of(topic, last).filter(|record| record.offset == last) else {
        return false;
    };
    let decoded = Codec::embedded().decode_snapshot(&record.value);
    let Ok(checkpoint) = decoded else {
        return false;
    };
    let first = match checkpoint.first {
        Offset(-1) => last,
        first => first,
    };
    let is_whole = checkpoint.part.is_none()
        && first_of(topic, first).is_some_and(|record| record.offset == first);
    let identity = first_of(Topic::StockDecisions, Offset(0)).map(|record| record.hash());
    is_whole
        && (checkpoint.log != identity
            || checkpoint.covers > log.end(Topic::StockDecisions, partition)
            || checkpoint.answered.next() > log.end(Topic::PurchaseAttempts, partition))
}
