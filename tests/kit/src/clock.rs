use std::sync::atomic::{AtomicI64, Ordering};

use ports::Clock;
use schemas::ids::TimestampMs;

/// A clock that a test sets; it also goes with tokio's time, so that paused time drives it.
#[derive(Debug)]
pub struct ManualClock {
    origin_ms: AtomicI64,
    began: tokio::time::Instant,
}

impl ManualClock {
    /// A clock that shows this time now.
    pub fn at(now_ms: TimestampMs) -> Self {
        Self {
            origin_ms: AtomicI64::new(now_ms),
            began: tokio::time::Instant::now(),
        }
    }

    /// Steps the clock, forth or back.
    pub fn step(&self, by_ms: i64) {
        self.origin_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> TimestampMs {
        self.origin_ms.load(Ordering::Relaxed) + self.began.elapsed().as_millis() as i64
    }
}
