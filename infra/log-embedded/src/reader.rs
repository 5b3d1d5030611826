//! Reading: the latest records from memory, older ones from the segments.

use std::collections::VecDeque;
use std::sync::Arc;

use async_trait::async_trait;
use ports::event_log::{LogReader, LogRecord, ReadError};
use schemas::ids::TimestampMs;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_blocking};

use crate::Shared;
use crate::format::{self, Batch, Block};
use crate::segment::{FIRST, Place, SegmentReader};
use crate::tail::{End, Records};

/// About the most bytes that one call returns.
const MAX_BYTES: usize = 1 << 20;
/// The most records that one call returns.
const MAX_RECORDS: usize = 10_000;
/// Bytes read at once from a segment.
const WINDOW_BYTES: usize = 64 << 10;

/// A place in a partition that moves on as it is read.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    slot: usize,
    /// The next offset to return.
    next: i64,
    end: watch::Receiver<End>,
    /// What has been fetched and not yet returned, from `next` on, and how far into the first.
    fetched: VecDeque<Records>,
    /// The offset and the byte at which the first of those is to be continued; none when it
    /// has not been begun.
    within: Option<(i64, usize)>,
    /// A walk through the segments under way. It is kept here, so that a call given up while
    /// it waits loses neither records nor the work done.
    walking: Option<JoinHandle<Walked>>,
}

type Walked = Result<VecDeque<Records>, ReadError>;

impl Reader {
    pub(crate) fn new(shared: Arc<Shared>, slot: usize, from: i64) -> Self {
        let end = shared.tails[slot].end();
        Self {
            shared,
            slot,
            next: from.max(0),
            end,
            fetched: VecDeque::new(),
            within: None,
            walking: None,
        }
    }

    /// Fetches blocks that begin with the one that holds the next offset; all are durable.
    async fn fetch(&mut self, end: i64) -> Result<(), ReadError> {
        if self.walking.is_none() {
            let tail = &self.shared.tails[self.slot];
            if let Some(blocks) = tail.recent(self.next, end, MAX_BYTES) {
                self.fetched = blocks;
                return Ok(());
            }
            let (shared, slot, next) = (self.shared.clone(), self.slot, self.next);
            // In a thread of its own, since the disk may take long over old segments.
            self.walking = Some(spawn_blocking(move || walk(&shared, slot, next, end)));
        }
        let Some(walking) = &mut self.walking else {
            return Ok(());
        };
        let walked = walking.await;
        self.walking = None;
        let given_up = |error| ReadError::Unavailable(format!("reading was given up: {error}"));
        self.fetched = walked.map_err(given_up)??;
        Ok(())
    }

    /// Takes records from what was fetched.
    fn take(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        let mut records = Vec::new();
        let mut bytes = 0;
        while let Some(block) = self.fetched.front() {
            let (mut offset, mut at) = self.within.take().unwrap_or((block.base, 0));
            while offset < block.end() && records.len() < MAX_RECORDS && bytes < MAX_BYTES {
                let from = at;
                let record =
                    format::parse_record(&block.bytes, &mut at, offset, block.appended_at_ms);
                let record = record.ok_or_else(|| {
                    ReadError::Damaged(format!("offset {offset} is not as it was written"))
                })?;
                if offset >= self.next {
                    bytes += at - from;
                    records.push(record);
                }
                offset += 1;
            }
            if offset < block.end() {
                self.within = Some((offset, at));
                break;
            }
            self.fetched.pop_front();
        }
        if let Some(last) = records.last() {
            self.next = last.offset.0 + 1;
        }
        Ok(records)
    }
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        loop {
            if !self.fetched.is_empty() {
                let records = self.take()?;
                if !records.is_empty() {
                    return Ok(records);
                }
            }
            let end = *self.end.borrow_and_update();
            if self.next < end.next {
                self.fetch(end.next).await?;
            } else if end.closed {
                return Err(ReadError::Closed);
            } else {
                self.end.changed().await.map_err(|_| ReadError::Closed)?;
            }
        }
    }
}

/// Reads blocks from the segments: from the one with offset `next` on, up to `end` at most.
fn walk(shared: &Shared, slot: usize, mut next: i64, end: i64) -> Walked {
    let mut walk = Walk::new(shared, slot);
    let mut blocks = VecDeque::new();
    let mut bytes = 0;
    while next < end && bytes < MAX_BYTES {
        let records = walk.records(next)?;
        bytes += records.bytes.len();
        next = records.end();
        blocks.push_back(records);
    }
    Ok(blocks)
}

/// The offset of the first block of a time or later, looked for in the segments; `end` when
/// there is none before it.
pub(crate) fn find_time(
    shared: &Shared,
    slot: usize,
    time: TimestampMs,
    end: i64,
) -> Result<i64, ReadError> {
    let mut walk = Walk::new(shared, slot);
    let mut next = shared.tails[slot].offset_before(time);
    while next < end {
        let (_, block) = walk.block(next)?;
        if block.appended_at_ms >= time {
            return Ok(block.base);
        }
        next = block.end();
    }
    Ok(end)
}

/// A walk from batch to batch, looking for one topic's partition. It only ever goes where
/// durable batches are, so whatever else it finds is damage.
struct Walk<'a> {
    shared: &'a Shared,
    slot: usize,
    reader: Option<SegmentReader>,
    /// Where the next batch stands, or the segment before it ends.
    place: Place,
    /// The sequence and checksum of the batch before; none after a leap.
    previous: Option<(u64, u32)>,
}

impl<'a> Walk<'a> {
    fn new(shared: &'a Shared, slot: usize) -> Self {
        let place = Place {
            segment: 0,
            position: 0,
        };
        Self {
            shared,
            slot,
            reader: None,
            place,
            previous: None,
        }
    }

    /// The block that holds a durable offset, which is never lower than the last one asked for.
    fn records(&mut self, offset: i64) -> Result<Records, ReadError> {
        let (place, block) = self.block(offset)?;
        let records = self.reader()?.block(place.position, &block);
        let records = records.map_err(|fault| self.shared.read_fault(place, fault))?;
        Ok(Records::new(&block, records))
    }

    /// Where the batch stands that brought a durable offset, and the block that holds it.
    fn block(&mut self, offset: i64) -> Result<(Place, Block), ReadError> {
        let indexed = self.shared.tails[self.slot].place_of(offset);
        if let Some(indexed) = indexed.filter(|indexed| *indexed > self.place) {
            self.leap(indexed);
        }
        loop {
            let (place, batch) = self.step()?;
            let block = batch.blocks.iter().find(|block| block.slot == self.slot);
            match block {
                Some(block) if block.base > offset => {
                    return Err(self
                        .shared
                        .damaged(place, "records before these are missing"));
                }
                Some(block) if block.end() > offset => return Ok((place, *block)),
                _ => {}
            }
        }
    }

    /// Reads the next batch's head and goes on behind the batch.
    fn step(&mut self) -> Result<(Place, Batch), ReadError> {
        let mut found = self.batch_here()?;
        if found.is_none() {
            let previous = self.previous;
            self.leap(Place {
                segment: self.place.segment + 1,
                position: FIRST,
            });
            self.previous = previous;
            found = self.batch_here()?;
        }
        let (shared, place) = (self.shared, self.place);
        let batch = found.ok_or_else(|| shared.damaged(place, "zeros stand where a batch was"))?;
        let follows = self.previous.is_none_or(|(sequence, checksum)| {
            batch.sequence == sequence + 1 && batch.previous == checksum
        });
        if !follows {
            return Err(shared.damaged(place, "the batch does not follow the one before it"));
        }
        self.previous = Some((batch.sequence, batch.checksum));
        self.place.position += u64::from(batch.bytes);
        Ok((place, batch))
    }

    fn batch_here(&mut self) -> Result<Option<Batch>, ReadError> {
        let place = self.place;
        let found = self.reader()?.batch_at(place.position);
        found.map_err(|fault| self.shared.read_fault(place, fault))
    }

    fn leap(&mut self, place: Place) {
        if place.segment != self.place.segment {
            self.reader = None;
        }
        self.place = place;
        self.previous = None;
    }

    /// The segment at hand, opened when it is not.
    fn reader(&mut self) -> Result<&mut SegmentReader, ReadError> {
        let (shared, number) = (self.shared, self.place.segment);
        match &mut self.reader {
            Some(reader) => Ok(reader),
            none => {
                let start = Place {
                    segment: number,
                    position: 0,
                };
                let reader = SegmentReader::open(&*shared.files, shared.meta, number, WINDOW_BYTES);
                let mut reader = reader.map_err(|error| shared.read_fault(start, error.into()))?;
                reader
                    .check_header()
                    .map_err(|fault| shared.read_fault(start, fault))?;
                Ok(none.insert(reader))
            }
        }
    }
}
