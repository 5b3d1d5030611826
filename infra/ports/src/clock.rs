//! The time of day, and the time that passes.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use schemas::ids::TimestampMs;

/// A machine's clock.
///
/// The log stamps records with it, and the decider uses it to guess when a deadline is due. No
/// decision depends on it: decisions use the log's time stamps.
pub trait Clock: Send + Sync {
    /// The time of day, in milliseconds since the Unix epoch. It may step forwards and backwards.
    fn now_ms(&self) -> TimestampMs;

    /// The time that has passed since some moment before. It never steps, and stands still while the
    /// machine is suspended.
    fn elapsed(&self) -> Duration;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> TimestampMs {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since_epoch.map_or(0, |elapsed| elapsed.as_millis() as TimestampMs)
    }

    fn elapsed(&self) -> Duration {
        static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
        BEGAN.elapsed()
    }
}
