//! Finding and reading the last complete checkpoint.

use ports::{LogReader, LogRecord, ReadError};
use schemas::fence::Fence;
use schemas::ids::Offset;
use schemas::snapshot::{ProductPart, SnapshotRecord};

use super::{Checkpoint, first_of};
use crate::partition::{PartitionError, PartitionLog};

/// Reads the parts of a complete checkpoint.
pub(crate) struct CheckpointReader<'a> {
    /// The offset of the record that completes it.
    completed_at: Offset,
    /// That record.
    last: SnapshotRecord,
    /// The record to look at next, and its offset.
    current: (Offset, SnapshotRecord),
    /// Reads the records after that.
    records: SnapshotReader<'a>,
}

impl CheckpointReader<'_> {
    /// What the checkpoint reaches.
    pub(crate) fn checkpoint(&self) -> Checkpoint {
        Checkpoint {
            covers: self.last.covers,
            fence: Fence {
                claim: self.last.claim,
                answered: self.last.answered,
            },
            completed_at: self.completed_at,
            log: self.last.log,
        }
    }

    /// The next part; none at the end of the checkpoint.
    pub(crate) async fn next_part(&mut self) -> Result<Option<ProductPart>, PartitionError> {
        while self.current.0 < self.completed_at {
            let next = self.records.next().await?;
            let next = next.ok_or_else(|| gone(self.records.log, self.completed_at))?;
            let (_, record) = std::mem::replace(&mut self.current, next);
            // A decider that was superseded may have appended records of another checkpoint in
            // between.
            let of_this = record.covers == self.last.covers && record.claim == self.last.claim;
            if let Some(part) = record.part.filter(|_| of_this) {
                return Ok(Some(part));
            }
        }
        Ok(None)
    }
}

/// The last complete checkpoint of a partition.
pub(crate) async fn find_last(
    log: &PartitionLog,
) -> Result<Option<CheckpointReader<'_>>, PartitionError> {
    let end = log.log.end(log.topics.snapshots, log.partition).await?;
    let mut candidate = Offset(end.0 - 1);
    while candidate.0 >= 0 {
        let Some(((at, record), _)) = read_from(log, candidate, end).await? else {
            return scan_for_last(log, end).await;
        };
        if at != candidate {
            return scan_for_last(log, end).await;
        }
        if record.part.is_none() {
            return match begin_at(log, at, record, end).await? {
                Some(found) => Ok(Some(found)),
                None => scan_for_last(log, end).await,
            };
        }
        // This one was cut off, or is still being written; the one before it is complete.
        candidate = record.previous;
    }
    Ok(None)
}

/// Finds the last complete checkpoint among all records that the log has not dropped. A decider
/// that is being superseded may name a checkpoint that was dropped since, and may complete one
/// whose beginning was dropped.
async fn scan_for_last(
    log: &PartitionLog,
    end: Offset,
) -> Result<Option<CheckpointReader<'_>>, PartitionError> {
    let Some(((mut at, mut record), mut rest)) = read_from(log, Offset(0), end).await? else {
        // All of them were deleted.
        return Ok(None);
    };
    let lowest = at;
    let mut last = None;
    loop {
        if record.part.is_none() && first_of(at, &record) >= lowest {
            last = Some((at, record));
        }
        match rest.next().await? {
            Some(next) => (at, record) = next,
            None => break,
        }
    }
    let Some((at, record)) = last else {
        return Ok(None);
    };
    match begin_at(log, at, record, end).await? {
        Some(found) => Ok(Some(found)),
        None => Err(gone(log, at)),
    }
}

/// The checkpoint was dropped while it was read: another decider has completed a newer one just now.
fn gone(log: &PartitionLog, at: Offset) -> PartitionError {
    let why = format!("the checkpoint at {at} of {} is gone", log.topics.snapshots);
    ReadError::Unavailable(why).into()
}

/// The checkpoint that the record at `offset` completes; none when the log has dropped its
/// beginning.
async fn begin_at(
    log: &PartitionLog,
    offset: Offset,
    last: SnapshotRecord,
    end: Offset,
) -> Result<Option<CheckpointReader<'_>>, PartitionError> {
    let first = first_of(offset, &last);
    let Some((current, records)) = read_from(log, first, end).await? else {
        return Ok(None);
    };
    let is_there = current.0 == first;
    Ok(is_there.then_some(CheckpointReader {
        completed_at: offset,
        last,
        current,
        records,
    }))
}

/// Reads and decodes the records of checkpoints one by one, up to an end.
struct SnapshotReader<'a> {
    log: &'a PartitionLog,
    reader: Box<dyn LogReader>,
    batch: std::vec::IntoIter<LogRecord>,
    /// The lowest offset that the next batch can have.
    next: Offset,
    end: Offset,
}

/// The first record at `from` or later and before `end`, and a reader of those after it; none if there is no
/// such record.
async fn read_from(
    log: &PartitionLog,
    from: Offset,
    end: Offset,
) -> Result<Option<((Offset, SnapshotRecord), SnapshotReader<'_>)>, PartitionError> {
    let mut reader = SnapshotReader {
        log,
        reader: log.read(log.topics.snapshots, from).await?,
        batch: Vec::new().into_iter(),
        next: from,
        end,
    };
    let first = reader.next().await?;
    Ok(first.map(|first| (first, reader)))
}

impl SnapshotReader<'_> {
    async fn next(&mut self) -> Result<Option<(Offset, SnapshotRecord)>, PartitionError> {
        let record = loop {
            match self.batch.next() {
                Some(record) => break record,
                None if self.next >= self.end => return Ok(None),
                None => {
                    let mut batch = self.reader.next_below(self.end).await?;
                    self.next = batch.last().map_or(self.end, |last| last.offset.next());
                    batch.retain(|record| record.offset < self.end);
                    self.batch = batch.into_iter();
                }
            }
        };
        let (topic, offset) = (self.log.topics.snapshots, record.offset);
        let decoded = self.log.codec.decode_snapshot(&record.value);
        let decoded = decoded.map_err(PartitionError::decode(topic, offset))?;
        Ok(Some((offset, decoded)))
    }
}
