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
use log_embedded::{EmbeddedLog, Options};
use ports::{Clock, EventLog};

use subject::{PARTITIONS, Subject};

/// Opens the log at a place, which is empty the first time. Dropping the log closes it.
type Open = fn(&Path, Arc<dyn Clock>, Queue) -> Arc<dyn EventLog>;

/// How much may wait to be appended.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    /// More than any case but one appends at once.
    Usual,
    /// A few records.
    Short,
}

const ADAPTERS: &[(&str, Open)] = &[("embedded", |place, clock, queue| {
    let options = Options {
        partitions: PARTITIONS,
        // Every case of some size goes through several segments.
        segment_bytes: 2 << 20,
        queue_bytes: 1 << 20,
        queue_records: if queue == Queue::Short { 4 } else { 10_000 },
        recent_bytes: 64 << 10,
    };
    Arc::new(EmbeddedLog::open(place, options, clock).unwrap())
})];

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
    for (adapter, open) in ADAPTERS {
        for (case, run) in CASES {
            println!("{adapter}: {case}");
            let mut subject = Subject::new(adapter, *open);
            let run = tokio::time::timeout(Duration::from_secs(120), run(&mut subject));
            run.await
                .unwrap_or_else(|_| panic!("{adapter}: {case}: is not done in 120 seconds"));
        }
    }
}
