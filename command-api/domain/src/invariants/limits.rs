//! The limits that a history is checked against.
//!
//! They are restated here instead of taken from the code that decides: a limit that is changed
//! there by mistake must show as a violation here, not move along. The test compares the two.

use schemas::command::SaleTerms;
use schemas::ids::TimestampMs;

/// The last moment that counts, in the year 9999: a later log time counts as this one.
pub(super) const LAST_MOMENT_MS: TimestampMs = 253_402_300_799_999;

/// The most holds that run out in one decision.
pub(super) const MAX_HOLDS_RUN_OUT: usize = 1_000;

/// Whether one attempt may ask for this many units: at most as many as one decision frees when
/// units are held, at most 100,000 when they are sold at once.
pub(super) fn is_valid_quantity(quantity: u32, terms: &SaleTerms) -> bool {
    let most = match terms.hold_ms {
        Some(_) => 1_000,
        None => 100_000,
    };
    (1..=most).contains(&quantity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{held, terms};

    #[test]
    fn the_restated_limits_are_those_that_decisions_are_made_by() {
        assert_eq!(LAST_MOMENT_MS, crate::time::MAX_TIME_MS);
        assert_eq!(MAX_HOLDS_RUN_OUT, crate::time::MAX_EXPIRIES);
        for terms in [terms(1), held(1, 500)] {
            let most = crate::attempt::most_units(&terms);
            assert!(!is_valid_quantity(0, &terms));
            assert!(is_valid_quantity(1, &terms));
            assert!(is_valid_quantity(most, &terms));
            assert!(!is_valid_quantity(most + 1, &terms));
        }
    }
}
