//! The attempts decided last, by id: at least those that the read store may not have yet.

use std::collections::{HashMap, VecDeque};

use ports::read_store::AttemptRow;
use schemas::ids::{AttemptId, Offset};

/// The recent attempts of one partition.
pub(crate) struct RecentAttempts {
    /// Each with the offset in `stock-decisions` of its last decision.
    rows: HashMap<AttemptId, (Offset, AttemptRow)>,
    /// In the order of their decisions. An attempt with two decisions is listed twice.
    decided: VecDeque<(Offset, AttemptId)>,
    /// The next offset of `stock-decisions` that the store will apply.
    stored: Offset,
    /// The last offset whose row was evicted.
    evicted: Offset,
    keep: usize,
    max: usize,
}

impl RecentAttempts {
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
    pub fn put(&mut self, at: Offset, row: AttemptRow) {
        self.decided.push_back((at, row.attempt_id));
        self.rows.insert(row.attempt_id, (at, row));
        self.evict();
    }

    /// Takes the store's progress: it has every decision before this offset of
    /// `stock-decisions`. After a crash that may be less than before.
    pub fn stored_up_to(&mut self, next: Offset) {
        self.stored = next;
        self.evict();
    }

    /// The attempt, if it is recent.
    pub fn get(&self, id: &AttemptId) -> Option<&AttemptRow> {
        self.rows.get(id).map(|(_, row)| row)
    }

    /// The last offset whose row was evicted; -1 before the first.
    pub fn evicted(&self) -> Offset {
        self.evicted
    }

    /// Whether there may be an attempt that is neither in memory nor in the store.
    pub fn has_gap(&self) -> bool {
        self.evicted >= self.stored
    }

    fn evict(&mut self) {
        while self.decided.len() > self.keep
            && let Some(&(at, id)) = self.decided.front()
        {
            if at >= self.stored && self.decided.len() <= self.max {
                return;
            }
            self.evicted = at;
            self.decided.pop_front();
            // An attempt with a later decision stays until that decision is old, too.
            if self.rows.get(&id).is_some_and(|(last, _)| *last == at) {
                self.rows.remove(&id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use ports::read_store::AttemptStatus;
    use schemas::ids::{Partition, Position};

    use super::*;

    fn row(n: u8) -> AttemptRow {
        AttemptRow {
            attempt_id: AttemptId::from_bytes([n; 16]),
            product_id: "p".parse().unwrap(),
            buyer_id: "b".parse().unwrap(),
            quantity: 1,
            position: Position {
                partition: Partition(0),
                offset: Offset(n.into()),
            },
            status: AttemptStatus::Sold,
            decided_at_ms: 0,
            hold_until_ms: None,
            version: 1,
            trace_id: None,
        }
    }

    fn has(recent: &RecentAttempts, ids: impl IntoIterator<Item = u8>) -> Vec<bool> {
        ids.into_iter()
            .map(|n| recent.get(&AttemptId::from_bytes([n; 16])).is_some())
            .collect()
    }

    #[test]
    fn no_row_is_evicted_before_the_store_has_it() {
        let mut recent = RecentAttempts::new(2, 10);
        for n in 0..5 {
            recent.put(Offset(n.into()), row(n));
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
        let mut recent = RecentAttempts::new(2, 3);
        for n in 0..5 {
            recent.put(Offset(n.into()), row(n));
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
        let mut recent = RecentAttempts::new(2, 10);
        for (at, n) in [(0, 0), (1, 1), (2, 0), (3, 2)] {
            recent.put(Offset(at), row(n));
        }
        recent.stored_up_to(Offset(9));
        assert_eq!(has(&recent, 0..3), [true, false, true]);
    }
}
