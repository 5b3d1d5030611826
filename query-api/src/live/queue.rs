//! The records of log 1 that are still to be decided, in their order.

use std::collections::{HashMap, VecDeque};

use schemas::ids::{AttemptId, Offset, ProductId};

/// The undecided records of one partition.
pub(crate) struct Queue {
    waiting: VecDeque<Waiting>,
    /// Where each waiting attempt stands first; one sent again stands in the queue twice.
    places: HashMap<AttemptId, Offset>,
    /// The last offset that is decided.
    answered: Offset,
}

struct Waiting {
    offset: Offset,
    /// None for what is not an attempt, such as a cancellation.
    attempt: Option<Asked>,
}

/// An attempt, as far as it matters while it waits.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub id: AttemptId,
    pub product: ProductId,
    pub quantity: u32,
}

impl Queue {
    /// The queue behind the last decided offset.
    pub fn new() -> Self {
        Self {
            waiting: VecDeque::new(),
            places: HashMap::new(),
            answered: Offset(-1),
        }
    }

    /// How many records wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Takes the next record of log 1. What is decided already does not wait: the two logs are
    /// read independently, and either may be ahead.
    pub fn push(&mut self, offset: Offset, attempt: Option<Asked>) {
        if offset <= self.answered {
            return;
        }
        if let Some(asked) = &attempt {
            self.places.entry(asked.id).or_insert(offset);
        }
        self.waiting.push_back(Waiting { offset, attempt });
    }

    /// Tells that everything up to this offset is decided.
    pub fn answered_up_to(&mut self, offset: Offset) {
        self.answered = self.answered.max(offset);
        while let Some(first) = self.waiting.front()
            && first.offset <= self.answered
        {
            if let Some(asked) = &first.attempt
                && self.places.get(&asked.id) == Some(&first.offset)
            {
                self.places.remove(&asked.id);
            }
            self.waiting.pop_front();
        }
    }

    /// Where a waiting attempt stands, and how many records are to be decided before it.
    pub fn find(&self, id: &AttemptId) -> Option<(Offset, u64, &Asked)> {
        let offset = *self.places.get(id)?;
        let ahead = self.waiting.partition_point(|other| other.offset < offset);
        let asked = self.waiting.get(ahead)?.attempt.as_ref()?;
        Some((offset, ahead as u64, asked))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(n: u8) -> Option<Asked> {
        Some(Asked {
            id: AttemptId::from_bytes([n; 16]),
            product: "p".parse().unwrap(),
            quantity: n.into(),
        })
    }

    fn place(queue: &Queue, n: u8) -> Option<(i64, u64, u32)> {
        let (offset, ahead, asked) = queue.find(&AttemptId::from_bytes([n; 16]))?;
        Some((offset.0, ahead, asked.quantity))
    }

    #[test]
    fn counts_what_is_ahead_and_forgets_what_is_decided() {
        let mut queue = Queue::new();
        // Offsets need not be gapless, and a cancellation waits like everything else.
        queue.push(Offset(3), asked(1));
        queue.push(Offset(5), None);
        queue.push(Offset(9), asked(2));
        queue.push(Offset(10), asked(1));
        assert_eq!(place(&queue, 1), Some((3, 0, 1)));
        assert_eq!(place(&queue, 2), Some((9, 2, 2)));
        queue.answered_up_to(Offset(5));
        assert_eq!(place(&queue, 1), None);
        assert_eq!(place(&queue, 2), Some((9, 0, 2)));
        queue.answered_up_to(Offset(10));
        assert_eq!((queue.len(), queue.places.len()), (0, 0));
        queue.push(Offset(10), asked(3));
        assert_eq!(place(&queue, 3), None, "it was decided before it was read");
    }
}
