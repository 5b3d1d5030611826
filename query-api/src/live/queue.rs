//! The undecided records of `purchase-attempts`, in their order.

use std::collections::{HashMap, VecDeque};

use schemas::ids::{AttemptId, Offset, ProductId};

/// The undecided records of one partition.
pub(crate) struct Queue {
    records: VecDeque<UndecidedRecord>,
    /// The first offset of each attempt; an attempt that was sent again is queued twice.
    first_offsets: HashMap<AttemptId, Offset>,
    /// The last decided offset.
    answered: Offset,
}

struct UndecidedRecord {
    offset: Offset,
    /// None for what is not an attempt, such as a cancellation.
    attempt: Option<PendingAttempt>,
}

/// What an answer needs of an attempt while it is queued.
#[derive(Debug, Clone)]
pub(crate) struct PendingAttempt {
    pub id: AttemptId,
    pub product: ProductId,
    pub quantity: u32,
}

impl Queue {
    /// An empty queue of which no offset is decided.
    pub fn new() -> Self {
        Self {
            records: VecDeque::new(),
            first_offsets: HashMap::new(),
            answered: Offset(-1),
        }
    }

    /// How many undecided records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Takes the next record of `purchase-attempts`. A decided one is not queued: the two topics
    /// are read independently, and either may be ahead.
    pub fn push(&mut self, offset: Offset, attempt: Option<PendingAttempt>) {
        if offset <= self.answered {
            return;
        }
        if let Some(attempt) = &attempt {
            self.first_offsets.entry(attempt.id).or_insert(offset);
        }
        self.records.push_back(UndecidedRecord { offset, attempt });
    }

    /// Removes every record up to this offset: all of them are decided.
    pub fn answered_up_to(&mut self, offset: Offset) {
        self.answered = self.answered.max(offset);
        while let Some(first) = self.records.front()
            && first.offset <= self.answered
        {
            if let Some(attempt) = &first.attempt
                && self.first_offsets.get(&attempt.id) == Some(&first.offset)
            {
                self.first_offsets.remove(&attempt.id);
            }
            self.records.pop_front();
        }
    }

    /// A queued attempt with its offset, and how many records are decided before it.
    pub fn find(&self, id: &AttemptId) -> Option<(Offset, u64, &PendingAttempt)> {
        let offset = *self.first_offsets.get(id)?;
        let ahead = self.records.partition_point(|other| other.offset < offset);
        let attempt = self.records.get(ahead)?.attempt.as_ref()?;
        Some((offset, ahead as u64, attempt))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(n: u8) -> Option<PendingAttempt> {
        Some(PendingAttempt {
            id: AttemptId::from_bytes([n; 16]),
            product: "p".parse().unwrap(),
            quantity: n.into(),
        })
    }

    /// The offset of an attempt, how many records are ahead of it, and its quantity.
    fn find(queue: &Queue, n: u8) -> Option<(i64, u64, u32)> {
        let (offset, ahead, attempt) = queue.find(&AttemptId::from_bytes([n; 16]))?;
        Some((offset.0, ahead, attempt.quantity))
    }

    #[test]
    fn counts_what_is_ahead_and_forgets_what_is_decided() {
        let mut queue = Queue::new();
        // Offsets may have gaps, and a cancellation is queued like everything else.
        queue.push(Offset(3), attempt(1));
        queue.push(Offset(5), None);
        queue.push(Offset(9), attempt(2));
        queue.push(Offset(10), attempt(1));
        assert_eq!(find(&queue, 1), Some((3, 0, 1)));
        assert_eq!(find(&queue, 2), Some((9, 2, 2)));
        queue.answered_up_to(Offset(5));
        assert_eq!(find(&queue, 1), None);
        assert_eq!(find(&queue, 2), Some((9, 0, 2)));
        queue.answered_up_to(Offset(10));
        assert_eq!((queue.len(), queue.first_offsets.len()), (0, 0));
        queue.push(Offset(10), attempt(3));
        assert_eq!(find(&queue, 3), None, "it was decided before it was read");
    }
}
