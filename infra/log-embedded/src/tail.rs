//! The state of one topic's partition in memory: its end, a sparse index of the segments, and a cache
//! of its latest blocks, so that readers at the tail never read the disk.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use schemas::ids::TimestampMs;
use tokio::sync::watch;

use crate::format::Block;
use crate::segment::Address;

/// The distance of two index entries in bytes of the log, divided by the number of all topics'
/// partitions. So all indexes have at most 24 bytes for every 8 KiB of the log.
const INDEX_EVERY_BYTES: u64 = 8 << 10;

/// The memory of a cached block beside its records, roughly.
const BLOCK_OVERHEAD_BYTES: usize = 128;

/// A block of durable records of one topic and partition.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    /// The offset of the first.
    pub base: i64,
    pub count: u32,
    pub appended_at_ms: TimestampMs,
    /// The encoded records.
    pub bytes: Bytes,
}

impl Records {
    pub(crate) fn new(block: &Block, bytes: Bytes) -> Self {
        let Block {
            base,
            count,
            appended_at_ms,
            ..
        } = *block;
        Self {
            base,
            count,
            appended_at_ms,
            bytes,
        }
    }

    fn memory_bytes(&self) -> usize {
        self.bytes.len() + BLOCK_OVERHEAD_BYTES
    }

    /// The offset after the last.
    pub(crate) fn end(&self) -> i64 {
        self.base + i64::from(self.count)
    }
}

/// The end of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// The offset of the next record; all records below it are durable.
    pub next: i64,
    /// Whether no more records will come.
    pub closed: bool,
}

/// One topic's partition.
pub(crate) struct Tail {
    /// The least number of the log's bytes between two index entries.
    index_every_bytes: u64,
    state: Mutex<State>,
    end: watch::Sender<End>,
}

#[derive(Default)]
struct State {
    /// The offset of the next block.
    next: i64,
    /// The least time of the next block.
    last_time_ms: TimestampMs,
    /// The offsets at which the log's time was corrected, and the times that it was set back to. Only
    /// those before which this partition's time was ahead.
    corrections: Vec<(i64, TimestampMs)>,
    index: Vec<Entry>,
    /// The number of the log's bytes before the batch of the last index entry.
    indexed_at: u64,
    cache: VecDeque<Records>,
    cached_bytes: usize,
}

/// A block's first offset and time, and the address of its batch.
#[derive(Clone, Copy)]
struct Entry {
    base: i64,
    appended_at_ms: TimestampMs,
    segment: u32,
    /// Segments are smaller than 4 GiB.
    position: u32,
}

impl State {
    /// The time of a block for a search by time: its own, or if it is earlier, that which the log's
    /// time was set back to after it. So these times never fall.
    fn search_time(&self, base: i64, appended_at_ms: TimestampMs) -> TimestampMs {
        let after = self.corrections.iter().rev();
        let after = after.take_while(|(offset, _)| base < *offset);
        after.fold(appended_at_ms, |time, (_, to_ms)| time.min(*to_ms))
    }
}

impl Entry {
    fn address(self) -> Address {
        Address {
            segment: self.segment,
            position: u64::from(self.position),
        }
    }
}

impl Tail {
    /// An empty partition of a log that has this many of them in all topics.
    pub(crate) fn new(slots: usize) -> Self {
        let end = watch::Sender::new(End {
            next: 0,
            closed: false,
        });
        Self {
            index_every_bytes: INDEX_EVERY_BYTES * slots as u64,
            state: Mutex::default(),
            end,
        }
    }

    /// The offset of the next record, and its time: `now_ms`, or the last record's time if that is
    /// later.
    pub(crate) fn next(&self, now_ms: TimestampMs) -> (i64, TimestampMs) {
        let state = self.state.lock();
        (state.next, state.last_time_ms.max(now_ms))
    }

    /// The time of the last block; none before the first.
    pub(crate) fn last_time(&self) -> Option<TimestampMs> {
        let state = self.state.lock();
        (state.next > 0).then_some(state.last_time_ms)
    }

    /// Sets the time back to `to_ms`, if it is ahead of that. The next block may have that time.
    pub(crate) fn correct_time(&self, to_ms: TimestampMs) {
        let mut state = self.state.lock();
        if state.last_time_ms > to_ms {
            state.last_time_ms = to_ms;
            let next = state.next;
            state.corrections.push((next, to_ms));
        }
    }

    /// Registers a block on disk in the batch at `address`, with `log_bytes` bytes of the log before
    /// it. It becomes visible to readers with [`Tail::publish`].
    pub(crate) fn note(&self, block: &Block, address: Address, log_bytes: u64) {
        let mut state = self.state.lock();
        state.next = block.end();
        state.last_time_ms = block.appended_at_ms;
        if state.index.is_empty() || log_bytes >= state.indexed_at + self.index_every_bytes {
            state.indexed_at = log_bytes;
            state.index.push(Entry {
                base: block.base,
                appended_at_ms: block.appended_at_ms,
                segment: address.segment,
                position: address.position as u32,
            });
        }
    }

    /// Caches the block that was registered last, with at most this many bytes in the cache.
    pub(crate) fn cache(&self, records: Records, at_most_bytes: usize) {
        let mut state = self.state.lock();
        state.cached_bytes += records.memory_bytes();
        state.cache.push_back(records);
        while state.cached_bytes > at_most_bytes {
            let Some(oldest) = state.cache.pop_front() else {
                break;
            };
            state.cached_bytes -= oldest.memory_bytes();
        }
    }

    /// Makes all registered blocks visible to readers.
    pub(crate) fn publish(&self) {
        let next = self.state.lock().next;
        self.end.send_modify(|end| end.next = next);
    }

    /// Signals to readers that no more records will come.
    pub(crate) fn close(&self) {
        self.end.send_modify(|end| end.closed = true);
    }

    /// The end, now and as it changes.
    pub(crate) fn end(&self) -> watch::Receiver<End> {
        self.end.subscribe()
    }

    /// The offset of the next record; all records below it are durable.
    pub(crate) fn durable_end(&self) -> i64 {
        self.end.borrow().next
    }

    /// Cached blocks from the one with this offset on, about as many bytes as requested; none when
    /// that block is no longer cached.
    pub(crate) fn cached(
        &self,
        offset: i64,
        before: i64,
        bytes: usize,
    ) -> Option<VecDeque<Records>> {
        let state = self.state.lock();
        if state.cache.front()?.base > offset {
            return None;
        }
        let first = state
            .cache
            .partition_point(|records| records.end() <= offset);
        let mut left = bytes;
        let blocks = state.cache.range(first..).take_while(|records| {
            let wanted = left > 0 && records.base < before;
            left = left.saturating_sub(records.bytes.len());
            wanted
        });
        Some(blocks.cloned().collect())
    }

    /// An address at which a search for the block with this offset can start: the block is there, or
    /// after it by less than the distance of two index entries.
    pub(crate) fn address_of(&self, offset: i64) -> Option<Address> {
        let state = self.state.lock();
        let after = state.index.partition_point(|entry| entry.base <= offset);
        state
            .index
            .get(after.checked_sub(1)?)
            .map(|entry| entry.address())
    }

    /// An offset at which a search for the first block of this time or later can start.
    pub(crate) fn offset_before(&self, time: TimestampMs) -> i64 {
        let state = self.state.lock();
        let not_before = state
            .index
            .partition_point(|entry| state.search_time(entry.base, entry.appended_at_ms) < time);
        state
            .index
            .get(not_before.saturating_sub(1))
            .map_or(0, |entry| entry.base)
    }

    /// The offset of the first block of this time or later, or the end if there is none yet; none when
    /// the cache does not reach back far enough.
    pub(crate) fn cached_at(&self, time: TimestampMs) -> Option<i64> {
        let state = self.state.lock();
        if state.index.is_empty() || state.last_time_ms < time {
            return Some(state.next);
        }
        let first = state.cache.front()?;
        let is_before =
            |records: &Records| state.search_time(records.base, records.appended_at_ms) < time;
        if !is_before(first) && first.base > 0 {
            return None;
        }
        let at = state.cache.partition_point(is_before);
        state.cache.get(at).map(|records| records.base)
    }

    /// The time of a block for a search by time. These times never fall.
    pub(crate) fn search_time(&self, block: &Block) -> TimestampMs {
        let state = self.state.lock();
        state.search_time(block.base, block.appended_at_ms)
    }
}
