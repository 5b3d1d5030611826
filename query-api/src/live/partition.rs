//! What the tails of one partition have read.

use parking_lot::Mutex;
use ports::ReadError;
use ports::read_store::{Progress, Row};
use runtime::shared_answer::SharedAnswer;
use schemas::command::{Command, CommandBody};
use schemas::decision::Decision;
use schemas::ids::{AttemptId, Offset, Partition, Position, TraceId};

use super::attempts::{AttemptState, QueuedAttempt};
use super::queue::{PendingAttempt, Queue};
use super::recent::RecentAttempts;
use super::watermark::Watermark;

/// One partition's attempts, and how far each source of them has been read.
pub(super) struct LivePartition {
    state: Mutex<State>,
    /// The last offset of `purchase-attempts` whose decision has been read.
    pub answered: Watermark,
    /// The next offset of `purchase-attempts` that the queue reads.
    pub queued: Watermark,
    /// The last offset of `purchase-attempts` whose decision is in the store.
    pub stored: Watermark,
    /// The end of `purchase-attempts`.
    pub end: SharedAnswer<Result<Offset, ReadError>>,
}

struct State {
    recent: RecentAttempts,
    queue: Queue,
}

impl LivePartition {
    /// Keeps `keep` decided attempts, or as many as the store lacks, but at most `max`.
    pub fn new(keep: usize, max: usize) -> Self {
        Self {
            state: Mutex::new(State {
                recent: RecentAttempts::new(keep, max),
                queue: Queue::new(),
            }),
            answered: Watermark::new(),
            queued: Watermark::new(),
            stored: Watermark::new(),
            end: SharedAnswer::default(),
        }
    }

    /// What memory has of an attempt. `partition` is the number of this one.
    pub fn attempt(&self, partition: Partition, id: AttemptId) -> Option<AttemptState> {
        let state = self.state.lock();
        if let Some(row) = state.recent.get(&id) {
            return Some(AttemptState::Decided(row.clone()));
        }
        let (offset, ahead, attempt) = state.queue.find(&id)?;
        Some(AttemptState::Queued(QueuedAttempt {
            attempt_id: id,
            product_id: attempt.product.clone(),
            quantity: attempt.quantity,
            position: Position { partition, offset },
            ahead,
        }))
    }

    /// Whether there may be an attempt that is neither in memory nor in the store.
    pub fn has_gap(&self) -> bool {
        self.state.lock().recent.has_gap()
    }

    /// The offset in `stock-decisions` up to which attempts have been evicted from memory.
    pub fn evicted(&self) -> Offset {
        self.state.lock().recent.evicted()
    }

    /// How many undecided records the queue holds.
    pub fn queue_len(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// Takes the store's progress at the start: what is in it is neither queued nor awaited.
    pub fn start_from(&self, stored: Progress) {
        self.take_stored(stored);
        self.state.lock().queue.answered_up_to(stored.answered);
        self.answered.advance(stored.answered);
        self.queued.advance(stored.answered.next());
    }

    /// Takes the store's progress.
    pub fn take_stored(&self, progress: Progress) {
        self.state.lock().recent.stored_up_to(progress.next);
        self.stored.advance(progress.answered);
    }

    /// Takes decisions that passed the fence, each with its offset in `stock-decisions` and the
    /// trace of its request. `answered` is the fence's position after them.
    pub fn take_decisions(
        &self,
        partition: Partition,
        decisions: &[(Offset, Decision, Option<TraceId>)],
        answered: Offset,
    ) {
        // The rows are made before the lock is taken, so that readers wait less.
        let rows = decisions.iter().flat_map(|(offset, decision, trace)| {
            let rows = views::attempt_rows(partition, decision, *trace).into_iter();
            rows.filter_map(|row| match row {
                Row::Attempt(row) => Some((*offset, row)),
                _ => None,
            })
        });
        let rows: Vec<_> = rows.collect();
        let mut state = self.state.lock();
        for (offset, row) in rows {
            state.recent.put(offset, row);
        }
        state.queue.answered_up_to(answered);
    }

    /// Takes the next records of `purchase-attempts`.
    pub fn take_commands(&self, records: Vec<(Offset, Command)>) {
        let mut state = self.state.lock();
        for (offset, command) in records {
            let attempt = match command.body {
                CommandBody::PlaceAttempt(place) => Some(PendingAttempt {
                    id: place.attempt_id,
                    product: command.product_id,
                    quantity: place.quantity,
                }),
                _ => None,
            };
            state.queue.push(offset, attempt);
        }
    }
}
