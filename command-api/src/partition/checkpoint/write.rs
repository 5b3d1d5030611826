//! Writing a checkpoint.

use std::collections::VecDeque;

use bytes::Bytes;
use ports::{AppendError, NewRecord};
use runtime::metrics::CHECKPOINTS;
use schemas::ids::Offset;
use schemas::snapshot::{ProductPart, SnapshotRecord};
use tracing::{info, warn};

use super::{Checkpoint, NONE, first_of};
use crate::partition::PartitionLog;
use crate::partition::appending::next_batch;

/// The most records of a checkpoint that are appended at a time.
const APPEND_AT_ONCE: usize = 8;

/// Appends a checkpoint to the log.
pub(crate) struct CheckpointWriter {
    log: PartitionLog,
    /// What all records of the checkpoint have in common.
    stamp: SnapshotRecord,
    parts: Vec<ProductPart>,
}

impl CheckpointWriter {
    /// A checkpoint of these parts, all of whose decisions have been read back.
    pub(crate) fn new(log: PartitionLog, reached: Checkpoint, parts: Vec<ProductPart>) -> Self {
        Self {
            log,
            stamp: SnapshotRecord {
                covers: reached.covers,
                claim: reached.fence.claim,
                answered: reached.fence.answered,
                previous: reached.completed_at,
                first: NONE,
                part: None,
                log: reached.log,
            },
            parts,
        }
    }

    /// Appends the checkpoint; returns the offset of the record that completes it.
    pub(crate) async fn write(mut self) -> Result<Offset, AppendError> {
        let parts = std::mem::take(&mut self.parts);
        let count = parts.len();
        let mut parts = parts.into_iter();
        // The first record alone, since all others name its offset.
        let first: Vec<NewRecord> = parts
            .by_ref()
            .take(1)
            .map(|part| self.record(part))
            .collect();
        if !first.is_empty() {
            self.stamp.first = self.append(first).await?;
        }
        let mut encoded = VecDeque::new();
        loop {
            let missing = APPEND_AT_ONCE - encoded.len();
            encoded.extend(parts.by_ref().take(missing).map(|part| self.record(part)));
            if encoded.is_empty() {
                break;
            }
            self.append(next_batch(&mut encoded)).await?;
        }
        let completion = NewRecord {
            value: Bytes::from(self.log.codec.encode_snapshot(&self.stamp)),
            ..NewRecord::default()
        };
        let completed = self.append(vec![completion]).await?;
        let first = first_of(completed, &self.stamp);
        // Older checkpoints are of no use any more; if they stay, they only take up room.
        let (topic, partition) = (self.log.topics.snapshots, self.log.partition);
        if let Err(error) = self.log.log.forget(topic, partition, first).await {
            warn!(%partition, %error, "older checkpoints were not dropped");
        }
        metrics::counter!(CHECKPOINTS, &[("partition", partition.to_string())]).increment(1);
        info!(%partition, covers = %self.stamp.covers, records = count + 1, "wrote a checkpoint");
        Ok(completed)
    }

    fn record(&self, part: ProductPart) -> NewRecord {
        let key = Bytes::copy_from_slice(part.product_id.as_str().as_bytes());
        let record = SnapshotRecord {
            part: Some(part),
            ..self.stamp.clone()
        };
        let value = Bytes::from(self.log.codec.encode_snapshot(&record));
        NewRecord {
            key,
            value,
            headers: vec![],
        }
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Offset, AppendError> {
        self.log.append(self.log.topics.snapshots, records).await
    }
}
