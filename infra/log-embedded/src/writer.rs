//! The writer thread: it takes everything that is queued, writes it as one batch, syncs once, makes
//! the batch visible to readers and answers the waiting calls.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bytes::Bytes;
use ports::event_log::AppendError;
use ports::{CheckedClock, Clock};
use schemas::ids::Offset;

use crate::files::write_whole;
use crate::format::{self, BATCH_HEADER, BLOCK_ENTRY, Block, CLEAN, Clean};
use crate::preparing::Prepared;
use crate::queue::{Group, Queue};
use crate::scan::Scanned;
use crate::segment::{Address, FIRST, Segment};
use crate::tail::Records;
use crate::{Options, Shared};

/// The least time from a batch that served few calls to the next one. Every batch costs a sync and
/// wakes all readers at the tail, whether it has two records or twenty. After a batch with a single
/// caller the writer does not wait.
const GATHER: Duration = Duration::from_millis(1);

/// A slot's buffer starts with the capacity that it last needed, up to this.
const MAX_INITIAL_BYTES: usize = 64 << 10;

/// The state of the writer thread.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    clock: Arc<CheckedClock>,
    /// Bytes of each partition's records to cache.
    recent_bytes: usize,
    segment: Segment,
    position: u64,
    prepared: Prepared,
    next_sequence: u64,
    last_checksum: u32,
    log_bytes: u64,
    /// The current batch and its blocks; kept to reuse their memory.
    batch: Vec<u8>,
    blocks: Vec<Block>,
}

impl Writer {
    /// A writer that continues at the end of the scanned log, in the first of these segments. Starts
    /// the thread that prepares further segments.
    pub(crate) fn new(
        shared: Arc<Shared>,
        queue: Arc<Queue>,
        clock: Arc<CheckedClock>,
        options: &Options,
        found: &Scanned,
        mut segments: Vec<Segment>,
    ) -> io::Result<Self> {
        let segment = segments.remove(0);
        let prepared = Prepared::start(
            shared.segments.clone(),
            shared.files.clone(),
            shared.meta.log_id,
            found.segments + 1,
            options.segment_bytes,
            segments,
        )?;
        Ok(Self {
            shared,
            queue,
            clock,
            recent_bytes: options.recent_bytes,
            segment,
            position: found.end.position,
            prepared,
            next_sequence: found.next_sequence,
            last_checksum: found.last_checksum,
            log_bytes: found.log_bytes,
            batch: Vec::new(),
            blocks: Vec::new(),
        })
    }

    /// Writes until the queue is closed and empty, or writing fails.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let stop_on_exit = StopOnExit(self.queue.clone());
        let mut group = Group::new(self.shared.meta.slots());
        while self.queue.take(&mut group) {
            let began = Instant::now();
            let served_few = group.serves_few();
            if let Err(error) = self.commit(&mut group) {
                let reason = self.describe(&error);
                tracing::error!(
                    reason,
                    "the log has stopped and takes no more records until the next start"
                );
                // The queue is stopped first, so that no caller that gets the failure finds the log
                // still open.
                self.queue.stop(&reason);
                group.refuse(&AppendError::Unknown(reason.clone()));
                self.prepared.end();
                return Err(reason);
            }
            if served_few {
                sleep(GATHER.saturating_sub(began.elapsed()));
            }
        }
        drop(stop_on_exit);
        let clean = Clean {
            next_sequence: self.next_sequence,
            last_checksum: self.last_checksum,
        };
        let files = self.shared.files.clone();
        self.prepared.end();
        write_whole(&*files, CLEAN, &clean.encode()).map_err(|error| {
            format!("all records are durable, but the log cannot be marked as closed: {error}")
        })
    }

    /// Writes a group as one batch and makes it durable. Then makes it visible to readers and answers
    /// the waiting calls. While there is no segment for it, and none can be created, nothing is
    /// written and the calls are answered with [`AppendError::Full`].
    fn commit(&mut self, group: &mut Group) -> io::Result<()> {
        let bytes = format::batch_bytes(group.filled.len(), group.bytes);
        if self.position + bytes as u64 > self.segment.bytes {
            let Some(next) = self.prepared.take()? else {
                group.refuse(&AppendError::Full);
                return Ok(());
            };
            self.segment = next;
            self.position = FIRST;
        }
        self.encode(group, bytes);
        let meta = self.shared.meta;
        let sequence = self.next_sequence;
        let checksum = format::seal_batch(
            &mut self.batch,
            meta,
            sequence,
            self.last_checksum,
            &self.blocks,
        );
        self.segment.file.write_at(&self.batch, self.position)?;
        self.segment.file.sync()?;

        self.shared.batches.fetch_add(1, Relaxed);
        self.shared.batch_bytes.fetch_add(bytes as u64, Relaxed);
        self.publish(group);
        self.next_sequence += 1;
        self.last_checksum = checksum;
        self.position += bytes as u64;
        self.log_bytes += bytes as u64;
        Ok(())
    }

    /// Assembles a batch, without its head.
    fn encode(&mut self, group: &Group, batch_bytes: usize) {
        let now_ms = self.clock.now_ms();
        let corrects_time = self.shared.correct_time.swap(false, Relaxed);
        if corrects_time {
            let tails = self.shared.tails.iter();
            tails.for_each(|tail| tail.correct_time(now_ms));
        }
        self.batch.clear();
        self.batch
            .resize(BATCH_HEADER + group.filled.len() * BLOCK_ENTRY, 0);
        self.blocks.clear();
        for &slot in &group.filled {
            let queued = &group.slots[slot];
            let (base, appended_at_ms) = self.shared.tails[slot].next(now_ms);
            self.blocks.push(Block {
                slot,
                base,
                appended_at_ms,
                count: queued.records,
                bytes: queued.bytes.len() as u32,
                checksum: format::crc(&queued.bytes),
                corrects_time,
                at: self.batch.len(),
            });
            self.batch.extend_from_slice(&queued.bytes);
        }
        self.batch.resize(batch_bytes, 0);
    }

    /// Makes the durable batch visible to readers, answers the calls and empties the group.
    fn publish(&mut self, group: &mut Group) {
        let address = Address {
            segment: self.segment.number,
            position: self.position,
        };
        for block in &self.blocks {
            let queued = &mut group.slots[block.slot];
            let empty = Vec::with_capacity(queued.bytes.len().min(MAX_INITIAL_BYTES));
            let mut bytes = std::mem::replace(&mut queued.bytes, empty);
            if bytes.capacity() > 2 * bytes.len() {
                bytes.shrink_to_fit();
            }
            queued.records = 0;
            let tail = &self.shared.tails[block.slot];
            tail.note(block, address, self.log_bytes);
            tail.cache(Records::new(block, Bytes::from(bytes)), self.recent_bytes);
            tail.publish();
        }
        for block in &self.blocks {
            for (records, answer) in group.slots[block.slot].waiting.drain(..) {
                let last = block.base + i64::from(records) - 1;
                // The caller may have gone away.
                let _ = answer.send(Ok(Offset(last)));
            }
        }
        group.filled.clear();
        group.records = 0;
        group.bytes = 0;
    }

    fn describe(&self, error: &io::Error) -> String {
        let file = self
            .shared
            .dir
            .join(format::segment_name(self.segment.number));
        format!(
            "writing at byte {} of {}, or to the next segment, failed: {error}; check the disk, then \
             restart",
            self.position,
            file.display()
        )
    }
}

/// Stops the queue however the writer ends, so that no call waits for a writer that is gone.
struct StopOnExit(Arc<Queue>);

impl Drop for StopOnExit {
    fn drop(&mut self) {
        self.0.stop("it is closed");
    }
}
