//! The start as health shows it: the process is not ready before all its parts have worked once.

use std::time::Duration;

use runtime::health::{Component, Health};
use tokio::time::{Instant, sleep};

/// The name of the component.
pub(crate) const COMPONENT: &str = "start";
/// How long the start waits for its parts to be known. They are known as soon as their tasks run.
const REGISTER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long the start waits for all parts to work. From then on one that does not leaves the process
/// as ready as the others make it.
const COMPLETE_TIMEOUT: Duration = Duration::from_secs(30);
const PAUSE: Duration = Duration::from_millis(10);
/// The most parts that the report of the start names.
const MAX_NAMED: usize = 4;

/// Waits until the parts of the process, beside the start itself, are known to its health.
pub(crate) async fn registered(health: &Health, start: &Component, parts: usize) {
    let deadline = Instant::now() + REGISTER_TIMEOUT;
    while health.report().len() <= parts && Instant::now() < deadline {
        start.starting("starting the services");
        sleep(PAUSE).await;
    }
}

/// Reports which parts have not worked yet, until all have, or the time for it is over.
pub(crate) async fn complete(health: Health, start: Component) {
    let deadline = Instant::now() + COMPLETE_TIMEOUT;
    while Instant::now() < deadline {
        let report = health.report();
        let others = report.iter().filter(|part| part.name != COMPONENT);
        let waits: Vec<_> = others.filter(|part| !part.ready).collect();
        if waits.is_empty() {
            return;
        }
        let named = waits.iter().take(MAX_NAMED);
        let named: Vec<_> = named
            .map(|part| format!("{} ({})", part.name, part.detail))
            .collect();
        let (count, named) = (waits.len(), named.join(", "));
        start.starting(format!("waiting for {count} parts: {named}"));
        sleep(PAUSE).await;
    }
}
