//! Trying again after a failure. Every failure is reported to the health component, which logs
//! it once until it changes, and logs the recovery.

use std::fmt::Display;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::health::Component;

/// The pause between a failure of a service's own work and the next attempt.
pub const RETRY_AFTER: Duration = Duration::from_millis(500);

/// Calls `attempt` until it succeeds, and pauses for `pause` after every failure. To stop
/// earlier, drop the future.
pub async fn until_ok<T, E: Display, F: Future<Output = Result<T, E>>>(
    component: &Component,
    pause: Duration,
    attempt: impl Fn() -> F,
) -> T {
    loop {
        match attempt().await {
            Ok(value) => {
                component.recovered();
                return value;
            }
            Err(error) => component.failed(&error),
        }
        tokio::time::sleep(pause).await;
    }
}

/// Keeps endless work going: calls `work` again [`RETRY_AFTER`] after every failure. Returns when
/// `work` returns Ok, which it must do soon after `stop` is cancelled, or when `stop` is
/// cancelled during a pause.
pub async fn until_stopped<E: Display, F: Future<Output = Result<(), E>>>(
    component: &Component,
    stop: &CancellationToken,
    work: impl Fn() -> F,
) {
    while let Err(error) = work().await {
        component.failed(&error);
        if pause_or_stop(stop).await {
            return;
        }
    }
}

/// Waits for [`RETRY_AFTER`], or until `stop` is cancelled; returns whether it was cancelled. For
/// loops that must distinguish how their work ended.
pub async fn pause_or_stop(stop: &CancellationToken) -> bool {
    tokio::select! {
        () = tokio::time::sleep(RETRY_AFTER) => false,
        () = stop.cancelled() => true,
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use tokio::time::Instant;

    use super::*;
    use crate::health::Health;

    #[tokio::test(start_paused = true)]
    async fn work_is_tried_until_it_succeeds_and_its_failures_are_reported() {
        let health = Health::default();
        let component = health.component("live store");
        let (started, attempts) = (Instant::now(), Cell::new(0));
        let result = until_ok(&component, RETRY_AFTER, || async {
            if attempts.get() > 0 {
                assert_eq!(health.report()[0].detail, "no store");
            }
            attempts.update(|attempts| attempts + 1);
            match attempts.get() {
                4 => Ok("loaded"),
                _ => Err("no store"),
            }
        });
        assert_eq!(result.await, "loaded");
        assert_eq!(started.elapsed(), 3 * RETRY_AFTER);
        assert_eq!(health.report()[0].detail, "starting");
    }

    #[tokio::test(start_paused = true)]
    async fn endless_work_ends_at_the_stop_also_during_a_pause() {
        let component = Health::default().component("projector 3");
        let (stop, attempts) = (CancellationToken::new(), Cell::new(0));
        until_stopped(&component, &stop, || async {
            attempts.update(|attempts| attempts + 1);
            if attempts.get() == 3 {
                stop.cancel();
            }
            Err("no log")
        })
        .await;
        assert_eq!(attempts.get(), 3);
        until_stopped(&component, &stop, || async { Ok::<_, String>(()) }).await;
    }
}
