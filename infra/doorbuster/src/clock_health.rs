//! The health of the machine's clock.

use std::convert::Infallible;
use std::sync::Arc;

use ports::CheckedClock;
use runtime::health::{Component, REPORT_EVERY};
use tracing::{info, warn};

/// The name of the clock in the health report.
pub const COMPONENT: &str = "clock";

/// Reports whether the machine's clock is taken for right, and logs when that changes.
pub async fn watch(clock: Arc<CheckedClock>, component: Component) -> Infallible {
    let mut interval = tokio::time::interval(REPORT_EVERY);
    let mut in_doubt = false;
    loop {
        interval.tick().await;
        let doubt = clock.doubt();
        match &doubt {
            Some(doubt) => {
                if !in_doubt {
                    warn!("{doubt}");
                }
                component.degraded(doubt.to_string());
            }
            None => {
                if in_doubt {
                    info!("the machine's clock is taken for right again");
                }
                component.working();
            }
        }
        in_doubt = doubt.is_some();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
    use std::time::Duration;

    use ports::Clock;
    use runtime::health::Health;
    use schemas::ids::TimestampMs;

    use super::*;

    /// A clock that is set by hand.
    struct SetClock(AtomicI64);

    impl Clock for SetClock {
        fn now_ms(&self) -> TimestampMs {
            self.0.load(Relaxed)
        }

        fn elapsed(&self) -> Duration {
            Duration::ZERO
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_jumps_is_degraded_until_it_is_called_right() {
        let machine = Arc::new(SetClock(AtomicI64::new(1_800_000_000_000)));
        let clock = CheckedClock::new(machine.clone(), Duration::from_secs(60));
        let clock = Arc::new(clock);
        let health = Health::default();
        tokio::spawn(watch(clock.clone(), health.component(COMPONENT)));
        let is_degraded = |expected: bool| {
            let health = &health;
            async move {
                while health.report()[0].degraded != expected || !health.is_ready() {
                    tokio::time::sleep(REPORT_EVERY).await;
                }
            }
        };
        is_degraded(false).await;
        machine.0.fetch_add(3_600_000, Relaxed);
        is_degraded(true).await;
        let detail = health.report()[0].detail.clone();
        assert!(detail.contains("3600 s ahead"), "{detail}");
        clock.trust();
        is_degraded(false).await;
    }
}
