//! What every event log must do.
//!
//! Every case begins with an empty log. Those that read look twice where it can matter: at
//! once, and after the log has been closed and opened again, since an adapter may answer from
//! different places.

mod subject;

mod appending;
mod kill;
mod reading;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use log_embedded::EmbeddedLog;
use log_kafka::KafkaLog;
use ports::{Clock, EventLog};

use subject::{PARTITIONS, Subject};

/// A log under test. Its place is a directory, which is empty at first.
struct Adapter {
    name: &'static str,
    open: Open,
    /// Whether the log's time is the clock's that it is opened with.
    has_our_clock: bool,
}

type Open = for<'a> fn(&'a Path, Arc<dyn Clock>, Queue) -> BoxFuture<'a, Opened>;

/// An open log.
struct Opened {
    log: Arc<dyn EventLog>,
    /// The same, when it takes more to close it than dropping it.
    to_close: Option<Arc<KafkaLog>>,
}

/// How much may wait to be appended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    /// More than any case but one appends at once.
    Usual,
    /// A few records.
    Short,
}

impl Queue {
    fn records(self) -> usize {
        if self == Queue::Short { 4 } else { 10_000 }
    }
}

const ADAPTERS: &[Adapter] = &[
    Adapter {
        name: "embedded",
        open: |place, clock, queue| open_embedded(place, clock, queue).boxed(),
        has_our_clock: true,
    },
    Adapter {
        name: "kafka",
        open: |place, _, queue| open_kafka(place, queue).boxed(),
        has_our_clock: false,
    },
];

async fn open_embedded(place: &Path, clock: Arc<dyn Clock>, queue: Queue) -> Opened {
    let options = log_embedded::Options {
        partitions: PARTITIONS,
        // Every case of some size goes through several segments.
        segment_bytes: 2 << 20,
        queue_bytes: 1 << 20,
        queue_records: queue.records(),
        recent_bytes: 64 << 10,
    };
    let log = EmbeddedLog::open(place, options, clock).unwrap();
    Opened {
        log: Arc::new(log),
        to_close: None,
    }
}

/// The place's name is what the names of its topics begin with.
async fn open_kafka(place: &Path, queue: Queue) -> Opened {
    let name = place.file_name().unwrap().to_str().unwrap();
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
        session_timeout: Duration::from_secs(6),
        security: log_kafka::Security::default(),
    };
    let log = Arc::new(KafkaLog::open(options).await.unwrap());
    Opened {
        log: log.clone(),
        to_close: Some(log),
    }
}

/// One case under one adapter.
type Case = for<'a> fn(&'a mut Subject) -> BoxFuture<'a, ()>;

const CASES: &[(&str, Case)] = &[
    ("a record reads as it was appended", |s| {
        appending::record_reads_as_appended(s).boxed()
    }),
    ("partitions and topics keep their own order", |s| {
        appending::each_keeps_its_order(s).boxed()
    }),
    (
        "calls keep their order though none waits for another",
        |s| appending::calls_keep_their_order(s).boxed(),
    ),
    ("many append while others read", |s| {
        appending::many_append_while_others_read(s).boxed()
    }),
    ("append times never fall", |s| {
        appending::times_never_fall(s).boxed()
    }),
    ("what is too large is refused, the largest is taken", |s| {
        appending::too_large_is_refused(s).boxed()
    }),
    ("a full queue refuses and loses nothing", |s| {
        appending::full_queue_refuses(s).boxed()
    }),
    ("a closed log goes on where it ended", |s| {
        appending::goes_on_where_it_ended(s).boxed()
    }),
    ("the end is behind the last record", |s| {
        reading::end_is_behind_the_last(s).boxed()
    }),
    ("offsets are found by time", |s| {
        reading::offsets_by_time(s).boxed()
    }),
    ("reading begins at any offset", |s| {
        reading::begins_at_any_offset(s).boxed()
    }),
    ("reading from beyond the end waits", |s| {
        reading::beyond_the_end_waits(s).boxed()
    }),
    ("a reader given up loses nothing", |s| {
        reading::given_up_loses_nothing(s).boxed()
    }),
    ("a group's members have all partitions", |s| {
        reading::assignment_has_all_partitions(s).boxed()
    }),
    ("what was acknowledged outlasts SIGKILL", |s| {
        kill::acknowledged_outlasts_sigkill(s).boxed()
    }),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_event_log_passes_every_case() {
    for adapter in ADAPTERS {
        let name = adapter.name;
        for (case, run) in CASES {
            println!("{name}: {case}");
            let mut subject = Subject::new(adapter).await;
            let run = tokio::time::timeout(Duration::from_secs(120), run(&mut subject));
            run.await
                .unwrap_or_else(|_| panic!("{name}: {case}: is not done in 120 seconds"));
        }
    }
}
