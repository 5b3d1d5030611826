//! What the tails of one partition have read.

use std::sync::OnceLock;

use parking_lot::Mutex;
use ports::ReadError;
use ports::read_store::{AttemptRow, CommandRow, Progress, Row};
use runtime::shared_answer::SharedAnswer;
use schemas::command::{Command, CommandBody};
use schemas::decision::Decision;
use schemas::ids::{AttemptId, Offset, Partition, Position, TraceId};
use tokio::time::Instant;

use super::completeness::Completeness;
use super::queue::{Pending, PendingAttempt, PendingCommand, Queue};
use super::recent::RecentRows;
use super::states::{AttemptState, CommandState, QueuedAttempt, QueuedCommand};
use super::watermark::Watermark;

/// One partition's attempts and commands, and how far each source of them has been read.
pub(super) struct LivePartition {
    state: Mutex<State>,
    /// The last offset of `purchase-attempts` whose decision has been read.
    pub answered: Watermark,
    /// The next offset of `purchase-attempts` that the queue reads.
    pub queued: Watermark,
    /// The last offset of `purchase-attempts` whose decision is in the store.
    pub stored: Watermark,
    /// Whether the lists have all rows.
    pub completeness: Completeness,
    /// The end of `purchase-attempts`.
    pub end: SharedAnswer<Result<Offset, ReadError>>,
    /// Why a tail stopped for good, if one has: what it read is not what the log has now.
    pub another_log: OnceLock<ReadError>,
}

/// How many recent attempts are kept for each other command that is kept.
const ATTEMPTS_A_COMMAND: usize = 10;

struct State {
    recent: RecentRows<AttemptId, AttemptRow>,
    /// By offset in `purchase-attempts`.
    commands: RecentRows<Offset, CommandRow>,
    queue: Queue,
}

impl LivePartition {
    /// Keeps `keep` decided attempts, or as many as the store lacks, but at most `max`; and a tenth
    /// as many other commands.
    pub fn new(keep: usize, max: usize) -> Self {
        let share = |attempts: usize| (attempts / ATTEMPTS_A_COMMAND).max(1);
        Self {
            state: Mutex::new(State {
                recent: RecentRows::new(keep, max),
                commands: RecentRows::new(share(keep), share(max)),
                queue: Queue::new(),
            }),
            answered: Watermark::new(),
            queued: Watermark::new(),
            stored: Watermark::new(),
            completeness: Completeness::new(),
            end: SharedAnswer::default(),
            another_log: OnceLock::new(),
        }
    }

    /// What memory has of an attempt. `partition` is the number of this one.
    pub fn attempt(&self, partition: Partition, id: AttemptId) -> Option<AttemptState> {
        let state = self.state.lock();
        if let Some(row) = state.recent.get(&id) {
            return Some(AttemptState::Decided(row.clone()));
        }
        let (offset, ahead, attempt) = state.queue.find(&id)?;
        let position = Position { partition, offset };
        let queued = QueuedAttempt::new(attempt, position, ahead);
        Some(AttemptState::Queued(queued))
    }

    /// The attempt with this id in the queue at this position.
    pub fn queued_attempt(&self, id: AttemptId, at: Position) -> Option<QueuedAttempt> {
        let state = self.state.lock();
        match state.queue.at(at.offset)? {
            (ahead, Pending::Attempt(attempt)) if attempt.id == id => {
                Some(QueuedAttempt::new(attempt, at, ahead))
            }
            _ => None,
        }
    }

    /// Whether an undecided record is unreadable, and may be what is not found.
    pub fn has_unreadable(&self) -> bool {
        self.state.lock().queue.has_unreadable()
    }

    /// What memory has of the command at this position, if that is not an attempt.
    pub fn command(&self, at: Position) -> Option<CommandState> {
        let state = self.state.lock();
        if let Some(row) = state.commands.get(&at.offset) {
            return Some(CommandState::Decided(row.clone()));
        }
        match state.queue.at(at.offset)? {
            (ahead, Pending::Command(command)) => {
                let queued = QueuedCommand::new(command, at, ahead);
                Some(CommandState::Queued(queued))
            }
            (_, Pending::Attempt(_) | Pending::Unreadable) => None,
        }
    }

    /// Whether the record at this offset is in the queue and unreadable.
    pub fn is_unreadable(&self, offset: Offset) -> bool {
        let state = self.state.lock();
        matches!(state.queue.at(offset), Some((_, Pending::Unreadable)))
    }

    /// Whether the record at this offset is decided, or has been read into the queue.
    pub fn has_read(&self, offset: Offset) -> bool {
        self.answered.at() >= offset || self.queued.at() > offset
    }

    /// Whether there may be an attempt that is neither in memory nor in the store.
    pub fn has_gap(&self) -> bool {
        self.state.lock().recent.has_gap()
    }

    /// Whether there may be a command that is neither in memory nor in the store.
    pub fn has_command_gap(&self) -> bool {
        self.state.lock().commands.has_gap()
    }

    /// The offset in `stock-decisions` up to which attempts have been evicted from memory.
    pub fn evicted(&self) -> Offset {
        self.state.lock().recent.evicted()
    }

    /// How many undecided records the queue holds.
    pub fn queue_len(&self) -> usize {
        self.state.lock().queue.len()
    }

    /// When the oldest record that is read and not decided was read.
    pub fn oldest_undecided(&self) -> Option<Instant> {
        self.state.lock().queue.oldest()
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
        {
            let mut state = self.state.lock();
            state.recent.stored_up_to(progress.next);
            state.commands.stored_up_to(progress.next);
        }
        self.completeness
            .take_stored(progress.answered, self.answered.at());
        self.stored.advance(progress.answered);
    }

    /// Takes decisions that passed the fence, each with its offset in `stock-decisions` and the
    /// trace of its request, and the rows of commands that came with them. `answered` is the fence's
    /// position after them.
    pub fn take_decisions(
        &self,
        partition: Partition,
        decisions: &[(Offset, Decision, Option<TraceId>)],
        commands: Vec<(Offset, CommandRow)>,
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
            state.recent.put(offset, row.attempt_id, row);
        }
        for (offset, row) in commands {
            state.commands.put(offset, row.position.offset, row);
        }
        state.queue.answered_up_to(answered);
    }

    /// Takes the next records of `purchase-attempts`.
    pub fn take_commands(&self, records: Vec<(Offset, Option<Pending>)>) {
        let now = Instant::now();
        let mut state = self.state.lock();
        for (offset, body) in records {
            state.queue.push(offset, now, body);
        }
    }
}

/// What the queue keeps of a command.
pub(super) fn pending(command: Command) -> Option<Pending> {
    let kind = command.body.kind();
    let (buyer, attempt) = match command.body {
        CommandBody::PlaceAttempt(place) => {
            return Some(Pending::Attempt(PendingAttempt {
                id: place.attempt_id,
                product: command.product_id,
                quantity: place.quantity,
            }));
        }
        CommandBody::CancelOrder(cancel) => (Some(cancel.buyer_id), Some(cancel.attempt_id)),
        _ => (None, None),
    };
    Some(Pending::Command(Box::new(PendingCommand {
        kind: kind?,
        product: command.product_id,
        buyer,
        attempt,
    })))
}
