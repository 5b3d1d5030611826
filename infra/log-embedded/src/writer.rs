//! The one thread that writes: it takes all that is queued, writes it as one batch, syncs it
//! once, shows it to the readers and answers those who wait.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread::JoinHandle;

use bytes::Bytes;
use ports::Clock;
use ports::event_log::AppendError;
use schemas::ids::Offset;

use crate::Shared;
use crate::files::{Files, write_whole};
use crate::format::{self, BATCH_HEADER, BLOCK_ENTRY, Block, CLEAN, Clean};
use crate::open::Writable;
use crate::queue::{Group, Queue};
use crate::segment::{FIRST, Place, Segment};
use crate::tail::Records;

/// What the writer thread owns.
pub(crate) struct Writer {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    clock: Arc<dyn Clock>,
    /// Bytes of each partition's records to keep at hand.
    recent_bytes: usize,
    segment: Segment,
    position: u64,
    /// Where the next segments come from, durable and zeroed.
    prepared: Receiver<io::Result<Segment>>,
    preparing: JoinHandle<()>,
    next_sequence: u64,
    last_checksum: u32,
    log_bytes: u64,
    /// The batch being written; kept for its capacity.
    batch: Vec<u8>,
    blocks: Vec<Block>,
}

impl Writer {
    /// Starts preparing segments.
    pub(crate) fn new(
        shared: Arc<Shared>,
        queue: Arc<Queue>,
        clock: Arc<dyn Clock>,
        opened: (Vec<Segment>, crate::scan::Scanned),
    ) -> io::Result<Self> {
        todo!()
    }
}
