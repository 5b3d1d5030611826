//! Preparing segments: a thread creates them in advance, so that the writer does not wait for one.
//!
//! Creating a segment needs space and a file descriptor, and either may be missing for a while. The
//! thread then tries again, ever less often, until it succeeds or the writer ends. Meanwhile the log
//! takes what fits into the segments that there are.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::files::Files;
use crate::format;
use crate::segment::Segment;

/// The pause after the first failure; twice as long after each further one.
const RETRY_AFTER: Duration = Duration::from_millis(5);
/// The longest such pause.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5);

/// The segments that the writer goes on to.
pub(crate) struct Prepared {
    hand_over: Arc<HandOver>,
    thread: JoinHandle<()>,
}

/// Where the thread hands over segments to the writer.
#[derive(Default)]
pub(crate) struct HandOver {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The next segment, until the writer takes it.
    next: Option<Segment>,
    /// Why the last attempt to create a segment failed, until one succeeds.
    failure: Option<String>,
    /// Whether the writer has ended.
    writer_ended: bool,
    /// Whether the thread has ended, which it does before the writer only by a panic.
    thread_ended: bool,
}

impl Prepared {
    /// Starts the thread. It hands over the segments in `ready`, then creates further ones from this
    /// number on.
    pub(crate) fn start(
        hand_over: Arc<HandOver>,
        files: Arc<dyn Files>,
        log_id: u64,
        next_number: u32,
        bytes: u64,
        ready: Vec<Segment>,
    ) -> io::Result<Self> {
        let its_hand_over = hand_over.clone();
        let prepare = move || {
            let _ended = ThreadEnded(&its_hand_over);
            prepare(&*files, log_id, next_number, bytes, ready, &its_hand_over);
        };
        let thread = std::thread::Builder::new().name("log-segments".to_owned());
        let thread = thread.spawn(prepare)?;
        Ok(Self { hand_over, thread })
    }

    /// The next segment; waits while it is being created. None while segments cannot be created.
    ///
    /// # Errors
    ///
    /// The thread panicked, so there will be no further segment.
    pub(crate) fn take(&self) -> io::Result<Option<Segment>> {
        let mut state = self.hand_over.state.lock();
        loop {
            if let Some(segment) = state.next.take() {
                self.hand_over.changed.notify_all();
                return Ok(Some(segment));
            }
            if state.thread_ended {
                let why = "no further segment can be prepared: the thread that does it panicked";
                return Err(io::Error::other(why));
            }
            if state.failure.is_some() {
                return Ok(None);
            }
            self.hand_over.changed.wait(&mut state);
        }
    }

    /// Ends the thread, and waits for it.
    pub(crate) fn end(self) {
        self.hand_over.state.lock().writer_ended = true;
        self.hand_over.changed.notify_all();
        // If the thread panicked it made no segment, and none is needed any more.
        let _ = self.thread.join();
    }
}

impl HandOver {
    /// Why segments cannot be created at the moment; none when they can.
    pub(crate) fn failure(&self) -> Option<String> {
        self.state.lock().failure.clone()
    }

    /// Hands over a segment and waits until the writer has taken it. Returns false when the writer
    /// has ended.
    fn give(&self, segment: Segment) -> bool {
        let mut state = self.state.lock();
        state.next = Some(segment);
        self.changed.notify_all();
        while state.next.is_some() && !state.writer_ended {
            self.changed.wait(&mut state);
        }
        !state.writer_ended
    }

    /// Creates a segment; after a failure tries again until it succeeds. None when the writer has
    /// ended meanwhile.
    fn create(&self, files: &dyn Files, log_id: u64, number: u32, bytes: u64) -> Option<Segment> {
        let name = format::segment_name(number);
        let mut pause = RETRY_AFTER;
        loop {
            let error = match Segment::create(files, log_id, number, bytes) {
                Ok(segment) => {
                    if self.state.lock().failure.take().is_some() {
                        tracing::info!(segment = name, "created the next segment after all");
                    }
                    return Some(segment);
                }
                Err(error) => format!("the next segment {name} cannot be created: {error}"),
            };
            let mut state = self.state.lock();
            if state.failure.as_ref() != Some(&error) {
                tracing::warn!(
                    error,
                    "trying again; check the disk's free space and the limit of open files. When \
                     the current segment is full, the log takes no records until this succeeds"
                );
                state.failure = Some(error);
                // The writer may be waiting for this segment.
                self.changed.notify_all();
            }
            while !state.writer_ended && !self.changed.wait_for(&mut state, pause).timed_out() {}
            if state.writer_ended {
                return None;
            }
            drop(state);
            pause = (2 * pause).min(MAX_RETRY_AFTER);
        }
    }
}

/// Hands over the segments that are ready, then creates one after the other in advance, until the
/// writer has ended.
///
/// A segment is handed over once its successor is durable. So if the file that was written last is
/// lost, its successor shows that the log did not end before it.
fn prepare(
    files: &dyn Files,
    log_id: u64,
    next_number: u32,
    bytes: u64,
    ready: Vec<Segment>,
    hand_over: &HandOver,
) {
    let made = (next_number..).map_while(|number| hand_over.create(files, log_id, number, bytes));
    let mut last_made = None;
    for segment in ready.into_iter().chain(made) {
        let next = last_made.replace(segment);
        if next.is_some_and(|next| !hand_over.give(next)) {
            return;
        }
    }
}

/// Notes the thread's end, however it ends, so that the writer does not wait for it.
struct ThreadEnded<'a>(&'a HandOver);

impl Drop for ThreadEnded<'_> {
    fn drop(&mut self) {
        self.0.state.lock().thread_ended = true;
        self.0.changed.notify_all();
    }
}
