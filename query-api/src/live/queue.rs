//! The undecided records of `purchase-attempts`, in their order.

use std::collections::{HashMap, VecDeque};

use schemas::decision::CommandKind;
use schemas::ids::{AttemptId, BuyerId, Offset, ProductId};
use tokio::time::Instant;

/// The undecided records of one partition.
pub(crate) struct Queue {
    records: VecDeque<UndecidedRecord>,
    /// The first offset of each attempt; an attempt that was sent again is queued twice.
    first_offsets: HashMap<AttemptId, Offset>,
    /// How many records are unreadable.
    unreadable: usize,
    /// The last decided offset.
    answered: Offset,
}

struct UndecidedRecord {
    offset: Offset,
    /// When it was read.
    since: Instant,
    /// None for what nobody asks about: the passing of time, and garbage.
    body: Option<Pending>,
}

/// What an undecided record holds.
#[derive(Debug, Clone)]
pub(crate) enum Pending {
    /// An attempt.
    Attempt(PendingAttempt),
    /// Another command. In a box, since nearly all records are attempts.
    Command(Box<PendingCommand>),
    /// A record that a newer version may have written: it may be any command.
    Unreadable,
}

/// What an answer needs of an attempt while it is queued.
#[derive(Debug, Clone)]
pub(crate) struct PendingAttempt {
    pub id: AttemptId,
    pub product: ProductId,
    pub quantity: u32,
}

/// What an answer needs of a command that is not an attempt while it is queued.
#[derive(Debug, Clone)]
pub(crate) struct PendingCommand {
    pub kind: CommandKind,
    pub product: ProductId,
    pub buyer: Option<BuyerId>,
    pub attempt: Option<AttemptId>,
}

impl UndecidedRecord {
    fn attempt(&self) -> Option<&PendingAttempt> {
        match &self.body {
            Some(Pending::Attempt(attempt)) => Some(attempt),
            _ => None,
        }
    }
}

impl Queue {
    /// An empty queue of which no offset is decided.
    pub fn new() -> Self {
        Self {
            records: VecDeque::new(),
            first_offsets: HashMap::new(),
            unreadable: 0,
            answered: Offset(-1),
        }
    }

    /// When the oldest undecided record was read.
    pub fn oldest(&self) -> Option<Instant> {
        self.records.front().map(|record| record.since)
    }

    /// How many undecided records there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether an undecided record is unreadable, and may be what is not found.
    pub fn has_unreadable(&self) -> bool {
        self.unreadable > 0
    }

    /// Takes the next record of `purchase-attempts`. A decided one is not queued: the two topics
    /// are read independently, and either may be ahead.
    pub fn push(&mut self, offset: Offset, since: Instant, body: Option<Pending>) {
        if offset <= self.answered {
            return;
        }
        match &body {
            Some(Pending::Attempt(attempt)) => {
                self.first_offsets.entry(attempt.id).or_insert(offset);
            }
            Some(Pending::Unreadable) => self.unreadable += 1,
            Some(Pending::Command(_)) | None => {}
        }
        self.records.push_back(UndecidedRecord {
            offset,
            since,
            body,
        });
    }

    /// Removes every record up to this offset: all of them are decided.
    pub fn answered_up_to(&mut self, offset: Offset) {
        self.answered = self.answered.max(offset);
        while let Some(first) = self.records.front()
            && first.offset <= self.answered
        {
            if let Some(attempt) = first.attempt()
                && self.first_offsets.get(&attempt.id) == Some(&first.offset)
            {
                self.first_offsets.remove(&attempt.id);
            }
            if let Some(Pending::Unreadable) = first.body {
                self.unreadable -= 1;
            }
            self.records.pop_front();
        }
    }

    /// A queued attempt with its offset, and how many records are decided before it.
    pub fn find(&self, id: &AttemptId) -> Option<(Offset, u64, &PendingAttempt)> {
        let offset = *self.first_offsets.get(id)?;
        let (ahead, record) = self.record(offset)?;
        Some((offset, ahead, record.attempt()?))
    }

    /// What the queued record at this offset holds, and how many records are decided before it.
    pub fn at(&self, offset: Offset) -> Option<(u64, &Pending)> {
        let (ahead, record) = self.record(offset)?;
        Some((ahead, record.body.as_ref()?))
    }

    fn record(&self, offset: Offset) -> Option<(u64, &UndecidedRecord)> {
        let ahead = self.records.partition_point(|other| other.offset < offset);
        let record = self.records.get(ahead)?;
        (record.offset == offset).then_some((ahead as u64, record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(n: u8) -> Option<Pending> {
        Some(Pending::Attempt(PendingAttempt {
            id: AttemptId::from_bytes([n; 16]),
            product: "p".parse().unwrap(),
            quantity: n.into(),
        }))
    }

    fn command() -> Option<Pending> {
        Some(Pending::Command(Box::new(PendingCommand {
            kind: CommandKind::CloseSale,
            product: "p".parse().unwrap(),
            buyer: None,
            attempt: None,
        })))
    }

    /// The offset of an attempt, how many records are ahead of it, and its quantity.
    fn find(queue: &Queue, n: u8) -> Option<(i64, u64, u32)> {
        let (offset, ahead, attempt) = queue.find(&AttemptId::from_bytes([n; 16]))?;
        Some((offset.0, ahead, attempt.quantity))
    }

    #[test]
    fn counts_what_is_ahead_and_forgets_what_is_decided() {
        let mut queue = Queue::new();
        let now = Instant::now();
        // Offsets may have gaps, and the passing of time is queued like everything else.
        queue.push(Offset(3), now, attempt(1));
        queue.push(Offset(5), now, None);
        queue.push(Offset(9), now, attempt(2));
        queue.push(Offset(10), now, attempt(1));
        assert_eq!(find(&queue, 1), Some((3, 0, 1)));
        assert_eq!(find(&queue, 2), Some((9, 2, 2)));
        queue.answered_up_to(Offset(5));
        assert_eq!(find(&queue, 1), None);
        assert_eq!(find(&queue, 2), Some((9, 0, 2)));
        queue.answered_up_to(Offset(10));
        assert_eq!((queue.len(), queue.first_offsets.len()), (0, 0));
        queue.push(Offset(10), now, attempt(3));
        assert_eq!(find(&queue, 3), None, "it was decided before it was read");
    }

    #[test]
    fn unreadable_records_are_known_until_they_are_decided() {
        let mut queue = Queue::new();
        let now = Instant::now();
        queue.push(Offset(0), now, Some(Pending::Unreadable));
        queue.push(Offset(1), now, attempt(1));
        queue.push(Offset(2), now, Some(Pending::Unreadable));
        assert_eq!(find(&queue, 1), Some((1, 1, 1)));
        for (answered, has_unreadable) in [(0, true), (1, true), (2, false)] {
            queue.answered_up_to(Offset(answered));
            assert_eq!(queue.has_unreadable(), has_unreadable);
        }
        queue.push(Offset(2), now, Some(Pending::Unreadable));
        assert!(!queue.has_unreadable(), "it was decided before it was read");
    }

    #[test]
    fn a_record_is_found_at_its_offset() {
        let mut queue = Queue::new();
        let now = Instant::now();
        queue.push(Offset(3), now, attempt(1));
        queue.push(Offset(5), now, None);
        queue.push(Offset(7), now, command());
        queue.push(Offset(8), now, attempt(1));
        let ahead = |queue: &Queue, offset| queue.at(Offset(offset)).map(|(ahead, _)| ahead);
        assert_eq!(
            [2, 3, 4, 5, 7, 8, 9].map(|offset| ahead(&queue, offset)),
            [None, Some(0), None, None, Some(2), Some(3), None]
        );
        assert!(matches!(
            queue.at(Offset(7)),
            Some((_, Pending::Command(_)))
        ));
        queue.answered_up_to(Offset(5));
        assert_eq!([3, 7].map(|offset| ahead(&queue, offset)), [None, Some(0)]);
    }
}
