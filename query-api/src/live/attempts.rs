//! One attempt by its id: in memory, in the store, or not yet read by the tails.

use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use ports::read_store::AttemptRow;
use schemas::ids::{AttemptId, Offset, Partition, Position};
use tokio::time::{Instant, timeout_at};

use super::partition::LivePartition;
use super::states::{AttemptState, QueuedAttempt};
use super::{CATCH_UP_WAIT, Live, LiveError, within_store_wait};

impl Live {
    /// The request for an attempt at a position while that is queued; waits up to `wait` for its
    /// decision. None when it is not, or no longer, in the queue.
    pub async fn queued_attempt(
        &self,
        id: AttemptId,
        at: Position,
        wait: Duration,
    ) -> Result<Option<QueuedAttempt>, LiveError> {
        let partition = self.partition(at.partition)?;
        if partition.queued_attempt(id, at).is_some() && !wait.is_zero() {
            let until = Instant::now() + wait;
            self.wait_for(&partition.answered, at.offset, until).await?;
        }
        Ok(partition.queued_attempt(id, at))
    }

    /// An attempt; waits up to `wait` for its decision. None when no such attempt was made
    /// before the question came.
    pub async fn attempt(
        &self,
        id: AttemptId,
        wait: Duration,
    ) -> Result<Option<AttemptState>, LiveError> {
        self.require_started()?;
        let until = Instant::now() + wait;
        let mut state = self.attempt_in_memory(id);
        if state.is_none() {
            // Decided long ago, or so new that the tails have not read it.
            let evicted = self.evicted();
            let in_store = self.attempt_in_store(id).await;
            if let Ok(Some(row)) = in_store {
                return Ok(Some(AttemptState::Decided(row)));
            }
            state = self.attempt_when_caught_up(id, until).await?;
            // What was decided since is still in memory, so the store need not be searched again.
            if state.is_none() && in_store.is_ok() && self.evicted() == evicted {
                return Ok(None);
            }
        }
        if let Some(AttemptState::Queued(attempt)) = &state
            && !wait.is_zero()
        {
            let Position { partition, offset } = attempt.position;
            let answered = &self.partition(partition)?.answered;
            self.wait_for(answered, offset, until).await?;
            state = self.attempt_in_memory(id);
        }
        if let Some(AttemptState::Decided(_)) = state {
            return Ok(state);
        }
        // An attempt that was sent again is in the queue although the store has its first answer.
        match (self.attempt_in_store(id).await, state) {
            (Ok(Some(row)), _) => Ok(Some(AttemptState::Decided(row))),
            (_, Some(queued)) => Ok(Some(queued)),
            (Ok(None), None) => Ok(None),
            (Err(error), None) => Err(error),
        }
    }

    /// How far each partition has evicted attempts from memory.
    fn evicted(&self) -> Vec<Offset> {
        self.partitions.iter().map(LivePartition::evicted).collect()
    }

    fn attempt_in_memory(&self, id: AttemptId) -> Option<AttemptState> {
        (0..)
            .zip(&self.partitions)
            .find_map(|(n, partition)| partition.attempt(Partition(n), id))
    }

    /// What memory has of an attempt once the queues have reached the current ends of
    /// `purchase-attempts`. Each partition is searched as soon as its queue is that far. Fails when the
    /// attempt may be in a record that is unreadable.
    async fn attempt_when_caught_up(
        &self,
        id: AttemptId,
        until: Instant,
    ) -> Result<Option<AttemptState>, LiveError> {
        let searches = (0..)
            .map(Partition)
            .zip(&self.partitions)
            .map(async |(n, partition)| {
                let end = self.attempts_end(n, partition).await?;
                partition.queued.reach(end).await;
                // In this order: what is decided in between is found.
                let has_unreadable = partition.has_unreadable();
                match partition.attempt(n, id) {
                    None if has_unreadable => Err(LiveError::NotCaughtUp),
                    found => Ok(found),
                }
            });
        let mut searches: FuturesUnordered<_> = searches.collect();
        let search = async {
            let mut result = Ok(None);
            while let Some(found) = searches.next().await {
                match found {
                    Ok(Some(_)) => return found,
                    Err(_) => result = found,
                    Ok(None) => {}
                }
            }
            result
        };
        let _waiter = self.waiter()?;
        let until = until.max(Instant::now() + CATCH_UP_WAIT);
        timeout_at(until, search)
            .await
            .unwrap_or(Err(LiveError::NotCaughtUp))
    }

    /// What the store has of an attempt.
    ///
    /// Fails when the store is behind decisions that memory has already dropped, because an
    /// absent row would then mean nothing. Fails at once when the store does not answer: memory
    /// may be about to have the attempt, and waiting for the store would delay that answer.
    async fn attempt_in_store(&self, id: AttemptId) -> Result<Option<AttemptRow>, LiveError> {
        if !self.store_answers.load(Ordering::Relaxed) {
            return Err(LiveError::Store("the read store does not answer".into()));
        }
        let row = within_store_wait(self.store.attempt(id)).await?;
        let may_hold_it = |n: usize| {
            row.as_ref()
                .is_none_or(|row| row.position.partition.0 as usize == n)
        };
        let behind = self
            .partitions
            .iter()
            .enumerate()
            .any(|(n, partition)| may_hold_it(n) && partition.has_gap());
        match behind {
            true => Err(LiveError::Store("the read store is too far behind".into())),
            false => Ok(row),
        }
    }
}
