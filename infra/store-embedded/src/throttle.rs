//! Throttling of the thread that writes the file, so that threads that answer requests find a
//! free core.

use std::cell::Cell;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::memtables::Memtables;

/// The thread pauses for this many times the processor time it has used. Without pauses it would
/// occupy a core for half a second or more. A thread that is woken on that core waits some
/// milliseconds until the scheduler preempts the writer, in spite of the writer's lower priority,
/// and one HTTP answer takes many wake-ups.
const PAUSE_FACTOR: u32 = 2;

thread_local! {
    /// The processor time that this thread had used when it last paused.
    static USED_AT_LAST_PAUSE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Pauses in proportion to the processor time used since the last pause. Does not pause while the
/// next flush is urgent.
pub(crate) fn pause(memtables: &Memtables) {
    let used = processor_time();
    let worked = used.saturating_sub(USED_AT_LAST_PAUSE.replace(used));
    if !memtables.flush_is_urgent() {
        std::thread::sleep(worked * PAUSE_FACTOR);
    }
}

/// All processor time that this thread has used.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
