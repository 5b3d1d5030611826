//! Requests that wait for an offset to be decided: how many may, and for how long.

use std::time::Duration;

use runtime::metrics::WAITERS;
use schemas::ids::{Offset, Position};
use tokio::sync::SemaphorePermit;
use tokio::time::{Instant, timeout_at};

use super::partition::LivePartition;
use super::watermark::Watermark;
use super::{Live, LiveError};

/// The longest a read waits for the position it must not be older than.
const AT_LEAST_WAIT: Duration = Duration::from_secs(10);

/// A waiting request, counted until it is dropped.
pub(super) struct Waiter<'a>(#[expect(dead_code, reason = "held, not read")] SemaphorePermit<'a>);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        metrics::gauge!(WAITERS).decrement(1.0);
    }
}

impl Live {
    /// Waits until the live answers include the decision on this position, at most
    /// [`AT_LEAST_WAIT`].
    pub async fn reach(&self, at_least: Position) -> Result<(), LiveError> {
        self.reach_watermark(at_least, |partition| &partition.answered)
            .await
    }

    /// Waits until the read store includes the decision on this position, at most
    /// [`AT_LEAST_WAIT`].
    pub async fn reach_in_store(&self, at_least: Position) -> Result<(), LiveError> {
        self.reach_watermark(at_least, |partition| &partition.stored)
            .await
    }

    async fn reach_watermark(
        &self,
        at_least: Position,
        watermark: impl Fn(&LivePartition) -> &Watermark,
    ) -> Result<(), LiveError> {
        let watermark = watermark(self.partition(at_least.partition)?);
        let until = Instant::now() + AT_LEAST_WAIT;
        match self.wait_for(watermark, at_least.offset, until).await? {
            true => Ok(()),
            false => Err(LiveError::NotCaughtUp),
        }
    }

    /// Waits for a watermark to reach an offset; false when it has not in time.
    pub(super) async fn wait_for(
        &self,
        watermark: &Watermark,
        offset: Offset,
        until: Instant,
    ) -> Result<bool, LiveError> {
        if watermark.at() >= offset {
            return Ok(true);
        }
        let _waiter = self.waiter()?;
        Ok(timeout_at(until, watermark.reach(offset)).await.is_ok())
    }

    pub(super) fn waiter(&self) -> Result<Waiter<'_>, LiveError> {
        let permit = self
            .waiters
            .try_acquire()
            .map_err(|_| LiveError::TooManyWaiters)?;
        metrics::gauge!(WAITERS).increment(1.0);
        Ok(Waiter(permit))
    }
}
