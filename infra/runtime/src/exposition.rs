//! The gauges that end, those of partitions and of components, as text for Prometheus.

use std::fmt::Write;

use crate::gauges;
use crate::health::{ComponentHealth, Health};
use crate::metrics::{ALIVE, COMPONENT_DEGRADED, COMPONENT_READY, ENDING_GAUGES, READY};

/// Every gauge that ends in the text format of Prometheus.
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
    let mut text = String::new();
    for (name, description) in ENDING_GAUGES {
        let samples = match name {
            READY => vec![(String::new(), health.is_ready().into())],
            ALIVE => vec![(String::new(), health.is_alive().into())],
            COMPONENT_READY => of_components(|component| component.ready),
            COMPONENT_DEGRADED => of_components(|component| component.degraded),
            _ => gauges::values(name)
                .into_iter()
                .map(|(partition, value)| (format!("{{partition=\"{partition}\"}}"), value))
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
    use schemas::ids::Partition;

    use super::*;
    use crate::gauges::PartitionGauge;
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
