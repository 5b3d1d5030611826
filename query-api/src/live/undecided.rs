//! How many records of a partition have no decision, and for how long: who serves reads knows it also
//! when no decider runs, which deciders cannot report.

use std::sync::Arc;
use std::time::Duration;

use runtime::gauges::PartitionGauge;
use runtime::metrics::{UNDECIDED, UNDECIDED_SECONDS};
use schemas::ids::{Offset, Partition};
use tokio::time::Instant;

use super::Live;

/// The undecided records of one partition, as metrics and as a remark for health.
pub(super) struct Undecided {
    live: Arc<Live>,
    partition: Partition,
    /// For how long a record may wait before health shows it.
    bound: Duration,
    records: PartitionGauge,
    seconds: PartitionGauge,
    /// The last offset that was answered, and when it was first seen.
    answered: (Offset, Instant),
}

impl Undecided {
    pub(super) fn new(live: Arc<Live>, partition: Partition, bound: Duration) -> Self {
        let gauge = |name| PartitionGauge::new(name, partition);
        Self {
            live,
            partition,
            bound,
            records: gauge(UNDECIDED),
            seconds: gauge(UNDECIDED_SECONDS),
            answered: (Offset(-1), Instant::now()),
        }
    }

    /// Compares the last answered offset with the end of `purchase-attempts`. Returns a sentence when
    /// a record has waited for longer than the bound.
    ///
    /// The time is counted from when this process read the record, or from when it last read a decision
    /// if it has not read the record yet: a wrong clock does not change it, a restart begins it anew.
    pub(super) fn measure(&mut self, end: Offset) -> Option<String> {
        let now = Instant::now();
        let partition = &self.live.partitions[self.partition.0 as usize];
        let answered = partition.answered.at();
        if answered != self.answered.0 {
            self.answered = (answered, now);
        }
        let records = (end.0 - answered.next().0).max(0);
        let waits = match records {
            0 => Duration::ZERO,
            _ => {
                let since = partition.oldest_undecided().unwrap_or(self.answered.1);
                now.duration_since(since)
            }
        };
        self.records.set(records as f64);
        self.seconds.set(waits.as_secs_f64());
        (waits > self.bound).then(|| {
            let seconds = waits.as_secs();
            format!(
                "{records} records have no decision, the oldest for {seconds} s; is a decider running?"
            )
        })
    }
}
