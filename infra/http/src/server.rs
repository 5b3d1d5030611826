//! The HTTP server: it accepts connections, within bounds, and drains them at the end.

mod bare_answer;
mod client_io;
mod limits;
mod requests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use self::client_io::ClientIo;
pub use self::limits::Limits;
use crate::counts::RequestCounts;
use crate::problem::{Code, Problem};

/// The most headers of a request; more are answered with 431.
const MAX_HEADERS: usize = 64;
/// The most bytes that are buffered for a connection; a larger head is answered with 431.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// The most refused connections whose requests are discarded at once; beyond it, a client may get a
/// reset in place of the 503.
const MAX_REFUSALS: usize = 128;
/// How long the request of a refused connection is discarded.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a connection could not be accepted, most often for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How often connections that could not be accepted are logged at most.
const ACCEPT_LOG_EVERY: Duration = Duration::from_secs(1);

/// Serves until `drain` is cancelled. Then accepts no more connections, and finishes the requests
/// that it has within the grace period. Returns whether all of them were finished. A connection
/// keeps the routes that were current when it was opened.
pub async fn serve(
    listener: TcpListener,
    routes: watch::Receiver<Router>,
    limits: impl Into<Limits>,
    drain: &CancellationToken,
    grace: Duration,
) -> bool {
    let limits = limits.into();
    let permits = Arc::new(Semaphore::new(limits.connections));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let counts = RequestCounts::new();
    let connections = GracefulShutdown::new();
    let http = protocol(limits.head_timeout);
    let mut failures = AcceptFailures::default();
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                failures.log(&error);
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            refuse(stream, &counts, &refusals, drain);
            continue;
        };
        // Small responses are sent at once. If the option cannot be set, they are only slower.
        let _ = stream.set_nodelay(true);
        let io = ClientIo::new(stream, counts.clone(), limits, drain.clone());
        let client = io.client();
        let routes = routes.borrow().clone();
        let its_client = client.clone();
        let service =
            service_fn(move |request| requests::answer(routes.clone(), client.clone(), request));
        let connection = connections.watch(http.serve_connection(TokioIo::new(io), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                let status = error.is_timeout().then_some(StatusCode::REQUEST_TIMEOUT);
                its_client.count_unfinished_head(status);
                debug!(%error, "a connection ended early");
            }
            drop(permit);
        });
    }
    drop(listener);
    let deadline = Instant::now() + grace;
    let open = connections.count();
    let finished = tokio::time::timeout_at(deadline, connections.shutdown()).await;
    if finished.is_err() {
        warn!(
            connections = open,
            "requests did not finish within the grace period"
        );
    }
    finished.is_ok()
}

/// HTTP/1.1 as it is spoken on every connection. A request's head must have arrived after `head_timeout`.
pub fn protocol(head_timeout: Duration) -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(head_timeout)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER_BYTES)
        // A client may close its side after its request and wait for the answer.
        .half_close(true);
    http
}

/// Answers a connection above the bound with 503. Its request is read and discarded for a moment,
/// since data that nobody reads would reset the connection and the client would lose the answer.
fn refuse(
    stream: TcpStream,
    counts: &Arc<RequestCounts>,
    refusals: &Arc<Semaphore>,
    drain: &CancellationToken,
) {
    let detail = "The service has reached its bound of connections. Retry in a second.";
    let problem = Problem::new(Code::Overloaded, detail);
    counts.count_unread(Some(problem.code.status()));
    let answer = bare_answer::written_out(&problem);
    if let Err(error) = stream.try_write(answer.as_bytes()) {
        debug!(%error, "a refused connection could not be sent the reason");
        return;
    }
    let Ok(permit) = refusals.clone().try_acquire_owned() else {
        return;
    };
    let limits = Limits {
        discard_timeout: REFUSAL_TIMEOUT,
        ..Limits::from(0)
    };
    let mut io = ClientIo::new(stream, counts.clone(), limits, drain.clone());
    io.client().set_unread(true);
    tokio::spawn(async move {
        // It fails when the client is gone.
        let _ = io.shutdown().await;
        drop(permit);
    });
}

/// Connections that could not be accepted. While descriptors are missing there are many a second;
/// the log gets one line a second with their number.
#[derive(Default)]
struct AcceptFailures {
    logged: Option<Instant>,
    since: u64,
}

impl AcceptFailures {
    fn log(&mut self, error: &io::Error) {
        if let Some(failures) = self.count(Instant::now()) {
            warn!(%error, failures, "connections could not be accepted");
        }
    }

    /// Counts a failure. Returns how many there were since the last line, if one is due.
    fn count(&mut self, now: Instant) -> Option<u64> {
        self.since += 1;
        let is_due = |logged| now.duration_since(logged) >= ACCEPT_LOG_EVERY;
        if !self.logged.is_none_or(is_due) {
            return None;
        }
        self.logged = Some(now);
        Some(std::mem::take(&mut self.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_cannot_be_accepted_are_logged_once_a_second() {
        let mut failures = AcceptFailures::default();
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        assert_eq!(
            failures.count(at(0)),
            Some(1),
            "the first is logged at once"
        );
        for ms in (50..1_000).step_by(50) {
            assert_eq!(failures.count(at(ms)), None);
        }
        assert_eq!(failures.count(at(1_000)), Some(20));
        assert_eq!(failures.count(at(1_050)), None);
        assert_eq!(failures.count(at(9_000)), Some(2));
    }
}
