//! The HTTP server: it accepts connections, within bounds, and drains them at the end.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::problem::{Code, Problem};

/// The most headers of a request; more are answered with 431 and no problem document.
const MAX_HEADERS: usize = 64;
/// The most bytes that are buffered for a connection; a larger head is answered with 431 and no
/// problem document.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// The longest time for the head of a request, and the longest time a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The pause after a connection could not be accepted, most often for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until `drain` is cancelled. Then accepts no more connections, and finishes the requests
/// that it has within the grace period. Returns whether all of them were finished. A connection
/// keeps the routes that were current when it was opened.
pub async fn serve(
    listener: TcpListener,
    routes: watch::Receiver<Router>,
    max_connections: usize,
    drain: &CancellationToken,
    grace: Duration,
) -> bool {
    let permits = Arc::new(Semaphore::new(max_connections));
    let connections = GracefulShutdown::new();
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_BUFFER_BYTES);
    loop {
        let accepted = tokio::select! {
            biased;
            () = drain.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let Ok(permit) = permits.clone().try_acquire_owned() else {
            refuse(&stream);
            continue;
        };
        // Small responses are sent at once. If the option cannot be set, they are only slower.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(routes.borrow().clone());
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
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

/// Answers a connection above the bound with 503, without reading from it.
fn refuse(stream: &TcpStream) {
    let detail = "The service has reached its bound of connections. Retry in a second.";
    let problem = Problem::new(Code::Overloaded, detail);
    let body = serde_json::json!(problem.document()).to_string();
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         retry-after: 1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    if let Err(error) = stream.try_write(answer.as_bytes()) {
        debug!(%error, "a refused connection could not be sent the reason");
    }
}
