//! The end of the process: in its order, and within its time.

use std::time::Duration;

use runtime::drain::Drain;
use tokio::time::Instant;

const GRACE: Duration = Duration::from_millis(500);

#[tokio::test]
async fn services_stop_after_the_requests_and_within_their_time() {
    let drain = Drain::new(GRACE);
    let stop = drain.services().clone();
    drain.spawn(async move { stop.cancelled().await });
    drain.start();
    assert!(
        !drain.services().is_cancelled(),
        "services outlive the requests"
    );
    assert!(drain.stop_services(Instant::now() + GRACE).await);

    let drain = Drain::new(GRACE);
    drain.spawn(std::future::pending());
    assert!(
        !drain.stop_services(Instant::now() + GRACE).await,
        "one never stops"
    );
}
