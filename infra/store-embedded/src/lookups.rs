//! Look-ups of attempts by id. Each searches all shards, which takes the longer the more there are, and
//! anybody may request one for an id that does not exist. So they run on a few threads of their own,
//! beside those that decide, and only so many wait for these threads.

use std::sync::Arc;

use ports::read_store::StoreError;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

/// How many look-ups run at the same time.
const RUNNING: usize = 2;
/// How many run or wait. At half a millisecond each, the last one waits a quarter of a second.
const MAX_WAITING: usize = 1_000;

/// Runs look-ups, a few at a time.
pub(crate) struct Lookups {
    running: Arc<Semaphore>,
    waiting: Semaphore,
}

impl Default for Lookups {
    fn default() -> Self {
        Self {
            running: Arc::new(Semaphore::new(RUNNING)),
            waiting: Semaphore::new(MAX_WAITING),
        }
    }
}

impl Lookups {
    /// Runs a look-up on a thread that may block. Fails at once when too many wait.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        look_up: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let _waiting = self.waiting.try_acquire().map_err(|_| {
            StoreError("too many look-ups of attempts by id are waiting; retry later".into())
        })?;
        let failed = |error: String| StoreError(format!("a look-up was aborted: {error}"));
        let running = self.running.clone().acquire_owned().await;
        let running = running.map_err(|error| failed(error.to_string()))?;
        let looked_up = spawn_blocking(move || {
            // Whoever asked may give up meanwhile; the thread is busy until the look-up ends.
            let _running = running;
            look_up()
        });
        looked_up
            .await
            .unwrap_or_else(|error| Err(failed(error.to_string())))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::thread;
    use std::time::Duration;

    use tokio::task::{JoinSet, yield_now};

    use super::*;

    #[tokio::test]
    async fn look_ups_leave_the_callers_thread_and_are_refused_when_too_many_wait() {
        let lookups = Arc::new(Lookups::default());
        let here = thread::current().id();
        let elsewhere = lookups
            .run(move || Ok(thread::current().id() != here))
            .await;
        assert_eq!(elsewhere, Ok(true));

        // As many as may wait, none of which ends before the gate opens.
        let open = Arc::new(AtomicBool::new(false));
        let mut tasks = JoinSet::new();
        for _ in 0..MAX_WAITING {
            let (lookups, open) = (lookups.clone(), open.clone());
            let look_up = move || {
                while !open.load(Ordering::Acquire) {
                    thread::sleep(Duration::from_millis(1));
                }
                Ok(())
            };
            tasks.spawn(async move { lookups.run(look_up).await });
        }
        while lookups.waiting.available_permits() > 0 {
            yield_now().await;
        }
        let refused = lookups.run(|| Ok(())).await;
        assert!(refused.unwrap_err().0.contains("too many"));
        open.store(true, Ordering::Release);
        while let Some(looked_up) = tasks.join_next().await {
            assert_eq!(looked_up.unwrap(), Ok(()));
        }
        assert_eq!(lookups.run(|| Ok(1)).await, Ok(1));
    }
}
