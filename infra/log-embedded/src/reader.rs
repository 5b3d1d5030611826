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
use crate::segment::{Address, FIRST, SegmentReader};
use crate::tail::{End, Records};

/// About the most bytes that one call returns.
const MAX_BYTES: usize = 1 << 20;
/// The most records that one call returns.
const MAX_RECORDS: usize = 10_000;
/// Bytes read at once from a segment.
const WINDOW_BYTES: usize = 64 << 10;

/// A reader of one partition.
pub(crate) struct Reader {
    shared: Arc<Shared>,
    slot: usize,
    /// The next offset to return.
    next: i64,
    end: watch::Receiver<End>,
    /// Fetched blocks that were not returned yet, from `next` on.
    fetched: VecDeque<Records>,
    /// The offset and the byte at which the first fetched block continues; none at its start.
    within: Option<(i64, usize)>,
    /// A walk through the segments that is under way. Kept here, so that a call that is dropped while
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

    /// Fetches durable blocks, beginning with the one that has the next offset.
    async fn fetch(&mut self, end: i64) -> Result<(), ReadError> {
        if self.walking.is_none() {
            let tail = &self.shared.tails[self.slot];
            if let Some(blocks) = tail.cached(self.next, end, MAX_BYTES) {
                self.fetched = blocks;
                return Ok(());
            }
            let (shared, slot, next) = (self.shared.clone(), self.slot, self.next);
            // On a blocking thread, since reading old segments may take long.
            self.walking = Some(spawn_blocking(move || walk(&shared, slot, next, end)));
        }
        let Some(walking) = &mut self.walking else {
            return Ok(());
        };
        let walked = walking.await;
        self.walking = None;
        let aborted = |error| ReadError::Unavailable(format!("reading was aborted: {error}"));
        self.fetched = walked.map_err(aborted)??;
        Ok(())
    }

    /// Takes records from the fetched blocks.
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
                    ReadError::Damaged(format!(
                        "the record at offset {offset} is not as it was written"
                    ))
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

/// Reads blocks from the segments: from the one with offset `next` on, up to `end`.
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

/// Searches the segments for the first block of a time or later and returns its offset; `end` when
/// there is none below it.
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
        if shared.tails[slot].search_time(&block) >= time {
            return Ok(block.base);
        }
        next = block.end();
    }
    Ok(end)
}

/// A walk from batch to batch in search of one topic's partition. It stays within the durable
/// batches, so anything else that it finds is damage.
struct Walk<'a> {
    shared: &'a Shared,
    slot: usize,
    reader: Option<SegmentReader>,
    /// The address of the next batch, or of the end of the segment before it.
    address: Address,
    /// The sequence and checksum of the batch before; none after a jump.
    previous: Option<(u64, u32)>,
}

impl<'a> Walk<'a> {
    fn new(shared: &'a Shared, slot: usize) -> Self {
        let address = Address {
            segment: 0,
            position: 0,
        };
        Self {
            shared,
            slot,
            reader: None,
            address,
            previous: None,
        }
    }

    /// The block with a durable offset, which must not be lower than that of the call before.
    fn records(&mut self, offset: i64) -> Result<Records, ReadError> {
        let (address, block) = self.block(offset)?;
        let records = self.reader()?.block(address.position, &block);
        let records = records.map_err(|fault| self.shared.read_fault(address, fault))?;
        Ok(Records::new(&block, records))
    }

    /// The block with a durable offset, and the address of its batch.
    fn block(&mut self, offset: i64) -> Result<(Address, Block), ReadError> {
        let indexed = self.shared.tails[self.slot].address_of(offset);
        if let Some(indexed) = indexed.filter(|indexed| *indexed > self.address) {
            self.jump(indexed);
        }
        loop {
            let (address, batch) = self.step()?;
            let block = batch.blocks.iter().find(|block| block.slot == self.slot);
            match block {
                Some(block) if block.base > offset => {
                    return Err(self
                        .shared
                        .damaged(address, "records before these are missing"));
                }
                Some(block) if block.end() > offset => return Ok((address, *block)),
                _ => {}
            }
        }
    }

    /// Reads the next batch's head and moves past the batch.
    fn step(&mut self) -> Result<(Address, Batch), ReadError> {
        let mut found = self.batch_here()?;
        if found.is_none() {
            let previous = self.previous;
            self.jump(Address {
                segment: self.address.segment + 1,
                position: FIRST,
            });
            self.previous = previous;
            found = self.batch_here()?;
        }
        let (shared, address) = (self.shared, self.address);
        let batch =
            found.ok_or_else(|| shared.damaged(address, "there are zeros in place of a batch"))?;
        let follows = self.previous.is_none_or(|(sequence, checksum)| {
            batch.sequence == sequence + 1 && batch.previous == checksum
        });
        if !follows {
            return Err(shared.damaged(address, "the batch does not follow the one before it"));
        }
        self.previous = Some((batch.sequence, batch.checksum));
        self.address.position += u64::from(batch.bytes);
        Ok((address, batch))
    }

    fn batch_here(&mut self) -> Result<Option<Batch>, ReadError> {
        let address = self.address;
        let found = self.reader()?.batch_at(address.position);
        found.map_err(|fault| self.shared.read_fault(address, fault))
    }

    fn jump(&mut self, address: Address) {
        if address.segment != self.address.segment {
            self.reader = None;
        }
        self.address = address;
        self.previous = None;
    }

    /// The reader of the current segment; opens it if need be.
    fn reader(&mut self) -> Result<&mut SegmentReader, ReadError> {
        let (shared, number) = (self.shared, self.address.segment);
        match &mut self.reader {
            Some(reader) => Ok(reader),
            none => {
                let start = Address {
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
