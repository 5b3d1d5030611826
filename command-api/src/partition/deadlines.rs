//! The next deadline of every entity of a core: deadlines take effect also when no command arrives.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use schemas::ids::TimestampMs;

/// How long to wait before a deadline is due again that, by the log's clock, had not passed yet;
/// twice as long each further time.
const RETRY_MS: i64 = 20;
/// The longest such wait, for a clock that is far ahead of the log's.
const MAX_RETRY_MS: i64 = 1_000;
/// The most deadlines that are due at once.
const MAX_DUE: usize = 1_000;

/// The next deadline of each entity, such as a product, by its id.
pub(crate) struct Deadlines<Id> {
    timer_of: HashMap<Id, Timer>,
    in_order: BTreeSet<(TimestampMs, Id)>,
}

impl<Id> Default for Deadlines<Id> {
    fn default() -> Self {
        Self {
            timer_of: HashMap::new(),
            in_order: BTreeSet::new(),
        }
    }
}

/// The timer of an entity's next deadline.
#[derive(Clone, Copy)]
struct Timer {
    deadline: TimestampMs,
    /// When it is due: at the deadline, and later after it was due too early.
    due_at: TimestampMs,
    /// By how long it was delayed when it was last due; 0 before that.
    delay_ms: i64,
}

impl<Id: Clone + Eq + Hash + Ord> Deadlines<Id> {
    /// Sets the entity's next deadline. One that was due already keeps its delay.
    pub(crate) fn set(&mut self, id: &Id, next: Option<TimestampMs>) {
        if self.timer_of.get(id).map(|timer| timer.deadline) == next {
            return;
        }
        let timer = next.map(|deadline| Timer {
            deadline,
            due_at: deadline,
            delay_ms: 0,
        });
        self.replace(id, timer);
    }

    fn replace(&mut self, id: &Id, timer: Option<Timer>) {
        if let Some(before) = self.timer_of.remove(id) {
            self.in_order.remove(&(before.due_at, id.clone()));
        }
        if let Some(timer) = timer {
            self.timer_of.insert(id.clone(), timer);
            self.in_order.insert((timer.due_at, id.clone()));
        }
    }

    /// Lets a deadline be due at once that has passed by the log's clock, but of which a part has yet
    /// to take effect.
    pub(crate) fn due_at_once(&mut self, id: &Id) {
        if let Some(timer) = self.timer_of.get(id).copied() {
            let timer = Timer {
                due_at: timer.deadline,
                delay_ms: 0,
                ..timer
            };
            self.replace(id, Some(timer));
        }
    }

    /// When the first timer is due.
    pub(crate) fn first(&self) -> Option<TimestampMs> {
        self.in_order.first().map(|(due_at, _)| *due_at)
    }

    /// The entities whose deadline has passed. Each timer is delayed a little, so that it is not
    /// due again before the deadline can have taken effect; by twice as long each time that it had
    /// not, since the log's clock may be behind by any time.
    pub(crate) fn take_due(&mut self, now: TimestampMs) -> Vec<Id> {
        let due: Vec<Id> = self
            .in_order
            .iter()
            .take_while(|(due_at, _)| *due_at <= now)
            .take(MAX_DUE)
            .map(|(_, id)| id.clone())
            .collect();
        for id in &due {
            let timer = self.timer_of[id];
            let delay_ms = (2 * timer.delay_ms).clamp(RETRY_MS, MAX_RETRY_MS);
            let timer = Timer {
                due_at: now + delay_ms,
                delay_ms,
                ..timer
            };
            self.replace(id, Some(timer));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use schemas::ids::ProductId;

    use super::*;

    fn product(name: &str) -> ProductId {
        name.parse().unwrap()
    }

    #[test]
    fn a_due_product_is_returned_once_and_again_only_later() {
        let mut deadlines = Deadlines::default();
        deadlines.set(&product("b"), Some(200));
        deadlines.set(&product("a"), Some(100));
        assert_eq!(deadlines.first(), Some(100));
        assert_eq!(deadlines.take_due(99), []);
        assert_eq!(deadlines.take_due(150), [product("a")]);
        assert_eq!(deadlines.take_due(150), []);
        assert_eq!(deadlines.take_due(150 + RETRY_MS), [product("a")]);
        deadlines.set(&product("a"), None);
        assert_eq!(deadlines.first(), Some(200));
    }

    #[test]
    fn a_deadline_that_has_not_passed_by_the_log_s_clock_is_due_ever_more_rarely() {
        let mut deadlines = Deadlines::default();
        let mut due_at = Vec::new();
        for now in 0..10_000 {
            // Each time the deadline turns out to be the same as before.
            deadlines.set(&product("a"), Some(100));
            if !deadlines.take_due(now).is_empty() {
                due_at.push(now);
            }
        }
        assert_eq!(due_at[..7], [100, 120, 160, 240, 400, 720, 1_360]);
        assert_eq!(due_at.len(), 15, "once a second from then on: {due_at:?}");
        // Another deadline is due when it passes.
        deadlines.set(&product("a"), Some(10_500));
        assert_eq!(deadlines.first(), Some(10_500));
    }

    #[test]
    fn a_deadline_that_is_due_at_once_is_not_delayed() {
        let mut deadlines = Deadlines::default();
        deadlines.set(&product("a"), Some(100));
        for _ in 0..10 {
            assert_eq!(deadlines.take_due(100), [product("a")]);
            assert_eq!(deadlines.take_due(100), []);
            deadlines.due_at_once(&product("a"));
        }
        deadlines.due_at_once(&product("b"));
        assert_eq!(deadlines.first(), Some(100));
    }
}
