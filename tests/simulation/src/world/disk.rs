//! The disk of an embedded log: the real log's files, and what a power cut leaves of them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use log_embedded::{EmbeddedLog, Options};
use ports::{Clock, EventLog, LogRecord, NewRecord};
use rand::RngExt;
use rand::rngs::StdRng;
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tempfile::TempDir;
use tokio::runtime::Runtime;

/// The unit of bytes that a power cut keeps or loses as a whole.
const SECTOR_BYTES: usize = 512;
const SEGMENT_BYTES: u64 = 512 << 10;

/// The files of a log, and the log that writes them.
pub(super) struct Disk {
    directory: TempDir,
    log: EmbeddedLog,
    clock: Arc<LogClock>,
    /// Blocks on the log, which has its own threads: nothing else happens until it has answered.
    runtime: Runtime,
    partitions: u32,
}

/// The clock of the log, set by the world.
#[derive(Default)]
struct LogClock(AtomicI64);

impl Clock for LogClock {
    fn now_ms(&self) -> TimestampMs {
        self.0.load(Ordering::Relaxed)
    }
}

type Contents = BTreeMap<(Topic, Partition), Vec<LogRecord>>;

impl Disk {
    pub fn new(partitions: u32) -> Self {
        let directory = tempfile::tempdir().expect("a directory for temporary files is there");
        Self::open(directory, partitions).expect("an empty directory takes a log")
    }

    fn open(directory: TempDir, partitions: u32) -> Result<Self, String> {
        let clock = Arc::new(LogClock::default());
        let options = Options {
            partitions,
            segment_bytes: SEGMENT_BYTES,
            queue_records: 1_000,
            queue_bytes: 100_000,
            recent_bytes: 100_000,
        };
        let log = EmbeddedLog::open(directory.path(), options, clock.clone());
        let log = log.map_err(|error| error.to_string())?;
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        let runtime = runtime.expect("a runtime without drivers can be built");
        Ok(Self {
            directory,
            log,
            clock,
            runtime,
            partitions,
        })
    }

    /// Appends to the real log; the records are durable on return.
    pub fn append(
        &mut self,
        topic: Topic,
        partition: Partition,
        records: &[NewRecord],
        stamp: TimestampMs,
    ) {
        self.clock.0.store(stamp, Ordering::Relaxed);
        let appended = self
            .runtime
            .block_on(self.log.append(topic, partition, records.to_vec()));
        appended.expect("the simulated disk has room");
    }

    /// Cuts the power while the log writes `torn`: each sector that this changes is written or
    /// not. Opens the log on what is left, and reads all of it.
    pub fn cut(
        mut self,
        torn: Option<(Topic, Partition, Vec<NewRecord>)>,
        stamp: TimestampMs,
        rng: &mut StdRng,
    ) -> Result<(Self, Contents), String> {
        let before = read_files(self.directory.path());
        if let Some((topic, partition, records)) = torn {
            self.append(topic, partition, &records, stamp);
        }
        let after = read_files(self.directory.path());
        let left = tempfile::tempdir().expect("a directory for temporary files is there");
        for (name, mut bytes) in after {
            let old = before.get(&name).map(Vec::as_slice).unwrap_or_default();
            for (n, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
                let old = old.get(n * SECTOR_BYTES..).unwrap_or_default();
                let old = &old[..sector.len().min(old.len())];
                if old.len() == sector.len() && sector != old && rng.random_bool(0.5) {
                    sector.copy_from_slice(old);
                }
            }
            fs::write(left.path().join(name), bytes).expect("the simulated disk has room");
        }
        let disk = Self::open(left, self.partitions)?;
        let contents = disk.contents()?;
        Ok((disk, contents))
    }

    fn contents(&self) -> Result<Contents, String> {
        let partitions = (0..self.partitions).flat_map(|p| Topic::ALL.map(|t| (t, Partition(p))));
        let read = |(topic, partition)| {
            let records = self.runtime.block_on(read_all(&self.log, topic, partition));
            Ok((
                (topic, partition),
                records.map_err(|error| error.to_string())?,
            ))
        };
        partitions.map(read).collect()
    }
}

async fn read_all(
    log: &EmbeddedLog,
    topic: Topic,
    partition: Partition,
) -> Result<Vec<LogRecord>, ports::ReadError> {
    let end = log.end(topic, partition).await?;
    let mut reader = log.read(topic, partition, Offset(0)).await?;
    let mut records: Vec<LogRecord> = Vec::new();
    while records.last().map_or(Offset(0), |last| last.offset.next()) < end {
        records.extend(reader.next().await?);
    }
    Ok(records)
}

/// The segments and the log's metadata. A segment that is still being prepared has another name,
/// and is lost in the cut.
fn read_files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let read = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let name = entry.file_name().into_string().ok()?;
        let kept = name == "meta" || (name.starts_with("segment-") && !name.ends_with(".tmp"));
        kept.then(|| Some((name, fs::read(entry.path()).ok()?)))
            .flatten()
    };
    let entries = fs::read_dir(directory).expect("the log's directory is there");
    entries.filter_map(read).collect()
}
