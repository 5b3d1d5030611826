//! The embedded log, compared with a bare loop of write and sync with batches of the same size: the
//! cost of everything around the disk.
//!
//! Both alternate in short slices, and each slice of the log is compared with the bare one right
//! after it, because the time of a sync depends on what else the machine does.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use log_embedded::{EmbeddedLog, Options};
use ports::clock::SystemClock;
use ports::{CheckedClock, EventLog, NewRecord};
use schemas::ids::Partition;
use schemas::topics::Topic;

const VALUE_BYTES: usize = 200;
/// Slices of the log, each with one of the bare loop; an odd number has a median.
const SLICES: usize = 11;
const LOG_SLICE: Duration = Duration::from_millis(500);
const BARE_SLICE: Duration = Duration::from_millis(250);
const BARE_FILE_BYTES: usize = 64 << 20;

/// Runs the comparison with several loads and prints a table. Takes about 40 seconds.
pub fn run() {
    println!(
        "embedded log: {VALUE_BYTES}-byte values, 8 partitions, one fdatasync a group; medians of \
         {SLICES} slices"
    );
    println!(
        "{:>9} {:>8} {:>11} {:>8} {:>8} {:>11} {:>11} {:>6}  spread of ratios",
        "appenders",
        "per call",
        "records/s",
        "p50 us",
        "p99 us",
        "batch bytes",
        "bare rec/s",
        "ratio"
    );
    for (appenders, per_call) in [(1, 1), (64, 1), (1_024, 1), (8, 500)] {
        let (mut log, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        let (mut latencies, mut batch_bytes) = (Vec::new(), Vec::new());
        let subject = Subject::new();
        for _ in 0..SLICES {
            let mut slice = subject.append(appenders, per_call);
            let batches = bare_batches_per_second(slice.batch_bytes);
            bare.push(batches * slice.records_per_batch);
            log.push(slice.records_per_second);
            ratios.push(slice.records_per_second / (batches * slice.records_per_batch));
            batch_bytes.push(slice.batch_bytes as f64);
            latencies.append(&mut slice.latencies_us);
        }
        latencies.sort_unstable();
        let (log, bare, ratio) = (median(&mut log), median(&mut bare), median(&mut ratios));
        println!(
            "{appenders:>9} {per_call:>8} {log:>11.0} {:>8} {:>8} {:>11.0} {bare:>11.0} \
             {ratio:>6.2}  {:.2} to {:.2}",
            latencies[latencies.len() / 2],
            latencies[latencies.len() / 100 * 99],
            median(&mut batch_bytes),
            ratios[0],
            ratios[SLICES - 1],
        );
    }
    println!(
        "A ratio over 1 cannot be: the machine was busy with something else, so run it again."
    );
}

/// Sorts the figures, too.
fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// A new log in a directory of its own.
struct Subject {
    log: Arc<EmbeddedLog>,
    runtime: tokio::runtime::Runtime,
    _dir: tempfile::TempDir,
}

struct Slice {
    records_per_second: f64,
    latencies_us: Vec<u32>,
    batch_bytes: usize,
    records_per_batch: f64,
}

impl Subject {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory can be made");
        let clock = CheckedClock::new(Arc::new(SystemClock), Duration::from_secs(60));
        let log = EmbeddedLog::open(dir.path(), Options::default(), Arc::new(clock));
        let log = Arc::new(log.expect("a new directory opens"));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .build();
        Self {
            log,
            runtime: runtime.expect("a runtime can be made"),
            _dir: dir,
        }
    }

    /// Appends for a while from this many tasks, each with one call in flight.
    fn append(&self, appenders: u32, per_call: usize) -> Slice {
        let before = self.log.written();
        let started = Instant::now();
        let latencies_us = self.runtime.block_on(async {
            let run = |number| tokio::spawn(appender(self.log.clone(), number, per_call, started));
            let appenders: Vec<_> = (0..appenders).map(run).collect();
            let mut all = Vec::new();
            for appender in appenders {
                all.extend(appender.await.expect("no appender panics"));
            }
            all
        });
        let records = (latencies_us.len() * per_call) as f64;
        let records_per_second = records / started.elapsed().as_secs_f64();
        let written = self.log.written();
        let batches = written.batches - before.batches;
        Slice {
            records_per_second,
            latencies_us,
            batch_bytes: ((written.bytes - before.bytes) / batches) as usize,
            records_per_batch: records / batches as f64,
        }
    }
}

/// The microseconds that each call took.
async fn appender(
    log: Arc<EmbeddedLog>,
    number: u32,
    per_call: usize,
    started: Instant,
) -> Vec<u32> {
    let value = Bytes::from(vec![b'x'; VALUE_BYTES]);
    let key = Bytes::from_static(b"a-product");
    let mut latencies = Vec::new();
    while started.elapsed() < LOG_SLICE {
        let record = || NewRecord {
            key: key.clone(),
            value: value.clone(),
            headers: Vec::new(),
        };
        let records = (0..per_call).map(|_| record()).collect();
        let called = Instant::now();
        let appended = log
            .append(Topic::PurchaseAttempts, Partition(number % 8), records)
            .await;
        appended.expect("the log takes it");
        latencies.push(called.elapsed().as_micros() as u32);
    }
    latencies
}

/// Writes and syncs batches of this many bytes, one after the other, into files made like the log's
/// segments.
fn bare_batches_per_second(batch_bytes: usize) -> f64 {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let batch = vec![b'x'; batch_bytes];
    let (mut batches, mut busy) = (0_u32, Duration::ZERO);
    while busy < BARE_SLICE {
        let file = zeroed_file(&dir.path().join("bare"), BARE_FILE_BYTES);
        for number in 0..(BARE_FILE_BYTES / batch_bytes) as u64 {
            let started = Instant::now();
            file.write_all_at(&batch, number * batch_bytes as u64)
                .expect("the file takes it");
            file.sync_data().expect("the file syncs");
            busy += started.elapsed();
            batches += 1;
            if busy >= BARE_SLICE {
                break;
            }
        }
    }
    f64::from(batches) / busy.as_secs_f64()
}

fn zeroed_file(path: &Path, bytes: usize) -> File {
    let file = File::create(path).expect("the file can be made");
    file.write_all_at(&vec![0; bytes], 0)
        .expect("the file takes it");
    file.sync_all().expect("the file syncs");
    file
}
