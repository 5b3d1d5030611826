//! A product's figures and phase, shared by the core and the invariants that check it.

use schemas::decision::{Stock, Tally};
use schemas::ids::TimestampMs;

/// The figures of a product after a decision, which the next decision has to follow from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Decisions so far.
    pub version: u64,
    /// The time of the last one.
    pub decided_at_ms: TimestampMs,
    /// The round; 0 while there is no sale.
    pub round: u32,
    /// The sale's phase.
    pub phase: Phase,
    /// The units.
    pub stock: Stock,
    /// The counts.
    pub tally: Tally,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            version: 0,
            decided_at_ms: 0,
            round: 0,
            phase: Phase::None,
            stock: Stock::default(),
            tally: Tally::default(),
        }
    }
}

/// The phase of a sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// There is no sale.
    None,
    /// It has not opened.
    Scheduled,
    /// Attempts are accepted.
    Open,
    /// Attempts are refused until the sale is resumed.
    Paused,
    /// The round is over.
    Closed,
}

impl Phase {
    /// The phase by these facts. Closed takes precedence over paused, paused over scheduled.
    pub fn of(has_terms: bool, opened: bool, paused: bool, closed: bool) -> Self {
        match (has_terms, closed, paused, opened) {
            (false, ..) => Phase::None,
            (true, true, ..) => Phase::Closed,
            (true, false, true, _) => Phase::Paused,
            (true, false, false, false) => Phase::Scheduled,
            (true, false, false, true) => Phase::Open,
        }
    }
}
