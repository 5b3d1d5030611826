//! Records on their way into the log: in batches that fit into any queue, one after the other, and
//! again and again while the log takes none.

use std::collections::VecDeque;
use std::time::Duration;

use futures::future::BoxFuture;
use ports::{AppendError, NewRecord};
use schemas::ids::Offset;
use schemas::topics::Topic;
use tracing::{debug, info};

use super::PartitionLog;

/// The most decisions waiting to be appended; at that, no more commands are read.
const MAX_PENDING: usize = 4_000;
/// The most bytes in one append: a quarter of the smallest queue that the settings allow, because
/// all partitions and the HTTP API share it. A record that is larger is appended alone: it fits as
/// well, since the log takes no value above 900,000 bytes.
const MAX_APPEND_BYTES: usize = 256 << 10;
/// What a log may add to the bytes of a record, and to those of each header.
const OVERHEAD_BYTES: usize = 64;
/// The pause after the log took no records; twice as long each further time.
const RETRY_AFTER: Duration = Duration::from_millis(2);
/// The longest such pause.
const MAX_RETRY_AFTER: Duration = Duration::from_millis(100);
/// How long a decider that stops waits for its last appends. It is less than the grace in which a
/// process closes, and than a group waits for a member that hands over a partition.
const FINISH_WITHIN: Duration = Duration::from_secs(3);

/// Appends records. While the queue is full or the log cannot be reached, waits and tries the same
/// append again: nothing was appended, so the state of the caller is still what the log says.
pub(super) async fn append_when_there_is_room(
    log: &PartitionLog,
    topic: Topic,
    records: Vec<NewRecord>,
) -> Result<Offset, AppendError> {
    let mut waiting = None;
    let mut pause = RETRY_AFTER;
    loop {
        match log.log.append(topic, log.partition, records.clone()).await {
            Err(error @ (AppendError::Full | AppendError::Unavailable(_))) => {
                if waiting.is_none() {
                    debug!(%error, partition = %log.partition, %topic, "waiting until the log takes records");
                    waiting = Some(log.waiting.begin());
                }
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(MAX_RETRY_AFTER);
            }
            appended => return appended,
        }
    }
}

/// Removes as many records from the front as one append takes, at least one.
pub(super) fn next_batch(records: &mut VecDeque<NewRecord>) -> Vec<NewRecord> {
    let mut bytes = 0;
    let fits = records.iter().take_while(|record| {
        bytes += record.bytes() + OVERHEAD_BYTES * (1 + record.headers.len());
        bytes <= MAX_APPEND_BYTES
    });
    let count = fits.count().max(1).min(records.len());
    records.drain(..count).collect()
}

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
        if self.in_flight.is_none() && !self.pending.is_empty() {
            let records = next_batch(&mut self.pending);
            self.in_flight = Some(log.append(log.topics.decisions, records));
        }
    }

    /// Appends everything that is pending, as far as that succeeds in time. The next decider makes
    /// the other decisions again.
    pub(super) async fn finish(&mut self, log: &PartitionLog) -> Result<(), AppendError> {
        let finished = tokio::time::timeout(FINISH_WITHIN, self.append_all(log)).await;
        finished.unwrap_or_else(|_| {
            info!(
                partition = %log.partition,
                "stopped before all decisions were appended; the next decider makes them again"
            );
            Ok(())
        })
    }

    async fn append_all(&mut self, log: &PartitionLog) -> Result<(), AppendError> {
        while self.in_flight.is_some() || !self.pending.is_empty() {
            self.append_pending(log);
            if let Some(in_flight) = self.in_flight.take() {
                in_flight.await?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use ports::event_log::{MAX_HEADER_BYTES, MAX_HEADERS, MAX_KEY_BYTES, MAX_VALUE_BYTES};

    use super::*;

    /// The smallest queue that the settings allow.
    const SMALLEST_QUEUE: usize = 1 << 20;

    fn record(value_bytes: usize) -> NewRecord {
        NewRecord {
            value: Bytes::from(vec![0; value_bytes]),
            ..NewRecord::default()
        }
    }

    #[test]
    fn batches_fit_into_the_smallest_queue_and_keep_the_order() {
        let mut records: VecDeque<_> = (1..2_000).map(|n| record(n % 700)).collect();
        // The largest record that a log takes goes alone.
        let header = (
            "h".repeat(MAX_HEADER_BYTES),
            Bytes::from(vec![0; MAX_HEADER_BYTES]),
        );
        records.insert(
            1_000,
            NewRecord {
                key: Bytes::from(vec![0; MAX_KEY_BYTES]),
                headers: vec![header; MAX_HEADERS],
                ..record(MAX_VALUE_BYTES)
            },
        );
        let all: Vec<_> = records.iter().cloned().collect();
        let mut appended = Vec::new();
        while !records.is_empty() {
            let batch = next_batch(&mut records);
            let bytes: usize = batch.iter().map(NewRecord::bytes).sum();
            assert!(!batch.is_empty());
            assert!(bytes <= SMALLEST_QUEUE / 4 || batch.len() == 1, "{bytes}");
            assert!(
                bytes + OVERHEAD_BYTES * (1 + MAX_HEADERS) <= SMALLEST_QUEUE,
                "{bytes}"
            );
            appended.extend(batch);
        }
        assert_eq!(appended, all);
        assert_eq!(next_batch(&mut records), []);
    }
}
