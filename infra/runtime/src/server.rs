//! The door to the network: bounded in connections, header sizes and time, and closed
//! gracefully.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::RwLock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::metrics::{HTTP_REQUESTS, HTTP_SECONDS};
use crate::problem::{Code, Problem};

/// The most bytes that a request's headers have together, names and values.
pub const MAX_HEADERS_BYTES: usize = 16 * 1024;
/// The most headers of a request; more are answered with a bare 431.
const MAX_HEADERS: usize = 64;
/// The most bytes of a connection held in memory; a larger head is answered with a bare 431.
const MAX_BUFFER_BYTES: usize = 64 * 1024;
/// How long a connection may take for a request's head, and how long it may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to wait after a failure to accept, most often for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves until the drain starts; then takes no more connections and finishes the requests it
/// has within the grace period. Returns whether all of them were finished. Each connection has
/// the routes as they are when it is opened.
pub async fn serve(
    listener: TcpListener,
    routes: watch::Receiver<Router>,
    max_connections: usize,
    drain: &CancellationToken,
    grace: Duration,
) -> bool {
    let places = Arc::new(Semaphore::new(max_connections));
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
        let Ok(place) = places.clone().try_acquire_owned() else {
            turn_away(&stream);
            continue;
        };
        // A small answer waits for nothing; that the option cannot be set only costs time.
        let _ = stream.set_nodelay(true);
        let service = TowerToHyperService::new(routes.borrow().clone());
        let connection = connections.watch(http.serve_connection(TokioIo::new(stream), service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "a connection ended early");
            }
            drop(place);
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

/// Tells a connection too many to come back, as far as it listens.
fn turn_away(stream: &TcpStream) {
    let detail = "The service has as many connections as it takes. Come back in a second.";
    let problem = Problem::new(Code::Overloaded, detail);
    let body = serde_json::json!(problem.document()).to_string();
    let length = body.len();
    let answer = format!(
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
         retry-after: 1\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    if let Err(error) = stream.try_write(answer.as_bytes()) {
        debug!(%error, "a connection was turned away without a word");
    }
}

/// What [`guard`] goes by: the longest time a request may take, and where it counts.
#[derive(Clone)]
pub struct Guard {
    timeout: Duration,
    counted: Arc<Counted>,
}

impl Guard {
    /// A guard that gives each request this long from its head to its answer.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            counted: Arc::default(),
        }
    }
}

/// Bounds a request's headers and time, and counts it. For
/// `axum::middleware::from_fn_with_state`.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method_name(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = if headers_bytes(request.headers()) > MAX_HEADERS_BYTES {
        let detail = "The headers are larger than the 16 KiB that the service takes.";
        Problem::new(Code::HeaderTooLarge, detail).into_response()
    } else {
        match tokio::time::timeout(guard.timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::new(
                Code::RequestTimeout,
                "The request was not finished in time. Whether it was taken is not known; \
                 the same Idempotency-Key makes a retry safe.",
            )
            .into_response(),
        }
    };
    let route = route.as_ref().map_or("none", MatchedPath::as_str);
    let status = response.status().as_u16();
    let elapsed = started.elapsed();
    debug!(
        route,
        method,
        status,
        elapsed_us = elapsed.as_micros() as u64
    );
    guard.counted.count(route, method, status, elapsed);
    response
}

/// The metrics of requests by route, kept at hand, since to look them up by their labels costs
/// more than to count. Routes, methods and statuses are few.
#[derive(Default)]
struct Counted(RwLock<HashMap<String, Vec<Answered>>>);

/// The answers of one method and status on one route.
struct Answered {
    method: &'static str,
    status: u16,
    requests: Counter,
    seconds: Histogram,
}

impl Counted {
    fn count(&self, route: &str, method: &'static str, status: u16, elapsed: Duration) {
        let count = |answers: &Vec<Answered>| {
            let is_it = |it: &&Answered| it.status == status && it.method == method;
            let answered = answers.iter().find(is_it)?;
            answered.requests.increment(1);
            answered.seconds.record(elapsed);
            Some(())
        };
        if self.0.read().get(route).and_then(count).is_some() {
            return;
        }
        let name = route.to_owned();
        let answered = Answered {
            method,
            status,
            requests: counter!(HTTP_REQUESTS, "route" => name.clone(), "method" => method,
                "status" => status.to_string()),
            seconds: histogram!(HTTP_SECONDS, "route" => name.clone(), "method" => method),
        };
        answered.requests.increment(1);
        answered.seconds.record(elapsed);
        // Two requests may come here at once; the second entry is then never looked at.
        self.0.write().entry(name).or_default().push(answered);
    }
}

fn headers_bytes(headers: &HeaderMap) -> usize {
    let sizes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    sizes.sum()
}

/// The method as a label of a metric, whose values must be few whatever clients send.
fn method_name(method: &axum::http::Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "DELETE" => "DELETE",
        "PATCH" => "PATCH",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    }
}
