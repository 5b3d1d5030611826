//! Checkpoints: all products of a partition as of one place in log 2.

use std::sync::Arc;

use bytes::Bytes;
use domain::snapshot;
use ports::{AppendError, EventLog, LogReader, LogRecord, NewRecord, ReadError};
use runtime::metrics::CHECKPOINTS;
use schemas::codec::Codec;
use schemas::fence::Fence;
use schemas::ids::{Offset, Partition};
use schemas::snapshot::{ProductPart, SnapshotRecord};
use schemas::topics::Topic;
use tracing::{info, warn};

use super::claim::Held;
use super::products::Products;
use super::{CheckpointPolicy, Decider, DeciderError};

/// How many records of a checkpoint are appended at a time.
const APPEND_AT_ONCE: usize = 8;
const NONE: Offset = Offset(-1);

/// What a checkpoint holds; the empty one before there is any.
pub(crate) struct Checkpoint {
    /// All decisions before this offset of log 2 are in.
    pub(crate) covers: Offset,
    /// What counted up to there.
    pub(crate) fence: Fence,
    pub(crate) products: Products,
    /// The record that completes it; -1 when there is none.
    pub(crate) completed_at: Offset,
}

impl CheckpointPolicy {
    /// Whether a checkpoint is due.
    pub(crate) fn is_due(self, since: u64, remembered: usize) -> bool {
        since >= self.min_decisions.max(remembered as u64 / 4)
    }
}

/// The partition's last complete checkpoint. One that this version cannot read, or that lacks a
/// piece, is passed over with a warning: log 2 has everything, it only takes longer.
pub(crate) async fn load(
    decider: &Decider,
    partition: Partition,
) -> Result<Checkpoint, DeciderError> {
    match read_last(decider, partition).await {
        Ok(Some(checkpoint)) => return Ok(checkpoint),
        Ok(None) => {}
        Err(error @ (DeciderError::Decode { .. } | DeciderError::Violation { .. })) => {
            warn!(%partition, %error, "the checkpoint cannot be used; folding all decisions");
        }
        Err(error) => return Err(error),
    }
    Ok(Checkpoint {
        covers: Offset(0),
        fence: Fence::default(),
        products: Products::default(),
        completed_at: NONE,
    })
}

async fn read_last(
    decider: &Decider,
    partition: Partition,
) -> Result<Option<Checkpoint>, DeciderError> {
    let Some(found) = find_last(decider, partition).await? else {
        return Ok(None);
    };
    let Found { offset, last, .. } = found;
    let mut products = Products::default();
    let ((mut at, mut record), mut rest) = found.begins;
    while at < offset {
        // A decider that was superseded may have been writing one of its own in between.
        let of_this = record.covers == last.covers && record.claim == last.claim;
        if let Some(part) = record.part.filter(|_| of_this) {
            let product_id = part.product_id.clone();
            products.change(&product_id, |product| snapshot::restore(product, part));
        }
        (at, record) = rest.next(decider).await?;
    }
    for (_, product) in products.iter() {
        snapshot::check(product).map_err(|violation| DeciderError::Violation {
            topic: Topic::ProductSnapshots,
            offset,
            violation,
        })?;
    }
    let fence = Fence {
        claim: last.claim,
        answered: last.answered,
    };
    info!(%partition, covers = %last.covers, remembered = products.remembered(), "restored a checkpoint");
    Ok(Some(Checkpoint {
        covers: last.covers,
        fence,
        products,
        completed_at: offset,
    }))
}

/// A complete checkpoint.
struct Found {
    /// Where the record is that completes it.
    offset: Offset,
    /// That record.
    last: SnapshotRecord,
    /// Its first record, and what reads on from there.
    begins: ((Offset, SnapshotRecord), SnapshotReader),
}

/// The last complete checkpoint.
async fn find_last(decider: &Decider, partition: Partition) -> Result<Option<Found>, DeciderError> {
    let end = decider.log.end(Topic::ProductSnapshots, partition).await?;
    let mut candidate = Offset(end.0 - 1);
    while candidate.0 >= 0 {
        let ((at, record), _) = read_from(decider, partition, candidate).await?;
        if at != candidate {
            return scan_for_last(decider, partition, end).await;
        }
        if record.part.is_none() {
            return match begin_at(decider, partition, at, record).await? {
                Some(found) => Ok(Some(found)),
                None => scan_for_last(decider, partition, end).await,
            };
        }
        // This one was cut off, or is still being written; the one before it is complete.
        candidate = record.previous;
    }
    Ok(None)
}

/// The same by looking at everything that has not been forgotten. A decider that is being
/// superseded may name a checkpoint that was forgotten since, and may complete one whose
/// beginning was.
async fn scan_for_last(
    decider: &Decider,
    partition: Partition,
    end: Offset,
) -> Result<Option<Found>, DeciderError> {
    let ((mut at, mut record), mut rest) = read_from(decider, partition, Offset(0)).await?;
    let lowest = at;
    let mut last = None;
    loop {
        if record.part.is_none() && first_of(at, &record) >= lowest {
            last = Some((at, record));
        }
        if at.next() >= end {
            break;
        }
        (at, record) = rest.next(decider).await?;
    }
    let Some((at, record)) = last else {
        return Ok(None);
    };
    match begin_at(decider, partition, at, record).await? {
        Some(found) => Ok(Some(found)),
        None => {
            // Another decider has completed a newer one just now.
            let why = format!("the checkpoint at {at} of product-snapshots is gone");
            Err(ReadError::Unavailable(why).into())
        }
    }
}

/// The checkpoint that the record at `offset` completes; none when its beginning was forgotten.
async fn begin_at(
    decider: &Decider,
    partition: Partition,
    offset: Offset,
    last: SnapshotRecord,
) -> Result<Option<Found>, DeciderError> {
    let first = first_of(offset, &last);
    let begins = read_from(decider, partition, first).await?;
    let is_there = begins.0.0 == first;
    Ok(is_there.then_some(Found {
        offset,
        last,
        begins,
    }))
}

/// Where a checkpoint begins that the record at `offset` completes.
fn first_of(offset: Offset, last: &SnapshotRecord) -> Offset {
    match last.first {
        // The first record cannot name itself.
        NONE => offset,
        first => first,
    }
}

/// Reads the records of a checkpoint one by one.
struct SnapshotReader {
    reader: Box<dyn LogReader>,
    read: std::vec::IntoIter<LogRecord>,
}

async fn read_from(
    decider: &Decider,
    partition: Partition,
    from: Offset,
) -> Result<((Offset, SnapshotRecord), SnapshotReader), DeciderError> {
    let reader = decider
        .log
        .read(Topic::ProductSnapshots, partition, from)
        .await?;
    let mut reader = SnapshotReader {
        reader,
        read: Vec::new().into_iter(),
    };
    Ok((reader.next(decider).await?, reader))
}

impl SnapshotReader {
    async fn next(&mut self, decider: &Decider) -> Result<(Offset, SnapshotRecord), DeciderError> {
        let record = loop {
            match self.read.next() {
                Some(record) => break record,
                None => self.read = self.reader.next().await?.into_iter(),
            }
        };
        let (topic, offset) = (Topic::ProductSnapshots, record.offset);
        let decoded = decider.codec.decode_snapshot(&record.value);
        let snapshot = decoded.map_err(|error| DeciderError::Decode {
            topic,
            offset,
            error,
        })?;
        Ok((offset, snapshot))
    }
}

/// A checkpoint on its way to the log.
pub(crate) struct Writing {
    log: Arc<dyn EventLog>,
    codec: Arc<Codec>,
    partition: Partition,
    stamp: SnapshotRecord,
    parts: Vec<ProductPart>,
}

/// Takes the products as they are; all that was decided must have been read back.
pub(crate) fn begin(decider: &Decider, held: &Held, covers: Offset) -> Writing {
    let mut products: Vec<_> = held.products.iter().collect();
    // In order, so that the same products make the same checkpoint, to the byte.
    products.sort_unstable_by_key(|(id, _)| *id);
    let parts = products
        .into_iter()
        .flat_map(|(id, product)| snapshot::parts(id, product));
    Writing {
        log: decider.log.clone(),
        codec: decider.codec.clone(),
        partition: held.partition,
        stamp: SnapshotRecord {
            covers,
            claim: held.fence.claim,
            answered: held.fence.answered,
            previous: held.checkpoint,
            first: NONE,
            part: None,
        },
        parts: parts.collect(),
    }
}

impl Writing {
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
        while parts.len() > 0 {
            let some = parts
                .by_ref()
                .take(APPEND_AT_ONCE)
                .map(|part| self.record(part))
                .collect();
            self.append(some).await?;
        }
        let value = Bytes::from(self.codec.encode_snapshot(&self.stamp));
        let completed = self
            .append(vec![NewRecord {
                value,
                ..NewRecord::default()
            }])
            .await?;
        let first = first_of(completed, &self.stamp);
        // What is before it serves nobody any more. It takes up room if it stays, no more.
        let (topic, partition) = (Topic::ProductSnapshots, self.partition);
        if let Err(error) = self.log.forget(topic, partition, first).await {
            warn!(%partition, %error, "older checkpoints were not forgotten");
        }
        metrics::counter!(CHECKPOINTS, &[("partition", self.partition.to_string())]).increment(1);
        info!(partition = %self.partition, covers = %self.stamp.covers, records = count + 1, "wrote a checkpoint");
        Ok(completed)
    }

    fn record(&self, part: ProductPart) -> NewRecord {
        let key = Bytes::copy_from_slice(part.product_id.as_str().as_bytes());
        let record = SnapshotRecord {
            part: Some(part),
            ..self.stamp.clone()
        };
        let value = Bytes::from(self.codec.encode_snapshot(&record));
        NewRecord {
            key,
            value,
            headers: vec![],
        }
    }

    async fn append(&self, records: Vec<NewRecord>) -> Result<Offset, AppendError> {
        self.log
            .append(Topic::ProductSnapshots, self.partition, records)
            .await
    }
}

/// A checkpoint that is not there is not an error: the next one will be.
pub(crate) fn report_failure(partition: Partition, error: &AppendError) {
    warn!(%partition, %error, "a checkpoint was not written; the next recovery takes longer");
}
