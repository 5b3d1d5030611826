//! The embedded log against a bare loop of write and sync with batches of the same size: what
//! does everything around the disk cost?

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use log_embedded::{EmbeddedLog, Options};
use ports::clock::SystemClock;
use ports::{EventLog, NewRecord};
use schemas::ids::Partition;
use schemas::topics::Topic;

const VALUE_BYTES: usize = 200;
const RUN: Duration = Duration::from_secs(4);

/// Runs the comparison with several loads and prints a table. Takes about half a minute.
pub fn run() {
    println!("embedded log: {VALUE_BYTES}-byte values, 8 partitions, one fdatasync a group");
    println!(
        "{:>9} {:>9} {:>12} {:>9} {:>9} {:>12} {:>12} {:>6}",
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
        let log = append(appenders, per_call);
        let bare = bare_batches_per_second(log.batch_bytes) * log.records_per_batch;
        println!(
            "{appenders:>9} {per_call:>9} {:>12.0} {:>9} {:>9} {:>12} {bare:>12.0} {:>6.2}",
            log.records_per_second,
            log.p50_us,
            log.p99_us,
            log.batch_bytes,
            log.records_per_second / bare,
        );
    }
}

struct Figures {
    records_per_second: f64,
    p50_us: u32,
    p99_us: u32,
    batch_bytes: usize,
    records_per_batch: f64,
}

/// Appends from so many tasks at once, each with one call under way.
fn append(appenders: u32, per_call: usize) -> Figures {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let log = EmbeddedLog::open(dir.path(), Options::default(), Arc::new(SystemClock));
    let log = Arc::new(log.expect("a new directory opens"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build();
    let runtime = runtime.expect("a runtime can be made");
    let started = Instant::now();
    let mut latencies = runtime.block_on(async {
        let appender = |number| tokio::spawn(appender(log.clone(), number, per_call, started));
        let appenders: Vec<_> = (0..appenders).map(appender).collect();
        let mut all = Vec::new();
        for appender in appenders {
            all.extend(appender.await.expect("no appender panics"));
        }
        all
    });
    let records = (latencies.len() * per_call) as f64;
    let records_per_second = records / started.elapsed().as_secs_f64();
    let written = log.written();
    latencies.sort_unstable();
    Figures {
        records_per_second,
        p50_us: latencies[latencies.len() / 2],
        p99_us: latencies[latencies.len() / 100 * 99],
        batch_bytes: (written.bytes / written.batches) as usize,
        records_per_batch: records / written.batches as f64,
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
    while started.elapsed() < RUN {
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

/// Writes and syncs batches of so many bytes, one after the other, into files made as the
/// log makes its segments.
fn bare_batches_per_second(batch_bytes: usize) -> f64 {
    let dir = tempfile::tempdir().expect("a temporary directory can be made");
    let batch = vec![b'x'; batch_bytes];
    let (mut batches, mut busy) = (0_u32, Duration::ZERO);
    while busy < RUN / 2 {
        let file = zeroed_file(&dir.path().join("bare"), 64 << 20);
        for number in 0..(64 << 20) / batch_bytes as u64 {
            let started = Instant::now();
            file.write_all_at(&batch, number * batch_bytes as u64)
                .expect("the file takes it");
            file.sync_data().expect("the file syncs");
            busy += started.elapsed();
            batches += 1;
            if busy >= RUN / 2 {
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
