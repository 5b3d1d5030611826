//! The one way the process ends.
//!
//! A signal starts the drain: readiness turns false, the door takes no more connections and
//! finishes the requests it has. Then the services are told to stop and finish the step they
//! are at. All of that has one grace period. A second signal ends the process at once.

use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

/// The exit status after a second signal: 128 and the number of SIGINT, as shells have it.
pub const INTERRUPTED: i32 = 130;

/// The process's ending, shared by all who must know of it.
#[derive(Clone)]
pub struct Drain {
    started: CancellationToken,
    services: CancellationToken,
    tasks: TaskTracker,
    grace: Duration,
}

impl Drain {
    /// A process that is not ending yet, and will have this long for it.
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
            info!(
                signal = name,
                grace_seconds = drain.grace.as_secs(),
                "draining"
            );
            drain.start();
            let name = next().await;
            warn!(signal = name, "second signal, ending at once");
            std::process::exit(INTERRUPTED);
        });
        Ok(())
    }

    /// Starts the drain.
    pub fn start(&self) {
        self.started.cancel();
    }

    /// Cancelled when the drain starts: take no more requests, let nobody wait any longer.
    pub fn started(&self) -> &CancellationToken {
        &self.started
    }

    /// Cancelled when the last request has been answered: finish the step at hand and end.
    pub fn services(&self) -> &CancellationToken {
        &self.services
    }

    /// How long the drain may take.
    pub fn grace(&self) -> Duration {
        self.grace
    }

    /// Runs a service, whose end [`Drain::stop_services`] waits for.
    pub fn spawn(&self, service: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(service);
    }

    /// Tells the services to stop and waits for them until the deadline. Returns whether all
    /// have ended.
    pub async fn stop_services(&self, deadline: Instant) -> bool {
        self.services.cancel();
        self.tasks.close();
        let ended = tokio::time::timeout_at(deadline, self.tasks.wait()).await;
        if ended.is_err() {
            warn!(services = self.tasks.len(), "services did not end in time");
        }
        ended.is_ok()
    }
}
