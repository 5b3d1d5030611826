//! Gauges that end. A process works on a partition only for a while; a figure that it last knew of
//! a partition that another process works on by now would be wrong. The recorder of metrics has no way
//! to remove a gauge.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use schemas::ids::Partition;

/// Values by name and partition, each with the number of the gauge that set it.
type Values = BTreeMap<(&'static str, u32), (u64, f64)>;

static VALUES: Mutex<Values> = Mutex::new(BTreeMap::new());
static NEXT: AtomicU64 = AtomicU64::new(0);

/// A gauge of a partition. It shows from when it is first set until it is dropped.
pub struct PartitionGauge {
    name: &'static str,
    partition: Partition,
    number: u64,
}

impl PartitionGauge {
    /// A gauge, by a name from [`crate::metrics`].
    pub fn new(name: &'static str, partition: Partition) -> Self {
        Self {
            name,
            partition,
            number: NEXT.fetch_add(1, Relaxed),
        }
    }

    /// Sets the value.
    pub fn set(&self, value: f64) {
        VALUES.lock().insert(self.key(), (self.number, value));
    }

    fn key(&self) -> (&'static str, u32) {
        (self.name, self.partition.0)
    }
}

impl Drop for PartitionGauge {
    fn drop(&mut self) {
        // The next gauge of the partition may exist already.
        let mut values = VALUES.lock();
        if values
            .get(&self.key())
            .is_some_and(|(number, _)| *number == self.number)
        {
            values.remove(&self.key());
        }
    }
}

/// The values of the gauges of this name, by partition.
pub(crate) fn values(name: &'static str) -> Vec<(u32, f64)> {
    let values = VALUES.lock();
    let of_name = values.range((name, 0)..=(name, u32::MAX));
    of_name
        .map(|((_, partition), (_, value))| (*partition, *value))
        .collect()
}
