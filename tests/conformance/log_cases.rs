//! What every event log must do.
//!
//! Every case begins with an empty log. Most cases read twice: at once, and after the log has been
//! closed and opened again, since an adapter may answer from memory first and from disk later.

mod subject;

mod appending;
mod kill;
mod reading;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kit::{Faults, FaultyLog, MemoryLog};
use log_embedded::EmbeddedLog;
use log_kafka::KafkaLog;
use parking_lot::Mutex;
use ports::{CheckedClock, Clock, EventLog};

use subject::{PARTITIONS, Subject};

/// A log under test. It is kept in a directory, which is empty at first.
struct Adapter {
    name: &'static str,
    open: Open,
    /// Whether the log stamps records with the clock that it is opened with.
    uses_our_clock: bool,
    /// Whether records wait in a queue, which can be full.
    has_queue: bool,
    /// Whether the log outlives the process that wrote it.
    outlives_process: bool,
}

type Open = for<'a> fn(&'a Path, Arc<dyn Clock>, Queue) -> BoxFuture<'a, Opened>;

/// An open log.
struct Opened {
    log: Arc<dyn EventLog>,
    /// The same log, if dropping it does not close it.
    to_close: Option<Arc<KafkaLog>>,
}

/// The capacity of the append queue.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    /// More records than any case but one appends at once.
    Usual,
    /// A few records.
    Short,
}

impl Queue {
    fn records(self) -> usize {
        if self == Queue::Short { 4 } else { 10_000 }
    }
}

static EMBEDDED: Adapter = Adapter {
    name: "embedded",
    open: |dir, clock, queue| open_embedded(dir, clock, queue).boxed(),
    uses_our_clock: true,
    has_queue: true,
    outlives_process: true,
};

static KAFKA: Adapter = Adapter {
    name: "kafka",
    open: |dir, _, queue| open_kafka(dir, queue).boxed(),
    uses_our_clock: false,
    has_queue: true,
    outlives_process: true,
};

static MEMORY: Adapter = Adapter {
    name: "memory",
    open: |dir, clock, _| open_memory(dir, clock).boxed(),
    uses_our_clock: true,
    has_queue: false,
    outlives_process: false,
};

/// The double that injects faults, with those that delay answers. Its other faults are errors, which
/// the cases do not expect, and calls that overtake each other.
static MEMORY_WITH_DELAYS: Adapter = Adapter {
    name: "memory with delays",
    open: |dir, clock, _| open_with_delays(dir, clock).boxed(),
    ..MEMORY
};

async fn open_embedded(dir: &Path, clock: Arc<dyn Clock>, queue: Queue) -> Opened {
    let options = log_embedded::Options {
        partitions: PARTITIONS,
        // Small enough for the larger cases to fill several segments.
        segment_bytes: 2 << 20,
        queue_bytes: 1 << 20,
        queue_records: queue.records(),
        recent_bytes: 64 << 10,
    };
    // The cases step the clock; which of its jumps are followed is tested beside it.
    let clock = Arc::new(CheckedClock::new(clock, Duration::MAX));
    let log = EmbeddedLog::open(dir, options, clock).unwrap();
    Opened {
        log: Arc::new(log),
        to_close: None,
    }
}

/// The directory's name is part of the topics' names; nothing is kept in it.
async fn open_kafka(dir: &Path, queue: Queue) -> Opened {
    let name = dir.file_name().unwrap().to_str().unwrap();
    let topic_prefix = format!("conformance{name}-");
    let brokers = tokio::task::spawn_blocking(|| engines::shared().kafka_brokers());
    let brokers = brokers.await.unwrap();
    let replication = brokers.split(',').count().min(3) as u32;
    let options = log_kafka::Options {
        brokers,
        topic_prefix,
        partitions: PARTITIONS,
        replication,
        min_insync: replication.min(2),
        queue_records: queue.records(),
        queue_bytes: 1 << 20,
        append_timeout: Duration::from_secs(8),
        session_timeout: Duration::from_secs(6),
        security: log_kafka::Security::default(),
    };
    let log = Arc::new(KafkaLog::open(options).await.unwrap());
    Opened {
        log: log.clone(),
        to_close: Some(log),
    }
}

/// The log in memory that stands for a directory.
fn memory_log(dir: &Path, clock: Arc<dyn Clock>) -> MemoryLog {
    static LOGS: Mutex<BTreeMap<PathBuf, MemoryLog>> = Mutex::new(BTreeMap::new());
    let mut logs = LOGS.lock();
    let log = logs.entry(dir.to_owned());
    log.or_insert_with(|| MemoryLog::new(PARTITIONS, clock))
        .clone()
}

async fn open_memory(dir: &Path, clock: Arc<dyn Clock>) -> Opened {
    Opened {
        log: Arc::new(memory_log(dir, clock)),
        to_close: None,
    }
}

async fn open_with_delays(dir: &Path, clock: Arc<dyn Clock>) -> Opened {
    let delays = Faults {
        slow_after: 20,
        slow_read: 100,
        longest: Duration::from_millis(3),
        ..Faults::default()
    };
    let log = Arc::new(memory_log(dir, clock));
    Opened {
        log: Arc::new(FaultyLog::new(log, delays, 7)),
        to_close: None,
    }
}

/// A case, run over one adapter.
type Case = for<'a> fn(&'a mut Subject) -> BoxFuture<'a, ()>;

const CASES: &[(&str, Case)] = &[
    ("a record reads as it was appended", |s| {
        appending::record_reads_as_appended(s).boxed()
    }),
    ("partitions and topics keep their own order", |s| {
        appending::each_keeps_its_order(s).boxed()
    }),
    (
        "calls keep their order though none waits for the one before",
        |s| appending::calls_keep_their_order(s).boxed(),
    ),
    ("many append while others read", |s| {
        appending::many_append_while_others_read(s).boxed()
    }),
    ("append times never fall", |s| {
        appending::times_never_fall(s).boxed()
    }),
    ("a corrected clock stamps true times again", |s| {
        appending::corrected_clock_stamps_true_times(s).boxed()
    }),
    (
        "records above the bounds are refused, at the bounds taken",
        |s| appending::too_large_is_refused(s).boxed(),
    ),
    ("a full queue refuses and loses nothing", |s| {
        appending::full_queue_refuses(s).boxed()
    }),
    ("a reopened log continues at its end", |s| {
        appending::continues_at_its_end(s).boxed()
    }),
    ("a partition that does not exist is refused", |s| {
        appending::unknown_partition_is_refused(s).boxed()
    }),
    ("the end is after the last record", |s| {
        reading::end_is_after_the_last(s).boxed()
    }),
    ("offsets are found by time", |s| {
        reading::offsets_by_time(s).boxed()
    }),
    ("reading begins at any offset", |s| {
        reading::begins_at_any_offset(s).boxed()
    }),
    ("reading at the end waits", |s| {
        reading::at_the_end_waits(s).boxed()
    }),
    ("reading from beyond the end is refused", |s| {
        reading::beyond_the_end_is_refused(s).boxed()
    }),
    ("a dropped call of a reader loses nothing", |s| {
        reading::dropped_call_loses_nothing(s).boxed()
    }),
    ("records from the forgotten offset on stay", |s| {
        reading::forgetting_keeps_the_rest(s).boxed()
    }),
    ("the only member of a group has all partitions", |s| {
        reading::assignment_has_all_partitions(s).boxed()
    }),
    ("acknowledged records survive SIGKILL", |s| {
        kill::acknowledged_survives_sigkill(s).boxed()
    }),
];

async fn pass_every_case(adapter: &'static Adapter) {
    let name = adapter.name;
    for (case, run) in CASES {
        println!("{name}: {case}");
        let mut subject = Subject::new(adapter).await;
        let run = tokio::time::timeout(Duration::from_secs(120), run(&mut subject));
        run.await
            .unwrap_or_else(|_| panic!("{name}: {case}: not done within 120 seconds"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_log_passes_every_case() {
    pass_every_case(&EMBEDDED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kafka_log_passes_every_case() {
    pass_every_case(&KAFKA).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_in_memory_passes_every_case() {
    pass_every_case(&MEMORY).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_in_memory_passes_every_case_with_delays() {
    pass_every_case(&MEMORY_WITH_DELAYS).await;
}
