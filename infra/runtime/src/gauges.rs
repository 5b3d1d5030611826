//! Gauges that end. A process works on a partition only for a while; a figure that it last knew of
//! a partition that another process works on by now would be wrong. The recorder of metrics has no way
//! to remove a gauge.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use schemas::ids::Partition;

use crate::health::{ComponentHealth, Health};
use crate::metrics::{ALIVE, COMPONENT_DEGRADED, COMPONENT_READY, ENDING_GAUGES, READY};

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

/// Every such gauge in the text format of Prometheus.
pub(crate) fn render(health: &Health) -> String {
    let components = health.report();
    let of_components = |figure: fn(&ComponentHealth) -> bool| -> Vec<(String, f64)> {
        let sample = |component: &ComponentHealth| {
            let name = escape(&component.name);
            (
                format!("{{component=\"{name}\"}}"),
                figure(component).into(),
            )
        };
        components.iter().map(sample).collect()
    };
    let values = VALUES.lock().clone();
    let mut text = String::new();
    for (name, description) in ENDING_GAUGES {
        let samples = match name {
            READY => vec![(String::new(), health.is_ready().into())],
            ALIVE => vec![(String::new(), health.is_alive().into())],
            COMPONENT_READY => of_components(|component| component.ready),
            COMPONENT_DEGRADED => of_components(|component| component.degraded),
            _ => values
                .range((name, 0)..=(name, u32::MAX))
                .map(|((_, partition), (_, value))| {
                    (format!("{{partition=\"{partition}\"}}"), *value)
                })
                .collect(),
        };
        if !samples.is_empty() {
            let _ = writeln!(text, "# HELP {name} {description}\n# TYPE {name} gauge");
        }
        for (labels, value) in samples {
            let _ = writeln!(text, "{name}{labels} {value}");
        }
    }
    text
}

/// A text as the value of a label.
fn escape(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{PROJECTOR_LAG, UNDECIDED};

    #[test]
    fn a_gauge_shows_from_its_first_value_until_it_is_dropped() {
        let health = Health::default();
        let component = health.component("a \"part\"");
        let gauge = PartitionGauge::new(UNDECIDED, Partition(3));
        let shown = || render(&health);
        assert!(!shown().contains(UNDECIDED), "{}", shown());
        gauge.set(7.0);
        assert!(
            shown().contains("\ndoorbuster_undecided_attempts{partition=\"3\"} 7\n"),
            "{}",
            shown()
        );
        let next = PartitionGauge::new(UNDECIDED, Partition(3));
        next.set(8.0);
        drop(gauge);
        assert!(shown().contains("{partition=\"3\"} 8\n"), "{}", shown());
        drop(next);
        assert!(!shown().contains(UNDECIDED), "{}", shown());
        assert!(!shown().contains(PROJECTOR_LAG), "{}", shown());

        let ready = r#"doorbuster_component_ready{component="a \"part\""} "#;
        assert!(shown().contains(&format!("{ready}0\n")), "{}", shown());
        assert!(shown().contains("\ndoorbuster_ready 0\n"), "{}", shown());
        component.working();
        assert!(shown().contains(&format!("{ready}1\n")), "{}", shown());
        assert!(shown().contains("\ndoorbuster_ready 1\n"), "{}", shown());
        assert!(shown().contains("\ndoorbuster_alive 1\n"), "{}", shown());
        drop(component);
        assert!(!shown().contains("component="), "{}", shown());
    }
}
