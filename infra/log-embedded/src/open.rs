//! Opening a directory's log for writing: creates a new log, or removes an incomplete batch at the
//! end and makes the last complete batch durable.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::path::Path;

use crate::files::{Files, write_whole};
use crate::format::{self, CLEAN, META, Meta, UNFINISHED};
use crate::scan::{ScanProgress, Scanned, read_meta, scan};
use crate::segment::{FIRST, Segment, SegmentReader, fill_with_zeros};
use crate::{OpenError, Options};

/// Bytes read at once in the search for the remains of an incomplete write.
const WINDOW_BYTES: usize = 1 << 20;

/// A log ready to be appended to.
pub(crate) struct Writable {
    pub meta: Meta,
    pub scanned: Scanned,
    /// Segments to write to: the one in which the log ends, then the empty ones after it.
    pub segments: Vec<Segment>,
}

/// Opens the log of a directory that this process has locked, or creates one. A directory that is
/// refused stays unchanged.
pub(crate) fn open_writable(
    files: &dyn Files,
    dir: &Path,
    options: &Options,
    progress: &ScanProgress,
) -> Result<Writable, OpenError> {
    let meta = match read_meta(files, dir)? {
        Some(meta) if meta.partitions != options.partitions => {
            let (dir, found, requested) = (dir.to_owned(), meta.partitions, options.partitions);
            return Err(OpenError::Partitions {
                dir,
                found,
                requested,
            });
        }
        Some(meta) => meta,
        None => create(files, dir, options)?,
    };
    let scanned = scan(files, dir, meta, progress)?;
    let segments = make_durable(files, meta, &scanned, options);
    let segments = segments.map_err(|error| OpenError::io(dir.to_owned(), error))?;
    Ok(Writable {
        meta,
        scanned,
        segments,
    })
}

/// Creates a log. The meta file comes last: without it there is no log.
fn create(files: &dyn Files, dir: &Path, options: &Options) -> Result<Meta, OpenError> {
    let io_error = |error| OpenError::io(dir.to_owned(), error);
    for name in files.list().map_err(io_error)? {
        // A creation that was interrupted can leave one empty segment.
        let is_leftover = match format::segment_number(&name) {
            None => name != CLEAN,
            Some(number) => number == 1 && is_empty(files, number).map_err(io_error)?,
        };
        if !is_leftover {
            let what = format!("the file is missing, but {name} is there");
            return Err(OpenError::damaged(dir.join(META), 0, &what));
        }
    }
    let log_id = RandomState::new().hash_one(std::process::id()).max(1);
    let meta = Meta {
        partitions: options.partitions,
        log_id,
    };
    Segment::create(files, log_id, 1, options.segment_bytes).map_err(io_error)?;
    write_whole(files, META, &meta.encode()).map_err(io_error)?;
    Ok(meta)
}

fn is_empty(files: &dyn Files, number: u32) -> io::Result<bool> {
    let any = Meta {
        partitions: 1,
        log_id: 0,
    };
    SegmentReader::open(files, any, number, WINDOW_BYTES)?.is_zero_from(FIRST)
}

/// Makes the scanned log durable, and zeroes everything after its end.
fn make_durable(
    files: &dyn Files,
    meta: Meta,
    scanned: &Scanned,
    options: &Options,
) -> io::Result<Vec<Segment>> {
    for name in files.list()? {
        if name.ends_with(UNFINISHED) {
            files.remove(&name)?;
        }
    }
    let mut segments = Vec::new();
    for number in scanned.end.segment..=scanned.segments {
        let segment = Segment::open(files, number, options.segment_bytes)?;
        let end = if segments.is_empty() {
            scanned.end.position
        } else {
            FIRST
        };
        cut(files, meta, &segment, end)?;
        segments.push(segment);
    }
    rewrite_last_batch(files, scanned)?;
    // From here on the log may grow, so the mark that it was closed must be removed durably.
    if scanned.was_closed {
        files.remove(CLEAN)?;
        files.sync_names()?;
    }
    Ok(segments)
}

/// Removes what an incomplete write left after the end, so that it is never taken for a batch.
fn cut(files: &dyn Files, meta: Meta, segment: &Segment, end: u64) -> io::Result<()> {
    let mut reader = SegmentReader::open(files, meta, segment.number, WINDOW_BYTES)?;
    if reader.is_zero_from(end)? {
        return Ok(());
    }
    tracing::warn!(
        segment = format::segment_name(segment.number),
        position_bytes = end,
        "removed an incomplete batch at the end of the log; none of its records were acknowledged"
    );
    fill_with_zeros(&*segment.file, end, segment.bytes)
}

/// Writes the last batch once more and syncs it. Before that, it may only be in the machine's page
/// cache, which after a failed sync may even count it as written.
fn rewrite_last_batch(files: &dyn Files, scanned: &Scanned) -> io::Result<()> {
    let Some((address, bytes)) = scanned.last_batch else {
        return Ok(());
    };
    let file = files.open(&format::segment_name(address.segment))?;
    let mut batch = vec![0; bytes as usize];
    if file.read_at(&mut batch, address.position)? != batch.len() {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    file.write_at(&batch, address.position)?;
    file.sync()
}
