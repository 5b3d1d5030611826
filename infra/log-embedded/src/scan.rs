//! What a directory holds, found by reading all of it and believing nothing.
//!
//! The writer never has more than one batch that is not known to be durable. So only the last
//! thing written can be torn, and is cut; anything else that is not as it was written is damage,
//! and the log is refused.

use std::io;
use std::path::{Path, PathBuf};

use crate::OpenError;
use crate::files::{Files, read_whole};
use crate::format::{self, CLEAN, Clean, HeaderFault, META, Meta};
use crate::segment::{FIRST, Fault, Place, SegmentReader};
use crate::tail::Tail;

/// Bytes read at once.
const WINDOW_BYTES: usize = 1 << 20;

/// What a directory holds.
pub(crate) struct Scanned {
    pub tails: Vec<Tail>,
    /// Segments are numbered from 1 to this.
    pub segments: u32,
    /// Where the next batch goes.
    pub end: Place,
    /// The sequence it gets.
    pub next_sequence: u64,
    /// The checksum of the last batch; 0 when there is none.
    pub last_checksum: u32,
    /// Where the last batch stands, and its bytes.
    pub last_batch: Option<(Place, u32)>,
    /// Bytes of all batches.
    pub log_bytes: u64,
    /// Whether there is a mark that it was closed.
    pub was_closed: bool,
}

/// Reads what log a directory holds; none when it holds none.
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
            "bytes follow its end",
        )),
    }
}

/// Reads and checks the whole log, which a writer may be appending to. Nothing is changed.
pub(crate) fn scan(files: &dyn Files, dir: &Path, meta: Meta) -> Result<Scanned, OpenError> {
    // Read first: a log that is being appended to only grows beyond it.
    let clean = read_clean(files, dir)?;
    let slots = meta.slots();
    let found = Scanned {
        tails: (0..slots).map(|_| Tail::new(slots)).collect(),
        segments: count_segments(files, dir)?,
        end: Place {
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
    };
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
}

/// What stands where the next batch is due.
enum Due {
    /// The batch; the place after it is the next.
    Batch,
    /// Zeros.
    Nothing,
    /// Something that is no batch, for this reason.
    Bad(String),
}

impl Scan<'_> {
    fn all_batches(&mut self) -> Result<(), OpenError> {
        let mut reader = self.open(1)?;
        let mut looked_twice = false;
        loop {
            let place = self.found.end;
            let due = self.take_due(&mut reader)?;
            if matches!(due, Due::Batch) {
                looked_twice = false;
                continue;
            }
            let Some((later, sequence)) = self.batch_after(&mut reader, place)? else {
                return Ok(());
            };
            let start_of_next = Place {
                segment: place.segment + 1,
                position: FIRST,
            };
            if later == start_of_next && sequence == self.found.next_sequence {
                let rest = reader.is_zero_from(place.position);
                if !rest.map_err(|error| self.io(place.segment, error))? {
                    let what = "bytes that are no batch follow the segment's last batch";
                    return Err(self.damaged(place, what));
                }
                reader = self.open(later.segment)?;
                self.found.end = later;
            } else if looked_twice {
                return Err(self.gap(due, later, sequence));
            } else {
                // While a writer is at work, the batch that is due may have been half there when
                // it was read. Since there are later ones by now, it must be whole by now.
                reader.refresh();
                looked_twice = true;
            }
        }
    }

    /// The batch that is due is not there, but a later one is.
    fn gap(&self, due: Due, later: Place, sequence: u64) -> OpenError {
        let end = self.found.end;
        let start_of_next = Place {
            segment: end.segment + 1,
            position: FIRST,
        };
        let (place, what) = match due {
            Due::Bad(what) => (end, what),
            // The segment ends here, and what is wrong is the beginning of the next one.
            _ if later > start_of_next => (start_of_next, "no whole batch stands here".to_owned()),
            _ => (end, "zeros stand here".to_owned()),
        };
        let due = self.found.next_sequence;
        let Place { segment, position } = later;
        let later = format::segment_name(segment);
        let what = format!(
            "batch {due} is due here, but {what}; batch {sequence} stands at byte {position} of \
             {later}, so this is no write that was cut short"
        );
        self.damaged(place, &what)
    }

    /// Reads and checks the batch that is due at the end of what has been read so far.
    fn take_due(&mut self, reader: &mut SegmentReader) -> Result<Due, OpenError> {
        let place = self.found.end;
        let batch = match reader.batch_at(place.position) {
            Ok(Some(batch)) => batch,
            Ok(None) => return Ok(Due::Nothing),
            Err(Fault::Bad(what)) => return Ok(Due::Bad(what)),
            Err(fault) => return Err(self.fault(place, fault)),
        };
        // A header that is whole cannot be the fruit of a torn write, so what it says must hold.
        let (sequence, due) = (batch.sequence, self.found.next_sequence);
        if sequence != due {
            return Err(self.damaged(
                place,
                &format!("batch {sequence} stands where {due} is due"),
            ));
        }
        if batch.previous != self.found.last_checksum {
            return Err(self.damaged(
                place,
                "the batch was written after another one than it follows",
            ));
        }
        match reader.check_records(place.position, &batch) {
            Ok(()) => {}
            Err(Fault::Bad(what)) => return Ok(Due::Bad(what)),
            Err(fault) => return Err(self.fault(place, fault)),
        }
        for block in &batch.blocks {
            let tail = &self.found.tails[block.slot];
            if tail.next(block.appended_at_ms) != (block.base, block.appended_at_ms) {
                let what = "offsets or times of the batch do not follow those before it";
                return Err(self.damaged(place, what));
            }
            tail.note(block, place, self.found.log_bytes);
        }
        self.found.last_batch = Some((place, batch.bytes));
        self.found.last_checksum = batch.checksum;
        self.found.next_sequence += 1;
        self.found.log_bytes += u64::from(batch.bytes);
        self.found.end.position += u64::from(batch.bytes);
        Ok(Due::Batch)
    }

    /// The first batch after a place, with its sequence. Its header is whole; its records may
    /// not be, since what counts is that the writer went on after this place.
    fn batch_after(
        &self,
        reader: &mut SegmentReader,
        place: Place,
    ) -> Result<Option<(Place, u64)>, OpenError> {
        let from = place.position + format::ALIGNMENT as u64;
        if let Some((position, batch)) = self.first_batch(reader, from)? {
            return Ok(Some((Place { position, ..place }, batch)));
        }
        for segment in place.segment + 1..=self.found.segments {
            let mut reader = self.open(segment)?;
            if let Some((position, batch)) = self.first_batch(&mut reader, FIRST)? {
                return Ok(Some((Place { segment, position }, batch)));
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
                Place {
                    segment: reader.number,
                    position: from,
                },
                fault,
            )
        })?;
        Ok(found.map(|(position, batch)| (position, batch.sequence)))
    }

    /// Checks that the log goes as far as it did when it was closed.
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
            let (found, due) = (next_sequence - 1, clean.next_sequence - 1);
            return Err(self.damaged(end, &format!(
                "the log was closed with batch {due} as its last, but ends here with batch {found}"
            )));
        }
        Ok(())
    }

    fn open(&self, number: u32) -> Result<SegmentReader, OpenError> {
        let reader = SegmentReader::open(self.files, self.meta, number, WINDOW_BYTES);
        let mut reader = reader.map_err(|error| self.io(number, error))?;
        let header = reader.check_header();
        header.map_err(|fault| {
            self.fault(
                Place {
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

    fn damaged(&self, place: Place, what: &str) -> OpenError {
        OpenError::damaged(self.path(place.segment), place.position, what)
    }

    fn fault(&self, place: Place, fault: Fault) -> OpenError {
        match fault {
            Fault::Io(error) => self.io(place.segment, error),
            Fault::Bad(what) => self.damaged(place, &what),
            Fault::Version(found) => OpenError::version(self.path(place.segment), found),
        }
    }
}

/// Where the log ended when it was closed; none when it was not.
fn read_clean(files: &dyn Files, dir: &Path) -> Result<Option<Clean>, OpenError> {
    let path = || dir.join(CLEAN);
    let bytes = read_whole(files, CLEAN).map_err(|error| OpenError::io(path(), error))?;
    let clean = bytes.map(|bytes| Clean::parse(&bytes));
    clean
        .transpose()
        .map_err(|fault| header_error(path(), fault))
}

/// The number of segments, all of which must be there.
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
