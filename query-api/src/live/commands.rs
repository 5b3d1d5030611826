//! One command by its position: in memory, in the store, or not yet read by the tails.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ports::read_store::CommandRow;
use schemas::ids::Position;
use tokio::time::{Instant, timeout_at};

use super::partition::LivePartition;
use super::states::CommandState;
use super::{CATCH_UP_WAIT, Live, LiveError, within_store_wait};

impl Live {
    /// The command at a position; waits up to `wait` for its decision. None when there is no such
    /// position, or what is there has no row: an attempt, or the passing of time.
    pub async fn command(
        &self,
        at: Position,
        wait: Duration,
    ) -> Result<Option<CommandState>, LiveError> {
        self.require_started()?;
        let until = Instant::now() + wait;
        let Ok(partition) = self.partition(at.partition) else {
            return Ok(None);
        };
        if !partition.has_read(at.offset) && !self.read_up_to(partition, at, until).await? {
            return Ok(None);
        }
        let mut state = partition.command(at);
        if let Some(CommandState::Queued(_)) = state
            && !wait.is_zero()
        {
            let answered = &partition.answered;
            self.wait_for(answered, at.offset, until).await?;
            state = partition.command(at);
        }
        // A record that is not decided is in memory, or has no row.
        if state.is_some() {
            return Ok(state);
        }
        if partition.is_unreadable(at.offset) {
            return Err(LiveError::NotCaughtUp);
        }
        if partition.answered.at() < at.offset {
            return Ok(None);
        }
        let row = self.command_in_store(partition, at).await?;
        Ok(row.map(CommandState::Decided))
    }

    /// Waits until the record at a position has been read; false when the topic ends before it.
    async fn read_up_to(
        &self,
        partition: &LivePartition,
        at: Position,
        until: Instant,
    ) -> Result<bool, LiveError> {
        let end = self.attempts_end(at.partition, partition).await?;
        if at.offset >= end {
            return Ok(false);
        }
        let _waiter = self.waiter()?;
        let read = async {
            tokio::select! {
                () = partition.queued.reach(at.offset.next()) => {}
                () = partition.answered.reach(at.offset) => {}
            }
        };
        let until = until.max(Instant::now() + CATCH_UP_WAIT);
        match timeout_at(until, read).await {
            Ok(()) => Ok(true),
            Err(_) => Err(LiveError::NotCaughtUp),
        }
    }

    /// What the store has of a decided command. Fails when the store is behind decisions that memory
    /// has already dropped, because an absent row would then mean nothing.
    async fn command_in_store(
        &self,
        partition: &LivePartition,
        at: Position,
    ) -> Result<Option<CommandRow>, LiveError> {
        if !self.store_answers.load(Ordering::Relaxed) {
            return Err(LiveError::Store("the read store does not answer".into()));
        }
        let row = within_store_wait(self.store.command(at)).await?;
        if row.is_none() && partition.has_command_gap() {
            return Err(LiveError::Store("the read store is too far behind".into()));
        }
        Ok(row)
    }
}
