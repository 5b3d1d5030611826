//! What the conformance suite cannot test from outside: damage, truncated files, failing disks, power
//! cuts. All tests run on a [`disk::Disk`] in memory, so that every byte and every call is covered.

mod damage;
mod disk;
mod faults;
mod forged;
mod reading;
mod time;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use bytes::Bytes;
use ports::{AppendError, CheckedClock, Clock, EventLog, NewRecord, ReadError};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;

use self::disk::Disk;
use crate::{EmbeddedLog, OpenError, Options, ScanProgress};

/// Small enough for a log of a few records to have several segments.
const OPTIONS: Options = Options {
    partitions: 2,
    segment_bytes: 1024,
    queue_records: 16,
    queue_bytes: 600,
    recent_bytes: 400,
};

/// A clock that a test sets.
#[derive(Default)]
struct HandClock(AtomicI64);

impl Clock for HandClock {
    fn now_ms(&self) -> TimestampMs {
        self.0.load(Relaxed)
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

/// The clock of a log that follows every jump of this one.
fn unchecked(clock: Arc<dyn Clock>) -> Arc<CheckedClock> {
    Arc::new(CheckedClock::new(clock, Duration::MAX))
}

/// The values of every partition, in order of their offsets, from 0 without gaps.
type Contents = BTreeMap<(Topic, Partition), Vec<Bytes>>;

fn open(disk: &Disk) -> Result<EmbeddedLog, OpenError> {
    let files = Arc::new(disk.clone());
    EmbeddedLog::open_files(
        files,
        Path::new("/log"),
        None,
        &OPTIONS,
        unchecked(Arc::<HandClock>::default()),
        &ScanProgress::default(),
    )
}

fn open_read_only(disk: &Disk) -> Result<EmbeddedLog, OpenError> {
    EmbeddedLog::open_files_read_only(Arc::new(disk.clone()), Path::new("/log"))
}

/// The topic and partition of a test's n-th record.
fn target(n: usize) -> (Topic, Partition) {
    (Topic::ALL[n % 2], Partition((n / 2 % 2) as u32))
}

fn record(n: usize) -> NewRecord {
    let value = Bytes::from(format!("value {n} {}", "x".repeat(n * 7 % 50)));
    let header = ("trace".to_owned(), Bytes::from(n.to_string()));
    NewRecord {
        key: Bytes::from(format!("key {n}")),
        value,
        headers: vec![header],
    }
}

async fn append(log: &EmbeddedLog, n: usize) -> Result<Offset, AppendError> {
    let (topic, partition) = target(n);
    log.append(topic, partition, vec![record(n)]).await
}

/// The contents of a log to which the first `n` records were appended in order.
fn contents_of(n: usize) -> Contents {
    let mut contents = Contents::new();
    for n in 0..n {
        contents.entry(target(n)).or_default().push(record(n).value);
    }
    contents
}

/// Reads the whole log.
async fn contents(log: &EmbeddedLog) -> Result<Contents, ReadError> {
    let mut contents = Contents::new();
    let partitions = (0..log.partitions()).map(Partition);
    for (topic, partition) in partitions.flat_map(|p| Topic::ALL.map(|topic| (topic, p))) {
        let end = log.end(topic, partition).await?.0;
        let mut reader = log.read(topic, partition, Offset(0)).await?;
        let mut values = Vec::new();
        while (values.len() as i64) < end {
            for record in reader.next().await? {
                assert_eq!(record.offset.0, values.len() as i64);
                values.push(record.value);
            }
        }
        if !values.is_empty() {
            contents.insert((topic, partition), values);
        }
    }
    Ok(contents)
}
