//! The disk of an embedded log: the real log's files, and what a power cut leaves of them.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use log_embedded::{EmbeddedLog, Options};
use ports::{CheckedClock, Clock, EventLog, LogRecord, NewRecord};
use rand::RngExt;
use rand::rngs::StdRng;
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::{BEGIN_MS, Ms};

/// The unit of bytes that a power cut keeps or loses as a whole.
pub(super) const SECTOR_BYTES: usize = 512;
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

/// The most that the log follows a jump of its clock.
const MAX_CLOCK_JUMP: Duration = Duration::from_secs(60);

/// The clock of the log, set by the world.
#[derive(Default)]
struct LogClock {
    day_ms: AtomicI64,
    passed_ms: AtomicU64,
}

impl LogClock {
    fn set(&self, day_ms: TimestampMs, passed_ms: Ms) {
        self.day_ms.store(day_ms, Ordering::Relaxed);
        self.passed_ms.store(passed_ms, Ordering::Relaxed);
    }
}

impl Clock for LogClock {
    fn now_ms(&self) -> TimestampMs {
        self.day_ms.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.passed_ms.load(Ordering::Relaxed))
    }
}

type Contents = BTreeMap<(Topic, Partition), Vec<LogRecord>>;

impl Disk {
    pub fn new(partitions: u32) -> Self {
        let directory = tempfile::tempdir().expect("a directory for temporary files is there");
        let clock = Arc::new(LogClock::default());
        clock.set(BEGIN_MS, 0);
        Self::open(directory, partitions, clock).expect("an empty directory takes a log")
    }

    fn open(directory: TempDir, partitions: u32, clock: Arc<LogClock>) -> Result<Self, String> {
        let options = Options {
            partitions,
            segment_bytes: SEGMENT_BYTES,
            queue_records: 1_000,
            queue_bytes: 100_000,
            recent_bytes: 100_000,
        };
        let checked = Arc::new(CheckedClock::new(clock.clone(), MAX_CLOCK_JUMP));
        let log = EmbeddedLog::open(directory.path(), options, checked);
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

    /// Sets the machine's clock, and the time that has passed.
    pub fn set_clock(&mut self, day_ms: TimestampMs, passed_ms: Ms) {
        self.clock.set(day_ms, passed_ms);
    }

    /// Has the log take the machine's clock for right.
    pub fn correct_clock(&mut self) {
        self.log.correct_clock();
    }

    /// Appends to the real log; the records are durable on return. Returns their time.
    pub fn append(
        &mut self,
        topic: Topic,
        partition: Partition,
        records: &[NewRecord],
    ) -> TimestampMs {
        let appended = async {
            let append = self.log.append(topic, partition, records.to_vec());
            let last = append.await.expect("the simulated disk has room");
            let reader = self.log.read(topic, partition, last).await;
            let records = reader.expect("the log is open").next().await;
            records.expect("the last record can be read")[0].appended_at_ms
        };
        self.runtime.block_on(appended)
    }

    /// Cuts the power while the log writes `torn`: each sector that this changes is written or
    /// not. Opens the log on what is left, and reads all of it.
    pub fn cut(
        mut self,
        torn: Option<(Topic, Partition, Vec<NewRecord>)>,
        rng: &mut StdRng,
    ) -> Result<(Self, Contents), String> {
        let before = read_files(self.directory.path());
        if let Some((topic, partition, records)) = torn {
            self.append(topic, partition, &records);
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
        let disk = Self::open(left, self.partitions, self.clock.clone())?;
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
