//! The time of day.

use schemas::ids::TimestampMs;

/// The time of day, which may step in either direction.
///
/// Only the log asks it, to stamp records, and whoever must guess whether a deadline is due
/// before the log says so. No decision depends on it.
pub trait Clock: Send + Sync {
    /// Now, in milliseconds since the Unix epoch.
    fn now_ms(&self) -> TimestampMs;
}

/// The machine's own clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> TimestampMs {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since_epoch.map_or(0, |elapsed| elapsed.as_millis() as TimestampMs)
    }
}
