//! The embedded log over files that a target wrote: opened, read, opened for writing.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kit::ManualClock;
use log_embedded::{EmbeddedLog, OpenError, Options};
use ports::{CheckedClock, EventLog, LogRecord, ReadError};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use tokio::runtime::{Builder, Runtime};

use crate::frames;

pub(crate) const PARTITIONS: u32 = 2;

/// Small enough for a log of a few records to have several segments.
const OPTIONS: Options = Options {
    partitions: PARTITIONS,
    segment_bytes: 1024,
    queue_records: 16,
    queue_bytes: 600,
    recent_bytes: 400,
};

/// The files of a log's directory, by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// The records of every partition that has some.
pub(crate) type Contents = BTreeMap<(Topic, Partition), Vec<LogRecord>>;

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .expect("a runtime of one thread can be built");
}

/// Opens these files and returns their records; none when opening or reading refuses them.
///
/// Panics when a refusal names no place. With `write`, which takes longer, also panics when opening
/// for writing gives another result, or when the written record cannot be read.
pub(crate) fn open(files: &Files, write: bool) -> Option<Contents> {
    let dir = crate::scratch();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).expect("the file can be written");
    }
    let contents = match EmbeddedLog::open_read_only(dir.path()) {
        Ok(log) => contents(&log),
        Err(refusal) => {
            check_refusal(&refusal, files);
            if !write {
                return None;
            }
            let to_write = open_to_write(dir.path()).err();
            let same = to_write.is_some_and(|other| same_kind(&refusal, &other));
            assert!(same, "opening for writing gives another refusal: {refusal}");
            assert_unchanged(dir.path(), files);
            return None;
        }
    };
    if !write {
        return contents;
    }
    match open_to_write(dir.path()) {
        Ok(log) => write_on(log, dir.path(), &contents),
        Err(OpenError::Partitions { found, .. }) => assert_ne!(found, PARTITIONS),
        Err(other) => panic!("refused only for writing: {other}"),
    }
    contents
}

fn open_to_write(dir: &Path) -> Result<EmbeddedLog, OpenError> {
    let clock = CheckedClock::new(Arc::new(ManualClock::still_at(1)), Duration::MAX);
    EmbeddedLog::open(dir, OPTIONS, Arc::new(clock))
}

/// Appends a record, closes the log and opens it again: the earlier records and then the new one
/// must be there.
fn write_on(log: EmbeddedLog, dir: &Path, before: &Option<Contents>) {
    assert_eq!(&contents(&log), before);
    let place = (Topic::StockDecisions, Partition(1));
    let new = frames::record(7, 2, 20, 1);
    let offset = RUNTIME.with(|runtime| {
        let appended = log.append(place.0, place.1, vec![new.clone()]);
        runtime
            .block_on(appended)
            .expect("a log that was opened can be written on")
    });
    log.close().expect("a log that was opened can be closed");
    let again = EmbeddedLog::open_read_only(dir).expect("what was written can be opened");
    let Some(before) = before else {
        return;
    };
    let mut after = contents(&again).expect("what could be read can be read again");
    let records = after.get_mut(&place).expect("a record was appended");
    let last = records.pop().expect("a record was appended");
    assert_eq!(
        (last.offset, &last.key, &last.value),
        (offset, &new.key, &new.value)
    );
    assert_eq!(last.headers, new.headers);
    after.retain(|_, records| !records.is_empty());
    assert_eq!(&after, before);
}

/// Reads the whole log; none when a reader finds damage.
fn contents(log: &EmbeddedLog) -> Option<Contents> {
    let mut contents = Contents::new();
    let partitions = (0..log.partitions()).map(Partition);
    for place in partitions.flat_map(|p| Topic::ALL.map(|topic| (topic, p))) {
        match RUNTIME.with(|runtime| runtime.block_on(read(log, place.0, place.1))) {
            Ok(records) if records.is_empty() => {}
            Ok(records) => _ = contents.insert(place, records),
            Err(ReadError::Damaged(_)) => return None,
            Err(other) => panic!("{place:?} cannot be read: {other}"),
        }
    }
    Some(contents)
}

async fn read(
    log: &EmbeddedLog,
    topic: Topic,
    partition: Partition,
) -> Result<Vec<LogRecord>, ReadError> {
    let end = log.end(topic, partition).await?.0;
    let mut reader = log.read(topic, partition, Offset(0)).await?;
    let mut records: Vec<LogRecord> = Vec::new();
    while (records.len() as i64) < end {
        records.extend(reader.next().await?);
    }
    let offsets = records.iter().map(|record| record.offset.0);
    assert!(offsets.eq(0..end), "offsets follow without gaps");
    assert!(records.is_sorted_by_key(|record| record.appended_at_ms));
    Ok(records)
}

/// A refusal must name a file, and a place in it.
fn check_refusal(refusal: &OpenError, files: &Files) {
    let name_of = |file: &Path| {
        file.file_name()
            .map(|name| name.to_string_lossy().into_owned())
    };
    match refusal {
        OpenError::Damaged {
            file,
            position,
            what,
        } => {
            let name = name_of(file).expect("the file has a name");
            let length = files.get(&name).map_or(0, Vec::len) as u64;
            assert!(*position <= length, "{refusal}");
            assert!(
                files.contains_key(&name) || what.contains("missing"),
                "{refusal}"
            );
            assert!(!what.is_empty());
        }
        OpenError::Version { file, .. } => {
            assert!(
                files.contains_key(&name_of(file).unwrap_or_default()),
                "{refusal}"
            );
        }
        OpenError::NoLog { .. } => assert!(!files.contains_key("meta"), "{refusal}"),
        other => panic!("the directory is at fault, not the machine: {other}"),
    }
}

/// Whether both refusals are the same. Only opening for writing may also find another number of
/// partitions, or a missing meta file beside the log's files.
fn same_kind(read_only: &OpenError, to_write: &OpenError) -> bool {
    matches!(to_write, OpenError::Partitions { .. })
        || matches!(read_only, OpenError::NoLog { .. })
        || read_only.to_string() == to_write.to_string()
}

fn assert_unchanged(dir: &Path, files: &Files) {
    for (name, bytes) in files {
        let now = fs::read(dir.join(name)).expect("a log that is refused keeps its files");
        assert_eq!(
            &now, bytes,
            "{name} was changed although the log was refused"
        );
    }
}
