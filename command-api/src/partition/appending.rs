//! Decisions on their way into the log.

use std::collections::VecDeque;

use futures::future::BoxFuture;
use ports::{AppendError, NewRecord};
use schemas::ids::Offset;

use super::PartitionLog;

/// The most decisions waiting to be appended; at that, no more commands are read.
const MAX_PENDING: usize = 4_000;
/// The most bytes of decisions in one append.
const MAX_APPEND_BYTES: usize = 1_000_000;

/// Appends decisions in their order, one append at a time: decisions made meanwhile share the
/// next append, and none is in flight behind one that failed.
#[derive(Default)]
pub(super) struct Appender {
    /// Decisions not yet passed to the log.
    pending: VecDeque<NewRecord>,
    pub(super) in_flight: Option<BoxFuture<'static, Result<Offset, AppendError>>>,
}

impl Appender {
    pub(super) fn push(&mut self, record: NewRecord) {
        self.pending.push_back(record);
    }

    pub(super) fn has_room(&self) -> bool {
        self.pending.len() < MAX_PENDING
    }

    /// Begins the next append, if none is in flight and decisions are pending.
    pub(super) fn append_pending(&mut self, log: &PartitionLog) {
        if self.in_flight.is_some() || self.pending.is_empty() {
            return;
        }
        let mut bytes = 0;
        let fits = self.pending.iter().take_while(|record| {
            bytes += record.value.len();
            bytes <= MAX_APPEND_BYTES
        });
        let count = fits.count().max(1);
        let records = self.pending.drain(..count).collect();
        self.in_flight = Some(log.append(log.topics.decisions, records));
    }

    /// Appends everything that is pending.
    pub(super) async fn finish(&mut self, log: &PartitionLog) -> Result<(), AppendError> {
        while self.in_flight.is_some() || !self.pending.is_empty() {
            self.append_pending(log);
            if let Some(in_flight) = self.in_flight.take() {
                in_flight.await?;
            }
        }
        Ok(())
    }
}
