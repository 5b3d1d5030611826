//! A clock that a test sets.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use ports::Clock;
use schemas::ids::TimestampMs;

/// A clock that a test sets. It stands still, or runs with tokio's time, so that tokio's paused time
/// drives it.
#[derive(Debug)]
pub struct ManualClock {
    origin_ms: AtomicI64,
    /// The time that has passed on a clock that stands still.
    passed_ms: AtomicI64,
    /// When it started to run; none when it stands still.
    began: Option<tokio::time::Instant>,
}

impl ManualClock {
    /// A clock that shows this time now and runs.
    pub fn at(now_ms: TimestampMs) -> Self {
        Self {
            origin_ms: AtomicI64::new(now_ms),
            passed_ms: AtomicI64::new(0),
            began: Some(tokio::time::Instant::now()),
        }
    }

    /// A clock that shows this time until [`ManualClock::step`] or [`ManualClock::pass`] changes it.
    pub fn still_at(now_ms: TimestampMs) -> Self {
        Self {
            origin_ms: AtomicI64::new(now_ms),
            passed_ms: AtomicI64::new(0),
            began: None,
        }
    }

    /// Lets time pass on a clock that stands still.
    pub fn pass(&self, ms: u32) {
        self.passed_ms.fetch_add(ms.into(), Ordering::Relaxed);
    }

    /// Steps the clock forwards, or backwards by a negative number of milliseconds, without time
    /// passing.
    pub fn step(&self, by_ms: i64) {
        self.origin_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for ManualClock {
    fn now_ms(&self) -> TimestampMs {
        self.origin_ms.load(Ordering::Relaxed) + self.elapsed().as_millis() as i64
    }

    fn elapsed(&self) -> Duration {
        let passed_ms = self.passed_ms.load(Ordering::Relaxed) as u64;
        let ran = self.began.map_or(Duration::ZERO, |began| began.elapsed());
        ran + Duration::from_millis(passed_ms)
    }
}
