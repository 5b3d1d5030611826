//! Rests of the thread that writes the file, so that whoever answers finds a core.

use std::cell::Cell;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use crate::recent::Layers;

/// The thread rests so many times as long as it had a core. Without the rests it would have one
/// for half a second and more; whoever is woken there waits for it to be put off, some milliseconds
/// each time and for all its lower priority, and an answer takes many wakings.
const TIMES: u32 = 2;

thread_local! {
    /// How long this thread had had a core when it last rested.
    static RESTED_AT: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Rests from the work done since the last rest, unless what gathers meanwhile is urgent.
pub(crate) fn rest(layers: &Layers) {
    let had = had_a_core();
    let worked = had.saturating_sub(RESTED_AT.replace(had));
    if !layers.are_urgent() {
        std::thread::sleep(worked * TIMES);
    }
}

/// How long this thread has had a core in all.
fn had_a_core() -> Duration {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}
