//! The time of day.

use schemas::ids::TimestampMs;

/// The time of day, which may step forwards and backwards.
///
/// The log stamps records with it, and the decider uses it to guess when a deadline is due. No
/// decision depends on it: decisions use the log's time stamps.
pub trait Clock: Send + Sync {
    /// Now, in milliseconds since the Unix epoch.
    fn now_ms(&self) -> TimestampMs;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> TimestampMs {
        let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        since_epoch.map_or(0, |elapsed| elapsed.as_millis() as TimestampMs)
    }
}
