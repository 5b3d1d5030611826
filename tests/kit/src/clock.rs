//! A clock that a test sets.

use std::sync::atomic::{AtomicI64, Ordering};

use ports::Clock;
use schemas::ids::TimestampMs;

/// A clock that a test sets. It stands still, or runs with tokio's time, so that tokio's paused time
/// drives it.
#[derive(Debug)]
pub struct ManualClock {
    origin_ms: AtomicI64,
    /// When it started to run; none when it stands still.
    began: Option<tokio::time::Instant>,
}

impl ManualClock {
    /// A clock that shows this time now and runs.
    pub fn at(now_ms: TimestampMs) -> Self {
        Self {
            origin_ms: AtomicI64::new(now_ms),
            began: Some(tokio::time::Instant::now()),
        }
    }

    /// A clock that shows this time until [`ManualClock::step`] changes it.
    pub fn still_at(now_ms: TimestampMs) -> Self {
        Self {
            origin_ms: AtomicI64::new(now_ms),
            began: None,
        }
    }

    /// Steps the clock forwards, or backwards by a negative number of milliseconds.
    pub fn step(&self, by_ms: i64) {
        self.origin_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> TimestampMs {
        let elapsed = self.began.map_or(0, |began| began.elapsed().as_millis());
        self.origin_ms.load(Ordering::Relaxed) + elapsed as i64
    }
}
