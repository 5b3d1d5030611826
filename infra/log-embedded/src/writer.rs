//! The one thread that writes: it takes all that is queued, writes it as one batch, syncs it
//! once, shows it to the readers and answers those who wait.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use bytes::Bytes;
use ports::Clock;
use ports::event_log::AppendError;
use schemas::ids::Offset;

use crate::files::{Files, write_whole};
use crate::format::{self, BATCH_HEADER, BLOCK_ENTRY, Block, CLEAN, Clean};
use crate::queue::{Group, Queue};
use crate::scan::Scanned;
use crate::segment::{FIRST, Place, Segment};
use crate::tail::Records;
use crate::{Options, Shared};

/// From one batch that served few to the next, at least. Under load every batch costs a sync, and
/// wakes all who read along, whether it has two records or twenty; whoever appends alone does not
/// wait.
const GATHER: Duration = Duration::from_millis(1);

/// A slot's buffer begins with as much room as it last needed, up to this.
const ROOM_BYTES: usize = 64 << 10;

/// What the writer thread owns.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    clock: Arc<dyn Clock>,
    /// Bytes of each partition's records to keep at hand.
    recent_bytes: usize,
    segment: Segment,
    position: u64,
    /// Where the next segments come from.
    prepared: Receiver<io::Result<Segment>>,
    preparing: JoinHandle<()>,
    next_sequence: u64,
    last_checksum: u32,
    log_bytes: u64,
    /// The batch at work, and its blocks; kept for their room.
    batch: Vec<u8>,
    blocks: Vec<Block>,
}

impl Writer {
    /// A writer that goes on at the end of what was found, in the first of these segments.
    /// Starts to prepare further ones.
    pub(crate) fn new(
        shared: Arc<Shared>,
        queue: Arc<Queue>,
        clock: Arc<dyn Clock>,
        options: &Options,
        found: &Scanned,
        mut segments: Vec<Segment>,
    ) -> io::Result<Self> {
        let segment = segments.remove(0);
        let (sender, prepared) = sync_channel(0);
        let (files, log_id) = (shared.files.clone(), shared.meta.log_id);
        let (next_number, bytes) = (found.segments + 1, options.segment_bytes);
        let preparing = std::thread::Builder::new()
            .name("log-segments".to_owned())
            .spawn(move || prepare(&*files, log_id, next_number, bytes, segments, &sender))?;
        Ok(Self {
            shared,
            queue,
            clock,
            recent_bytes: options.recent_bytes,
            segment,
            position: found.end.position,
            prepared,
            preparing,
            next_sequence: found.next_sequence,
            last_checksum: found.last_checksum,
            log_bytes: found.log_bytes,
            batch: Vec::new(),
            blocks: Vec::new(),
        })
    }

    /// Writes until the queue is closed and empty, or writing fails.
    pub(crate) fn run(mut self) -> Result<(), String> {
        let stop_at_the_end = StopAtTheEnd(self.queue.clone());
        let mut group = Group::new(self.shared.meta.slots());
        while self.queue.take(&mut group) {
            let began = Instant::now();
            let served_few = group.serves_few();
            if let Err(error) = self.commit(&mut group) {
                let reason = self.describe(&error);
                tracing::error!(reason, "the log has stopped and takes no more records");
                // The queue first: nobody who learns of the failure finds the log still open.
                self.queue.stop(&reason);
                for answer in group.drain_waiting() {
                    let _ = answer.send(Err(AppendError::Unknown(reason.clone())));
                }
                self.end_preparing();
                return Err(reason);
            }
            if served_few {
                sleep(GATHER.saturating_sub(began.elapsed()));
            }
        }
        drop(stop_at_the_end);
        let clean = Clean {
            next_sequence: self.next_sequence,
            last_checksum: self.last_checksum,
        };
        let files = self.shared.files.clone();
        self.end_preparing();
        write_whole(&*files, CLEAN, &clean.encode())
            .map_err(|error| format!("the log is whole, but cannot be marked as closed: {error}"))
    }

    /// Writes a group as one batch and makes it durable; then readers see it, and those who
    /// wait are answered.
    fn commit(&mut self, group: &mut Group) -> io::Result<()> {
        let bytes = format::batch_bytes(group.filled.len(), group.bytes);
        if self.position + bytes as u64 > self.segment.bytes {
            let next = self.prepared.recv();
            self.segment = next.unwrap_or_else(|_| Err(io::Error::other("no segment is left")))?;
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

    /// Puts the pieces of a batch together, all but its head.
    fn encode(&mut self, group: &Group, batch_bytes: usize) {
        let now_ms = self.clock.now_ms();
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
                at: self.batch.len(),
            });
            self.batch.extend_from_slice(&queued.bytes);
        }
        self.batch.resize(batch_bytes, 0);
    }

    /// Shows the batch, which is durable now, and leaves the group empty.
    fn publish(&mut self, group: &mut Group) {
        let place = Place {
            segment: self.segment.number,
            position: self.position,
        };
        for block in &self.blocks {
            let queued = &mut group.slots[block.slot];
            let room = Vec::with_capacity(queued.bytes.len().min(ROOM_BYTES));
            let mut bytes = std::mem::replace(&mut queued.bytes, room);
            if bytes.capacity() > 2 * bytes.len() {
                bytes.shrink_to_fit();
            }
            queued.records = 0;
            let tail = &self.shared.tails[block.slot];
            tail.note(block, place, self.log_bytes);
            tail.keep(Records::new(block, Bytes::from(bytes)), self.recent_bytes);
            tail.publish();
        }
        for block in &self.blocks {
            for (records, answer) in group.slots[block.slot].waiting.drain(..) {
                let last = block.base + i64::from(records) - 1;
                // Whoever no longer waits does not care.
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
            "writing at byte {} of {} or to the segment after it failed: {error}; see to the \
             disk, then start again",
            self.position,
            file.display()
        )
    }

    fn end_preparing(self) {
        drop(self.prepared);
        // A thread that panicked has made no segment, and none is needed.
        let _ = self.preparing.join();
    }
}

/// Hands out the segments that are ready, then makes one after the other, each before it is
/// needed, until nobody takes them.
///
/// A segment is handed out when its successor is durable, so that the loss of the file that was
/// written last leaves a gap that can be told from the log's end.
fn prepare(
    files: &dyn Files,
    log_id: u64,
    next_number: u32,
    bytes: u64,
    ready: Vec<Segment>,
    sender: &SyncSender<io::Result<Segment>>,
) {
    let made = (next_number..).map(|number| Segment::create(files, log_id, number, bytes));
    let mut last_made = None;
    for segment in ready.into_iter().map(Ok).chain(made) {
        let next = match segment {
            Ok(segment) => last_made.replace(segment).map(Ok),
            Err(error) => {
                tracing::warn!(
                    %error,
                    "no segment can be made; the log will stop when the current one is full"
                );
                Some(Err(error))
            }
        };
        let failed = matches!(next, Some(Err(_)));
        if next.is_some_and(|next| sender.send(next).is_err()) || failed {
            return;
        }
    }
}

/// However the writer ends, nobody may go on queueing for it.
struct StopAtTheEnd(Arc<Queue>);

impl Drop for StopAtTheEnd {
    fn drop(&mut self) {
        self.0.stop("it is closed");
    }
}
