//! Scanning a log: reads and verifies all of it.
//!
//! The writer never has more than one batch that is not known to be durable. So only the last batch
//! can be incomplete after a crash, and then it is cut. Anything else that differs from what was
//! written is damage, and the log is refused.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::OpenError;
use crate::files::{Files, read_whole};
use crate::format::{self, CLEAN, Clean, HeaderFault, META, Meta};
use crate::segment::{Address, FIRST, Fault, SegmentReader};
use crate::tail::Tail;

/// Bytes read at once.
const WINDOW_BYTES: usize = 1 << 20;

/// What the scan found.
pub(crate) struct Scanned {
    pub tails: Vec<Tail>,
    /// The number of the last segment; the first is 1.
    pub segments: u32,
    /// The address of the next batch.
    pub end: Address,
    /// The sequence of the next batch.
    pub next_sequence: u64,
    /// The checksum of the last batch; 0 when there is none.
    pub last_checksum: u32,
    /// The address and size of the last batch.
    pub last_batch: Option<(Address, u32)>,
    /// The size of all batches.
    pub log_bytes: u64,
    /// Whether the log is marked as closed.
    pub was_closed: bool,
}

/// How far a scan has come, for those who wait for it.
#[derive(Debug, Default)]
pub struct ScanProgress {
    records: AtomicU64,
    segment: AtomicU32,
    segments: AtomicU32,
}

impl ScanProgress {
    /// The number of records read and verified so far. How many there are is known at the end.
    pub fn records(&self) -> u64 {
        self.records.load(Relaxed)
    }

    /// The number of the segment that is being read, and of the last one; 0 before the first.
    pub fn segment(&self) -> (u32, u32) {
        (self.segment.load(Relaxed), self.segments.load(Relaxed))
    }
}

/// Reads the meta file; none when the directory has no log.
pub(crate) fn read_meta(files: &dyn Files, dir: &Path) -> Result<Option<Meta>, OpenError> {
    let path = || dir.join(META);
    let bytes = read_whole(files, META).map_err(|error| OpenError::io(path(), error))?;
    let Some(bytes) = bytes else { return Ok(None) };
    let meta = Meta::parse(&bytes).map_err(|fault| header_error(path(), fault))?;
    match bytes.len() == format::FILE_HEADER {
        true => Ok(Some(meta)),
        false => Err(OpenError::damaged(
            path(),
            format::FILE_HEADER as u64,
            "the file is longer than its header",
        )),
    }
}

/// Reads and verifies the whole log. Changes nothing; a writer may be appending meanwhile.
pub(crate) fn scan(
    files: &dyn Files,
    dir: &Path,
    meta: Meta,
    progress: &ScanProgress,
) -> Result<Scanned, OpenError> {
    // Read first: a log that a writer appends to only grows beyond it.
    let clean = read_clean(files, dir)?;
    let slots = meta.slots();
    let found = Scanned {
        tails: (0..slots).map(|_| Tail::new(slots)).collect(),
        segments: count_segments(files, dir)?,
        end: Address {
            segment: 1,
            position: FIRST,
        },
        next_sequence: 1,
        last_checksum: 0,
        last_batch: None,
        log_bytes: 0,
        was_closed: clean.is_some(),
    };
    let mut scan = Scan {
        files,
        dir,
        meta,
        found,
        progress,
    };
    progress.segments.store(scan.found.segments, Relaxed);
    scan.all_batches()?;
    if let Some(clean) = clean {
        scan.check_end(clean)?;
    }
    scan.found.tails.iter().for_each(Tail::publish);
    Ok(scan.found)
}

struct Scan<'a> {
    files: &'a dyn Files,
    dir: &'a Path,
    meta: Meta,
    found: Scanned,
    progress: &'a ScanProgress,
}

/// What the scan found at the address of the next batch.
enum Next {
    /// The batch; the scan moved past it.
    Batch,
    /// Zeros.
    Nothing,
    /// Something that is no valid batch, for this reason.
    Bad(String),
}

impl Scan<'_> {
    fn all_batches(&mut self) -> Result<(), OpenError> {
        let mut reader = self.open(1)?;
        self.progress.segment.store(1, Relaxed);
        let mut read_twice = false;
        loop {
            let address = self.found.end;
            let next = self.take_next(&mut reader)?;
            if matches!(next, Next::Batch) {
                read_twice = false;
                continue;
            }
            let Some((later, sequence)) = self.batch_after(&mut reader, address)? else {
                return Ok(());
            };
            let start_of_next = Address {
                segment: address.segment + 1,
                position: FIRST,
            };
            if later == start_of_next && sequence == self.found.next_sequence {
                let rest = reader.is_zero_from(address.position);
                if !rest.map_err(|error| self.io(address.segment, error))? {
                    let what = "bytes that are no batch follow the segment's last batch";
                    return Err(self.damaged(address, what));
                }
                reader = self.open(later.segment)?;
                self.progress.segment.store(later.segment, Relaxed);
                self.found.end = later;
            } else if read_twice {
                return Err(self.gap(next, later, sequence));
            } else {
                // While a writer is appending, the batch may have been incomplete when it was
                // read. Since there is a later batch now, it must be complete now.
                reader.refresh();
                read_twice = true;
            }
        }
    }

    /// The error for a missing batch with a later batch after it.
    fn gap(&self, next: Next, later: Address, sequence: u64) -> OpenError {
        let end = self.found.end;
        let start_of_next = Address {
            segment: end.segment + 1,
            position: FIRST,
        };
        let (address, what) = match next {
            Next::Bad(what) => (end, what),
            // The segment ends here, and the start of the next one is damaged.
            _ if later > start_of_next => (start_of_next, "there is no complete batch".to_owned()),
            _ => (end, "there are zeros".to_owned()),
        };
        let missing = self.found.next_sequence;
        let Address { segment, position } = later;
        let later = format::segment_name(segment);
        let what = format!(
            "batch {missing} is missing here ({what}), but batch {sequence} follows at byte {position} \
             of {later}, so this is not a write that a crash interrupted"
        );
        self.damaged(address, &what)
    }

    /// Reads and verifies the batch at the end of what has been read so far, and moves past it.
    fn take_next(&mut self, reader: &mut SegmentReader) -> Result<Next, OpenError> {
        let address = self.found.end;
        let batch = match reader.batch_at(address.position) {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(Next::Nothing),
            Err(Fault::Bad(what)) => return Ok(Next::Bad(what)),
            Err(fault) => return Err(self.fault(address, fault)),
        };
        // An incomplete write cannot leave an intact header, so its fields must be right.
        let (sequence, expected) = (batch.sequence, self.found.next_sequence);
        if sequence != expected {
            return Err(self.damaged(
                address,
                &format!("this is batch {sequence}, but batch {expected} must be here"),
            ));
        }
        if batch.previous != self.found.last_checksum {
            return Err(self.damaged(
                address,
                "the batch was not written after the batch before it",
            ));
        }
        match reader.check_records(address.position, &batch) {
            Ok(()) => {}
            Err(Fault::Bad(what)) => return Ok(Next::Bad(what)),
            Err(fault) => return Err(self.fault(address, fault)),
        }
        let corrected = batch.blocks.iter().find(|block| block.corrects_time);
        if let Some(block) = corrected {
            let tails = self.found.tails.iter();
            tails.for_each(|tail| tail.correct_time(block.appended_at_ms));
        }
        for block in &batch.blocks {
            let tail = &self.found.tails[block.slot];
            if tail.next(block.appended_at_ms) != (block.base, block.appended_at_ms) {
                let what = "offsets or times of the batch do not follow those before it";
                return Err(self.damaged(address, what));
            }
            tail.note(block, address, self.found.log_bytes);
            let records = u64::from(block.count);
            self.progress.records.fetch_add(records, Relaxed);
        }
        self.found.last_batch = Some((address, batch.bytes));
        self.found.last_checksum = batch.checksum;
        self.found.next_sequence += 1;
        self.found.log_bytes += u64::from(batch.bytes);
        self.found.end.position += u64::from(batch.bytes);
        Ok(Next::Batch)
    }

    /// The first batch after an address, with its sequence. Only its header is checked: it proves that
    /// the writer continued after this address.
    fn batch_after(
        &self,
        reader: &mut SegmentReader,
        address: Address,
    ) -> Result<Option<(Address, u64)>, OpenError> {
        let from = address.position + format::ALIGNMENT as u64;
        if let Some((position, batch)) = self.first_batch(reader, from)? {
            return Ok(Some((
                Address {
                    position,
                    ..address
                },
                batch,
            )));
        }
        for segment in address.segment + 1..=self.found.segments {
            let mut reader = self.open(segment)?;
            if let Some((position, batch)) = self.first_batch(&mut reader, FIRST)? {
                return Ok(Some((Address { segment, position }, batch)));
            }
        }
        Ok(None)
    }

    fn first_batch(
        &self,
        reader: &mut SegmentReader,
        from: u64,
    ) -> Result<Option<(u64, u64)>, OpenError> {
        let found = reader.first_batch_from(from);
        let found = found.map_err(|fault| {
            self.fault(
                Address {
                    segment: reader.number,
                    position: from,
                },
                fault,
            )
        })?;
        Ok(found.map(|(position, batch)| (position, batch.sequence)))
    }

    /// Checks that the log reaches as far as it did when it was closed.
    fn check_end(&self, clean: Clean) -> Result<(), OpenError> {
        let Scanned {
            end,
            next_sequence,
            last_checksum,
            ..
        } = self.found;
        let other_end =
            next_sequence == clean.next_sequence && last_checksum != clean.last_checksum;
        if next_sequence < clean.next_sequence || other_end {
            let (found, last) = (next_sequence - 1, clean.next_sequence - 1);
            return Err(self.damaged(
                end,
                &format!(
                    "the log was closed after batch {last}, but ends here after batch {found}"
                ),
            ));
        }
        Ok(())
    }

    fn open(&self, number: u32) -> Result<SegmentReader, OpenError> {
        let reader = SegmentReader::open(self.files, self.meta, number, WINDOW_BYTES);
        let mut reader = reader.map_err(|error| self.io(number, error))?;
        let header = reader.check_header();
        header.map_err(|fault| {
            self.fault(
                Address {
                    segment: number,
                    position: 0,
                },
                fault,
            )
        })?;
        Ok(reader)
    }

    fn path(&self, segment: u32) -> PathBuf {
        self.dir.join(format::segment_name(segment))
    }

    fn io(&self, segment: u32, error: io::Error) -> OpenError {
        OpenError::io(self.path(segment), error)
    }

    fn damaged(&self, address: Address, what: &str) -> OpenError {
        OpenError::damaged(self.path(address.segment), address.position, what)
    }

    fn fault(&self, address: Address, fault: Fault) -> OpenError {
        match fault {
            Fault::Io(error) => self.io(address.segment, error),
            Fault::Bad(what) => self.damaged(address, &what),
            Fault::Version(found) => OpenError::version(self.path(address.segment), found),
        }
    }
}

/// The end of the log when it was closed; none when it was not closed.
fn read_clean(files: &dyn Files, dir: &Path) -> Result<Option<Clean>, OpenError> {
    let path = || dir.join(CLEAN);
    let bytes = read_whole(files, CLEAN).map_err(|error| OpenError::io(path(), error))?;
    let clean = bytes.map(|bytes| Clean::parse(&bytes));
    clean
        .transpose()
        .map_err(|fault| header_error(path(), fault))
}

/// The number of segments, all of which must exist.
fn count_segments(files: &dyn Files, dir: &Path) -> Result<u32, OpenError> {
    let names = files
        .list()
        .map_err(|error| OpenError::io(dir.to_owned(), error))?;
    let mut numbers: Vec<u32> = names
        .iter()
        .filter_map(|name| format::segment_number(name))
        .collect();
    numbers.sort_unstable();
    let last = numbers.last().copied().unwrap_or(1);
    match (1..=last).find(|number| numbers.binary_search(number).is_err()) {
        None => Ok(last),
        Some(missing) => {
            let path = dir.join(format::segment_name(missing));
            Err(OpenError::damaged(path, 0, "the file is missing"))
        }
    }
}

fn header_error(path: PathBuf, fault: HeaderFault) -> OpenError {
    match fault {
        HeaderFault::Damaged(what) => OpenError::damaged(path, 0, what),
        HeaderFault::Version(found) => OpenError::version(path, found),
    }
}
