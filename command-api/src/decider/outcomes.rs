//! Counts of decisions by outcome, for the metrics.

use runtime::metrics::DECISIONS;
use schemas::decision::{Decision, Event};

/// The outcomes of a batch of decisions.
#[derive(Default)]
pub(super) struct Outcomes {
    accepted: u64,
    refused: u64,
    other: u64,
}

impl Outcomes {
    pub(super) fn count(&mut self, decision: &Decision) {
        match decision.events.last() {
            Some(Event::OrderAccepted(_)) => self.accepted += 1,
            Some(Event::AttemptRefused(_)) => self.refused += 1,
            _ => self.other += 1,
        }
    }

    /// Adds them to the metrics, which thereby begin at zero.
    pub(super) fn report(&self, partition: &str) {
        for (outcome, count) in [
            ("accepted", self.accepted),
            ("refused", self.refused),
            ("other", self.other),
        ] {
            let labels = [
                ("partition", partition.to_owned()),
                ("outcome", outcome.to_owned()),
            ];
            metrics::counter!(DECISIONS, &labels).increment(count);
        }
    }
}
