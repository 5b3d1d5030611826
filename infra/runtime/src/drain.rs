//! How the process ends: in one order, within a grace period.
//!
//! A signal announces the drain: readiness turns false. After the delay, which only SIGTERM has,
//! the drain starts: the HTTP server accepts no more connections and finishes the requests that it
//! has. Then the services are stopped; each finishes its current step. A second signal ends the
//! process at once.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::telemetry;

/// The exit status after a second signal: 128 and the number of SIGINT, the convention of shells.
pub const INTERRUPTED: i32 = 130;
/// How long that end waits for the last log messages, in case nobody reads them.
const LAST_MESSAGES_AT_ONCE: Duration = Duration::from_millis(50);

/// The signals that end the process. From when this exists, none of them is lost: without it,
/// process 1 of a container would ignore them, and every other process would end at once.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Listens for SIGTERM and SIGINT.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => SIGTERM,
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

const SIGTERM: &str = "SIGTERM";

/// The end of the process, shared by everything that takes part in it.
#[derive(Clone)]
pub struct Drain {
    announced: CancellationToken,
    started: CancellationToken,
    services: CancellationToken,
    tasks: TaskTracker,
    delay: Duration,
    grace: Duration,
}

impl Drain {
    /// A drain that has not started. Once started, it may take `grace`.
    pub fn new(grace: Duration) -> Self {
        Self {
            announced: CancellationToken::new(),
            delay: Duration::ZERO,
            started: CancellationToken::new(),
            services: CancellationToken::new(),
            tasks: TaskTracker::new(),
            grace,
        }
    }

    /// The same drain, which SIGTERM announces for this long before it starts it.
    pub fn with_delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }

    /// Announces the drain on SIGTERM or SIGINT, and starts it: after SIGTERM with the delay, after
    /// SIGINT at once. Ends the process on the second signal.
    pub fn on_signals(&self, mut signals: Signals) {
        let drain = self.clone();
        tokio::spawn(async move {
            let name = signals.next().await;
            let delay = if name == SIGTERM {
                drain.delay
            } else {
                Duration::ZERO
            };
            drain.announce();
            info!(
                signal = name,
                delay_seconds = delay.as_secs(),
                grace_seconds = drain.grace.as_secs(),
                "draining; a second signal ends the process at once"
            );
            let name = tokio::select! {
                name = signals.next() => name,
                () = tokio::time::sleep(delay) => {
                    drain.start();
                    signals.next().await
                }
            };
            warn!(signal = name, "second signal; ending at once");
            telemetry::flush_log(LAST_MESSAGES_AT_ONCE);
            std::process::exit(INTERRUPTED);
        });
    }

    /// Announces the drain: the process is no longer ready, but answers every request.
    pub fn announce(&self) {
        self.announced.cancel();
    }

    /// Starts the drain.
    pub fn start(&self) {
        self.announced.cancel();
        self.started.cancel();
    }

    /// Cancelled when the process is no longer ready, because the drain is about to start.
    pub fn announced(&self) -> &CancellationToken {
        &self.announced
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

    /// Runs work that never ends by itself, until the services are stopped.
    pub fn keep(&self, work: impl Future<Output = Infallible> + Send + 'static) {
        let stop = self.services.clone();
        self.spawn(async move {
            stop.run_until_cancelled(work).await;
        });
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
