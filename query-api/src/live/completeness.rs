//! Whether the lists of a partition have all rows that they should have.
//!
//! A list without a row says that there is no such order. That is only true if the store is not behind
//! what it had before, or what was decided before this process started, and keeps up with the tail. A
//! store that lags a little but moves is current enough; a request that needs more names a position.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use schemas::ids::Offset;
use tokio::time::Instant;

/// How long the store may have nothing of what was decided since. A store that takes a while to write
/// pauses for less.
const MAX_STALL: Duration = Duration::from_secs(5);

/// What is known of the completeness of one partition's rows.
pub(super) struct Completeness {
    /// Whether the tail has come to the end that `stock-decisions` had at the start, or cannot.
    sales_read: AtomicBool,
    state: Mutex<State>,
}

/// All offsets are those of answered records of `purchase-attempts`.
struct State {
    /// What the store must have: what was answered when the tail first came to the end, and what the
    /// store had before. None until the tail has come there.
    required: Option<Offset>,
    stored: Offset,
    /// When `stored` last changed, or had everything.
    moved: Instant,
}

impl Completeness {
    /// Nothing is known to be complete yet.
    pub(super) fn new() -> Self {
        Self {
            sales_read: AtomicBool::new(false),
            state: Mutex::new(State {
                required: None,
                stored: Offset(-1),
                moved: Instant::now(),
            }),
        }
    }

    /// The tail has come to the end that the topic had at the start.
    pub(super) fn caught_up(&self, answered: Offset) {
        self.sales_read.store(true, Ordering::Release);
        let mut state = self.state.lock();
        state.required.get_or_insert(answered);
    }

    /// The tail cannot read on: what it has of the sales is all that there is for now.
    pub(super) fn tail_failed(&self) {
        self.sales_read.store(true, Ordering::Release);
    }

    /// The store has everything up to `stored`, and the tail up to `answered`.
    pub(super) fn take_stored(&self, stored: Offset, answered: Offset) {
        let mut state = self.state.lock();
        if stored < state.stored {
            // It has lost rows, such as by a restart from an older copy.
            state.required = state.required.max(Some(state.stored));
        }
        if stored != state.stored || stored >= answered {
            state.moved = Instant::now();
        }
        state.stored = stored;
    }

    /// Whether all sales are in memory that were there at the start.
    pub(super) fn has_all_sales(&self) -> bool {
        self.sales_read.load(Ordering::Acquire)
    }

    /// Why rows may be missing in the store, while the tail has everything up to `answered`.
    pub(super) fn missing(&self, answered: Offset) -> Option<&'static str> {
        let state = self.state.lock();
        match state.required {
            None => Some("the decisions from before the start are still being read"),
            Some(required) if state.stored < required => {
                Some("the read store does not have all rows that it had before")
            }
            Some(_) if state.stored < answered && state.moved.elapsed() > MAX_STALL => {
                Some("the read store takes no rows")
            }
            Some(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn rows_are_missing_until_the_store_has_what_it_should_have() {
        let lists = Completeness::new();
        assert!(!lists.has_all_sales());
        lists.take_stored(Offset(3), Offset(7));
        assert!(
            lists.missing(Offset(7)).is_some(),
            "the tail has not come to the end"
        );
        lists.caught_up(Offset(9));
        assert!(lists.has_all_sales());
        assert!(lists.missing(Offset(9)).is_some(), "the store is rebuilt");
        lists.take_stored(Offset(9), Offset(12));
        assert_eq!(lists.missing(Offset(12)), None, "it lags a little");
        lists.take_stored(Offset(12), Offset(12));
        advance(2 * MAX_STALL).await;
        lists.take_stored(Offset(12), Offset(12));
        assert_eq!(lists.missing(Offset(13)), None);
        advance(MAX_STALL / 2).await;
        lists.take_stored(Offset(12), Offset(13));
        assert_eq!(lists.missing(Offset(13)), None);
        advance(MAX_STALL).await;
        assert!(lists.missing(Offset(13)).is_some(), "it takes nothing");
        lists.take_stored(Offset(13), Offset(14));
        assert_eq!(lists.missing(Offset(14)), None, "it goes on");
        lists.take_stored(Offset(5), Offset(14));
        assert!(lists.missing(Offset(14)).is_some(), "it has lost rows");
        lists.take_stored(Offset(13), Offset(14));
        assert_eq!(lists.missing(Offset(14)), None);
    }

    #[test]
    fn a_tail_that_cannot_read_on_leaves_the_sales_of_others() {
        let lists = Completeness::new();
        lists.tail_failed();
        assert!(lists.has_all_sales());
        assert!(lists.missing(Offset(-1)).is_some());
    }
}
