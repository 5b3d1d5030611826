//! Whether the clock that stamps the log's records agrees with this process's own.

use schemas::ids::{Partition, TimestampMs};

/// The most that the two may differ, as for the jumps of a machine's clock by default.
const MAX_DIFFERENCE_MS: i64 = 60_000;

/// What the times of the partition's own decisions show about the log's clock.
#[derive(Default)]
pub(super) struct LogTime {
    /// When the oldest decision was made that is not read back yet.
    made_ms: TimestampMs,
    /// By how much the log's clock is ahead; negative: behind.
    ahead_ms: i64,
}

impl LogTime {
    /// A decision is made while none waits to be read back.
    pub(super) fn begin(&mut self, now_ms: TimestampMs) {
        self.made_ms = now_ms;
    }

    /// A decision is read back: the log appended it after it was made, and before now.
    pub(super) fn observe(&mut self, appended_at_ms: TimestampMs, now_ms: TimestampMs) {
        let after_now_ms = appended_at_ms.saturating_sub(now_ms).max(0);
        let before_made_ms = appended_at_ms.saturating_sub(self.made_ms).min(0);
        self.ahead_ms = if after_now_ms > 0 {
            after_now_ms
        } else {
            before_made_ms
        };
    }

    /// What is wrong, and what to do about it; none when the clocks agree.
    pub(super) fn complaint(&self, partition: Partition) -> Option<String> {
        let differs_ms = self.ahead_ms.unsigned_abs();
        if differs_ms <= MAX_DIFFERENCE_MS.unsigned_abs() {
            return None;
        }
        let side = if self.ahead_ms > 0 {
            "ahead of"
        } else {
            "behind"
        };
        Some(format!(
            "the log stamps records of partition {partition} {} s {side} this process's clock: holds and \
             windows are wrong by as much; set the clock of the broker that leads the partition right, \
             or this machine's, then correct the time (\"The time is wrong\" in the runbook)",
            differs_ms / 1_000
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TimestampMs = 1_800_000_000_000;

    #[test]
    fn a_log_that_stamps_another_time_is_found() {
        let found = |appended_at_ms| {
            let mut time = LogTime::default();
            time.begin(NOW - 120_000);
            time.observe(appended_at_ms, NOW);
            time.complaint(Partition(3))
        };
        // A decision may have been on its way for two minutes.
        for agrees in [NOW - 180_000, NOW - 90_000, NOW, NOW + 60_000] {
            assert_eq!(found(agrees), None, "{agrees}");
        }
        let ahead = found(NOW + 3_600_000).unwrap();
        assert!(ahead.contains("partition 3 3600 s ahead of"), "{ahead}");
        let behind = found(NOW - 120_000 - 3_600_000).unwrap();
        assert!(behind.contains("partition 3 3600 s behind"), "{behind}");
        assert!(found(TimestampMs::MIN).is_some() && found(TimestampMs::MAX).is_some());
    }
}
