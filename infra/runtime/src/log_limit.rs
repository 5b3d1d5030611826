//! A limit on log lines that repeat: at most one a second about the same thing, with the number of
//! those that were left out.

use std::collections::HashMap;
use std::hash::Hash;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The least time between two lines about the same thing.
const ONE_EVERY: Duration = Duration::from_secs(1);
/// The most things that are remembered. Beyond it, those without a line in the last second are
/// forgotten, and then lines about new things are left out.
const MAX_THINGS: usize = 10_000;

/// Lets at most one log line a second pass about each thing, such as a partition.
pub struct LogLimit<K>(Mutex<HashMap<K, Lines>>);

/// The lines about one thing.
struct Lines {
    logged: Instant,
    left_out: u64,
}

impl<K> Default for LogLimit<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Hash + Eq> LogLimit<K> {
    /// Whether a line about this may be logged now: if so, how many were left out since the last one.
    pub fn admit(&self, about: K) -> Option<u64> {
        self.admit_at(about, Instant::now())
    }

    fn admit_at(&self, about: K, now: Instant) -> Option<u64> {
        let mut things = self.0.lock();
        let is_recent = |lines: &Lines| now.duration_since(lines.logged) < ONE_EVERY;
        if let Some(lines) = things.get_mut(&about) {
            if is_recent(lines) {
                lines.left_out += 1;
                return None;
            }
            lines.logged = now;
            return Some(std::mem::take(&mut lines.left_out));
        }
        if things.len() >= MAX_THINGS {
            things.retain(|_, lines| is_recent(lines));
        }
        if things.len() >= MAX_THINGS {
            return None;
        }
        let lines = Lines {
            logged: now,
            left_out: 0,
        };
        things.insert(about, lines);
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_thing_has_one_line_a_second_and_the_next_has_the_number_of_those_left_out() {
        let limit = LogLimit::default();
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        assert_eq!(limit.admit_at(3, at(0)), Some(0));
        assert_eq!(limit.admit_at(3, at(1)), None);
        assert_eq!(limit.admit_at(4, at(1)), Some(0), "another thing");
        assert_eq!(limit.admit_at(3, at(999)), None);
        assert_eq!(limit.admit_at(3, at(1_000)), Some(2));
        assert_eq!(limit.admit_at(3, at(2_500)), Some(0));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let limit = LogLimit::default();
        let begin = Instant::now();
        for thing in 0..MAX_THINGS {
            assert_eq!(limit.admit_at(thing, begin), Some(0));
        }
        assert_eq!(limit.admit_at(MAX_THINGS, begin), None);
        assert_eq!(limit.admit_at(MAX_THINGS, begin + ONE_EVERY), Some(0));
        assert_eq!(limit.0.lock().len(), 1);
    }
}
