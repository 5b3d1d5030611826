//! What is held in memory of one topic's partition: where it ends, a sparse index of what is
//! on disk, and its latest blocks, so that whoever reads along never touches the disk.

use std::collections::VecDeque;

use bytes::Bytes;
use parking_lot::Mutex;
use schemas::ids::TimestampMs;
use tokio::sync::watch;

use crate::format::Block;
use crate::segment::Place;

/// An index has at most one entry in so many bytes of the log, times the number of all topics'
/// partitions. So all indexes together hold at most 24 bytes for every 8 KiB of the log.
const INDEX_EVERY_BYTES: u64 = 8 << 10;

/// What a block at hand takes beside its records, roughly.
const BLOCK_OVERHEAD_BYTES: usize = 128;

/// Durable records of one topic and partition, in one piece.
#[derive(Debug, Clone)]
pub(crate) struct Records {
    /// The offset of the first.
    pub base: i64,
    pub count: u32,
    pub appended_at_ms: TimestampMs,
    /// As the format has them.
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

/// How far a partition goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct End {
    /// The offset that the next record will have; all before it are durable.
    pub next: i64,
    /// Whether it stays so for good.
    pub closed: bool,
}

/// One topic's partition.
pub(crate) struct Tail {
    /// Bytes of the log between two entries of the index, at least.
    index_every_bytes: u64,
    held: Mutex<Held>,
    end: watch::Sender<End>,
}

#[derive(Default)]
struct Held {
    /// The offset and the time that the next block begins with, at least.
    next: i64,
    last_time_ms: TimestampMs,
    index: Vec<Entry>,
    /// The log's bytes before the batch that the last entry points to.
    indexed_at: u64,
    recent: VecDeque<Records>,
    recent_bytes: usize,
}

/// A block's first offset and time, and the batch that holds it.
#[derive(Clone, Copy)]
struct Entry {
    base: i64,
    appended_at_ms: TimestampMs,
    segment: u32,
    /// Segments are smaller than 4 GiB.
    position: u32,
}

impl Entry {
    fn place(self) -> Place {
        Place {
            segment: self.segment,
            position: u64::from(self.position),
        }
    }
}

impl Tail {
    /// An empty one, of a log with so many topics' partitions.
    pub(crate) fn new(slots: usize) -> Self {
        let end = watch::Sender::new(End {
            next: 0,
            closed: false,
        });
        Self {
            index_every_bytes: INDEX_EVERY_BYTES * slots as u64,
            held: Mutex::default(),
            end,
        }
    }

    /// The offset of the next record, and the time it gets when it is `now_ms` or stepped back.
    pub(crate) fn next(&self, now_ms: TimestampMs) -> (i64, TimestampMs) {
        let held = self.held.lock();
        (held.next, held.last_time_ms.max(now_ms))
    }

    /// Takes note of a block that is on disk, in the batch at `place`, which so many of the
    /// log's bytes precede. Readers do not see it before [`Tail::publish`].
    pub(crate) fn note(&self, block: &Block, place: Place, log_bytes: u64) {
        let mut held = self.held.lock();
        held.next = block.end();
        held.last_time_ms = block.appended_at_ms;
        if held.index.is_empty() || log_bytes >= held.indexed_at + self.index_every_bytes {
            held.indexed_at = log_bytes;
            held.index.push(Entry {
                base: block.base,
                appended_at_ms: block.appended_at_ms,
                segment: place.segment,
                position: place.position as u32,
            });
        }
    }

    /// Keeps the block that was noted last at hand, with at most so many bytes in all.
    pub(crate) fn keep(&self, records: Records, at_most_bytes: usize) {
        let mut held = self.held.lock();
        held.recent_bytes += records.memory_bytes();
        held.recent.push_back(records);
        while held.recent_bytes > at_most_bytes {
            let Some(oldest) = held.recent.pop_front() else {
                break;
            };
            held.recent_bytes -= oldest.memory_bytes();
        }
    }

    /// Lets readers see everything noted.
    pub(crate) fn publish(&self) {
        let next = self.held.lock().next;
        self.end.send_modify(|end| end.next = next);
    }

    /// Tells readers that nothing more will come.
    pub(crate) fn close(&self) {
        self.end.send_modify(|end| end.closed = true);
    }

    /// How far it goes, now and as that changes.
    pub(crate) fn end(&self) -> watch::Receiver<End> {
        self.end.subscribe()
    }

    /// The offset that the next record will have; all before it are durable.
    pub(crate) fn durable_end(&self) -> i64 {
        self.end.borrow().next
    }

    /// Blocks at hand from the one with this offset on, about as many bytes as asked for; none
    /// when that one is no longer at hand.
    pub(crate) fn recent(
        &self,
        offset: i64,
        before: i64,
        bytes: usize,
    ) -> Option<VecDeque<Records>> {
        let held = self.held.lock();
        if held.recent.front()?.base > offset {
            return None;
        }
        let first = held
            .recent
            .partition_point(|records| records.end() <= offset);
        let mut left = bytes;
        let blocks = held.recent.range(first..).take_while(|records| {
            let wanted = left > 0 && records.base < before;
            left = left.saturating_sub(records.bytes.len());
            wanted
        });
        Some(blocks.cloned().collect())
    }

    /// A place from which on the block with this offset is found: it is there, or behind it by
    /// less than the index's distance.
    pub(crate) fn place_of(&self, offset: i64) -> Option<Place> {
        let held = self.held.lock();
        let after = held.index.partition_point(|entry| entry.base <= offset);
        held.index
            .get(after.checked_sub(1)?)
            .map(|entry| entry.place())
    }

    /// An offset from which on the first block of this time or later is found, not far from it.
    pub(crate) fn offset_before(&self, time: TimestampMs) -> i64 {
        let held = self.held.lock();
        let not_before = held
            .index
            .partition_point(|entry| entry.appended_at_ms < time);
        held.index
            .get(not_before.saturating_sub(1))
            .map_or(0, |entry| entry.base)
    }

    /// The offset of the first block of this time or later, if the blocks at hand tell: the
    /// end when they tell that there is none yet.
    pub(crate) fn recent_at(&self, time: TimestampMs) -> Option<i64> {
        let held = self.held.lock();
        if held.index.is_empty() || held.last_time_ms < time {
            return Some(held.next);
        }
        let first = held.recent.front()?;
        if first.appended_at_ms >= time && first.base > 0 {
            return None;
        }
        let at = held
            .recent
            .partition_point(|records| records.appended_at_ms < time);
        held.recent.get(at).map(|records| records.base)
    }
}
