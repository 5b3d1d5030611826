//! One segment: creating it, and reading and checking its batches.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::files::{Files, LogFile, create_file};
use crate::format::{self, ALIGNMENT, BATCH_HEADER, Batch, Block, FILE_HEADER, HeaderFault, Meta};

/// The position of the first batch in a segment.
pub(crate) const FIRST: u64 = FILE_HEADER as u64;

/// The address of a byte of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Address {
    /// The segment's number, from 1.
    pub segment: u32,
    /// The byte's position in the segment's file.
    pub position: u64,
}

/// Why reading from a segment failed.
pub(crate) enum Fault {
    /// The file system failed.
    Io(io::Error),
    /// The bytes on disk are not the bytes that were written.
    Bad(String),
    /// The segment has another version of the format.
    Version(u32),
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

/// A segment to write to.
pub(crate) struct Segment {
    pub number: u32,
    pub file: Arc<dyn LogFile>,
    pub bytes: u64,
}

impl Segment {
    /// Creates a segment of this size. When this returns the segment is durable, and all its bytes
    /// have been written once, so that a batch's sync writes the batch's bytes and nothing else. Over
    /// bytes that were only reserved, a group of 230 kB took two to three times as long.
    ///
    /// After a failure the unfinished file is removed, so that it takes up no space, and the call may
    /// be repeated.
    pub(crate) fn create(
        files: &dyn Files,
        log_id: u64,
        number: u32,
        bytes: u64,
    ) -> io::Result<Self> {
        let name = format::segment_name(number);
        let file = create_file(files, &name, |file| {
            fill_with_zeros(file, 0, bytes)?;
            file.write_at(&format::encode_segment_header(log_id, number), 0)
        })?;
        Ok(Self {
            number,
            file,
            bytes,
        })
    }

    /// Opens a segment for writing, and extends it if it is shorter than `at_least`.
    pub(crate) fn open(files: &dyn Files, number: u32, at_least: u64) -> io::Result<Self> {
        let file = files.open(&format::segment_name(number))?;
        let bytes = file.bytes()?;
        if bytes < at_least {
            fill_with_zeros(&*file, bytes, at_least)?;
        }
        Ok(Self {
            number,
            file,
            bytes: bytes.max(at_least),
        })
    }
}

/// Writes zeros and makes them durable, a part at a time, so that a concurrent commit waits for one
/// part at most.
pub(crate) fn fill_with_zeros(file: &dyn LogFile, from: u64, to: u64) -> io::Result<()> {
    const PART_BYTES: u64 = 1 << 20;
    let zeros = vec![0; PART_BYTES.min(to.saturating_sub(from)) as usize];
    let mut position = from;
    while position < to {
        let bytes = PART_BYTES.min(to - position);
        file.write_at(&zeros[..bytes as usize], position)?;
        file.sync()?;
        position += bytes;
    }
    Ok(())
}

/// Reads a segment through a sliding window.
pub(crate) struct SegmentReader {
    pub number: u32,
    meta: Meta,
    file: Arc<dyn LogFile>,
    file_bytes: u64,
    /// Bytes read at once, unless one call needs more; a multiple of the alignment.
    window_bytes: usize,
    window_at: u64,
    window: Vec<u8>,
}

impl SegmentReader {
    /// Opens a segment without checking its header.
    pub(crate) fn open(
        files: &dyn Files,
        meta: Meta,
        number: u32,
        window_bytes: usize,
    ) -> io::Result<Self> {
        let file = files.open(&format::segment_name(number))?;
        let file_bytes = file.bytes()?;
        let window_bytes = (window_bytes as u64).min(file_bytes).max(FIRST) as usize;
        let window_bytes = window_bytes.next_multiple_of(ALIGNMENT);
        let window = Vec::new();
        Ok(Self {
            number,
            meta,
            file,
            file_bytes,
            window_bytes,
            window_at: 0,
            window,
        })
    }

    /// Checks the segment's own header.
    pub(crate) fn check_header(&mut self) -> Result<(), Fault> {
        let (log_id, number) = (self.meta.log_id, self.number);
        let header = self.bytes_at(0, FILE_HEADER)?;
        format::check_segment_header(header, log_id, number).map_err(|fault| match fault {
            HeaderFault::Damaged(what) => Fault::Bad(what.to_owned()),
            HeaderFault::Version(found) => Fault::Version(found),
        })
    }

    /// The header and the list of blocks of the batch at a position; none where there are only zeros.
    /// The records are not checked.
    pub(crate) fn batch_at(&mut self, position: u64) -> Result<Option<Batch>, Fault> {
        let meta = self.meta;
        let bytes = self.bytes_at(position, BATCH_HEADER)?;
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(None);
        }
        let header = bytes.first_chunk::<BATCH_HEADER>();
        let header = header.ok_or_else(|| bad("the file ends within a batch's header"))?;
        let (head_bytes, batch_bytes) = format::batch_lengths(header, meta.log_id)
            .ok_or_else(|| bad("no batch of this log begins here"))?;
        // Checked before anything is read: damaged lengths may be up to 4 GiB.
        if position + batch_bytes as u64 > self.file_bytes {
            return Err(bad("the file ends within the batch"));
        }
        let head = self.bytes_at(position, head_bytes)?;
        let batch = format::parse_batch(head, meta);
        batch
            .map(Some)
            .ok_or_else(|| bad("the checksum of the batch's header does not match"))
    }

    /// Verifies the checksums of a batch's records, and that its padding is zero.
    pub(crate) fn check_records(&mut self, position: u64, batch: &Batch) -> Result<(), Fault> {
        for block in &batch.blocks {
            self.checked_block(position, block)?;
        }
        let used = batch
            .blocks
            .last()
            .map_or(BATCH_HEADER, |last| last.at + last.bytes as usize);
        let padding = self.bytes_at(position + used as u64, batch.bytes as usize - used)?;
        match padding.iter().all(|byte| *byte == 0) {
            true => Ok(()),
            false => Err(bad("the padding of the batch is not zero")),
        }
    }

    /// The records of a block of the batch at `position`.
    pub(crate) fn block(&mut self, position: u64, block: &Block) -> Result<Bytes, Fault> {
        self.checked_block(position, block)
            .map(Bytes::copy_from_slice)
    }

    fn checked_block(&mut self, position: u64, block: &Block) -> Result<&[u8], Fault> {
        let (topic, partition) = self.meta.of_slot(block.slot);
        let bytes = self.bytes_at(position + block.at as u64, block.bytes as usize)?;
        if bytes.len() != block.bytes as usize || format::crc(bytes) != block.checksum {
            let (first, last) = (block.base, block.end() - 1);
            return Err(Fault::Bad(format!(
                "the checksum of records {first} to {last} of {topic}, partition {partition}, \
                 does not match"
            )));
        }
        Ok(bytes)
    }

    /// Whether there are only zeros from a position to the end of the file.
    pub(crate) fn is_zero_from(&mut self, mut position: u64) -> io::Result<bool> {
        loop {
            let bytes = self.bytes_at(position, self.window_bytes)?;
            if bytes.is_empty() {
                return Ok(true);
            }
            // Without stopping at the first other byte, so that one instruction checks many.
            if bytes.iter().fold(0, |all, byte| all | byte) != 0 {
                return Ok(false);
            }
            position += bytes.len() as u64;
        }
    }

    /// The first batch of this log at a position or after it with an intact header. Its records are
    /// not checked.
    pub(crate) fn first_batch_from(
        &mut self,
        mut position: u64,
    ) -> Result<Option<(u64, Batch)>, Fault> {
        let id = self.meta.log_id.to_le_bytes();
        loop {
            let bytes = self.bytes_at(position, self.window_bytes)?;
            if bytes.is_empty() {
                return Ok(None);
            }
            let read = bytes.len() as u64;
            let chunks = bytes
                .chunks_exact(ALIGNMENT)
                .zip((position..).step_by(ALIGNMENT));
            let candidates = chunks.filter_map(|(chunk, at)| (*chunk == id).then_some(at));
            for at in candidates.collect::<Vec<_>>() {
                match self.batch_at(at) {
                    Ok(Some(batch)) => return Ok(Some((at, batch))),
                    Ok(None) | Err(Fault::Bad(_)) => {}
                    Err(fault) => return Err(fault),
                }
            }
            position += read;
        }
    }

    /// Discards the window, since a writer may have changed the file meanwhile.
    pub(crate) fn refresh(&mut self) {
        self.window.clear();
    }

    /// The bytes at a position; fewer than requested only where the file ends.
    fn bytes_at(&mut self, position: u64, bytes: usize) -> io::Result<&[u8]> {
        let in_window = position >= self.window_at
            && position + bytes as u64 <= self.window_at + self.window.len() as u64;
        if !in_window {
            self.window.resize(bytes.max(self.window_bytes), 0);
            // Set before the read, so that after a failed one no bytes are taken for others.
            self.window_at = position;
            let read = self.file.read_at(&mut self.window, position);
            self.window.truncate(*read.as_ref().unwrap_or(&0));
            read?;
        }
        let from = ((position - self.window_at) as usize).min(self.window.len());
        let to = (from + bytes).min(self.window.len());
        Ok(&self.window[from..to])
    }
}

fn bad(what: &str) -> Fault {
    Fault::Bad(what.to_owned())
}
