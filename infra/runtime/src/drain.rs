//! How the process ends: in one order, within a grace period.
//!
//! A signal starts the drain: readiness turns false, and the HTTP server accepts no more
//! connections and finishes the requests that it has. Then the services are stopped; each
//! finishes its current step. A second signal ends the process at once.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::telemetry;

/// The exit status after a second signal: 128 and the number of SIGINT, the convention of shells.
pub const INTERRUPTED: i32 = 130;
/// How long that end waits for the last log messages, in case nobody reads them.
const LAST_MESSAGES_AT_ONCE: Duration = Duration::from_millis(50);

/// The end of the process, shared by everything that takes part in it.
#[derive(Clone)]
pub struct Drain {
    started: CancellationToken,
    services: CancellationToken,
    tasks: TaskTracker,
    grace: Duration,
}

impl Drain {
    /// A drain that has not started. Once started, it may take `grace`.
    pub fn new(grace: Duration) -> Self {
        Self {
            started: CancellationToken::new(),
            services: CancellationToken::new(),
            tasks: TaskTracker::new(),
            grace,
        }
    }

    /// Starts the drain on SIGTERM or SIGINT, and ends the process on the second of them.
    pub fn on_signals(&self) -> std::io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let drain = self.clone();
        tokio::spawn(async move {
            let mut next = async || {
                tokio::select! {
                    _ = terminate.recv() => "SIGTERM",
                    _ = interrupt.recv() => "SIGINT",
                }
            };
            let name = next().await;
            drain.start();
            info!(
                signal = name,
                grace_seconds = drain.grace.as_secs(),
                "draining; a second signal ends the process at once"
            );
            let name = next().await;
            warn!(signal = name, "second signal; ending at once");
            telemetry::flush_log(LAST_MESSAGES_AT_ONCE);
            std::process::exit(INTERRUPTED);
        });
        Ok(())
    }

    /// Starts the drain.
    pub fn start(&self) {
        self.started.cancel();
    }

    /// Cancelled when the drain starts: accept no more requests, and end long polls.
    pub fn started(&self) -> &CancellationToken {
        &self.started
    }

    /// Cancelled when the last request has been answered: finish the current step and end.
    pub fn services(&self) -> &CancellationToken {
        &self.services
    }

    /// How long the drain may take.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Runs a service. [`Drain::stop_services`] waits until it has ended.
    pub fn spawn(&self, service: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(service);
    }

    /// Stops the services and waits for them until `deadline`. Returns whether all of them have
    /// ended.
    pub async fn stop_services(&self, deadline: Instant) -> bool {
        self.services.cancel();
        self.tasks.close();
        let ended = tokio::time::timeout_at(deadline, self.tasks.wait()).await;
        if ended.is_err() {
            warn!(
                services = self.tasks.len(),
                "some services did not end in time"
            );
        }
        ended.is_ok()
    }
}
