//! The rows decided last, by key: at least those that the read store may not have yet.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

use schemas::ids::Offset;

/// The recent rows of one kind in one partition: its attempts by id, or its commands by offset.
pub(crate) struct RecentRows<K, R> {
    /// Each with the offset in `stock-decisions` of its last decision.
    rows: HashMap<K, (Offset, R)>,
    /// In the order of their decisions. An attempt with two decisions is listed twice.
    decided: VecDeque<(Offset, K)>,
    /// The next offset of `stock-decisions` that the store will apply.
    stored: Offset,
    /// The last offset whose row was evicted.
    evicted: Offset,
    keep: usize,
    max: usize,
}

impl<K: Copy + Eq + Hash, R> RecentRows<K, R> {
    /// Keeps `keep` rows, or as many as the store lacks, but at most `max`.
    pub fn new(keep: usize, max: usize) -> Self {
        Self {
            rows: HashMap::new(),
            decided: VecDeque::new(),
            stored: Offset(0),
            evicted: Offset(-1),
            keep,
            max,
        }
    }

    /// Takes a row that the decision at this offset of `stock-decisions` has made.
    pub fn put(&mut self, at: Offset, key: K, row: R) {
        self.decided.push_back((at, key));
        self.rows.insert(key, (at, row));
        self.evict();
    }

    /// Takes the store's progress: it has every decision before this offset of
    /// `stock-decisions`. After a crash that may be less than before.
    pub fn stored_up_to(&mut self, next: Offset) {
        self.stored = next;
        self.evict();
    }

    /// The row, if it is recent.
    pub fn get(&self, key: &K) -> Option<&R> {
        self.rows.get(key).map(|(_, row)| row)
    }

    /// The last offset whose row was evicted; -1 before the first.
    pub fn evicted(&self) -> Offset {
        self.evicted
    }

    /// Whether there may be a row that is neither in memory nor in the store.
    pub fn has_gap(&self) -> bool {
        self.evicted >= self.stored
    }

    fn evict(&mut self) {
        while self.decided.len() > self.keep
            && let Some(&(at, key)) = self.decided.front()
        {
            if at >= self.stored && self.decided.len() <= self.max {
                return;
            }
            self.evicted = at;
            self.decided.pop_front();
            // A row with a later decision stays until that decision is old, too.
            if self.rows.get(&key).is_some_and(|(last, _)| *last == at) {
                self.rows.remove(&key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has(recent: &RecentRows<u8, ()>, ids: impl IntoIterator<Item = u8>) -> Vec<bool> {
        ids.into_iter().map(|n| recent.get(&n).is_some()).collect()
    }

    #[test]
    fn no_row_is_evicted_before_the_store_has_it() {
        let mut recent = RecentRows::new(2, 10);
        for n in 0..5 {
            recent.put(Offset(n.into()), n, ());
        }
        assert_eq!(has(&recent, 0..5), [true; 5]);
        recent.stored_up_to(Offset(1));
        assert_eq!(has(&recent, 0..5), [false, true, true, true, true]);
        recent.stored_up_to(Offset(5));
        assert_eq!(has(&recent, 0..5), [false, false, false, true, true]);
        assert!(!recent.has_gap());
    }

    #[test]
    fn past_the_limit_the_oldest_rows_are_evicted_which_is_a_gap_until_the_store_has_them() {
        let mut recent = RecentRows::new(2, 3);
        for n in 0..5 {
            recent.put(Offset(n.into()), n, ());
        }
        assert_eq!(has(&recent, 0..5), [false, false, true, true, true]);
        assert!(recent.has_gap());
        recent.stored_up_to(Offset(1));
        assert!(recent.has_gap());
        recent.stored_up_to(Offset(2));
        assert!(!recent.has_gap());
        recent.stored_up_to(Offset(1));
        assert!(
            recent.has_gap(),
            "the store has lost what memory has evicted"
        );
    }

    #[test]
    fn an_attempt_with_two_decisions_stays_as_long_as_its_last_one() {
        let mut recent = RecentRows::new(2, 10);
        for (at, n) in [(0, 0), (1, 1), (2, 0), (3, 2)] {
            recent.put(Offset(at), n, ());
        }
        recent.stored_up_to(Offset(9));
        assert_eq!(has(&recent, 0..3), [true, false, true]);
    }
}
