//! What bounds a request before its handler runs, and what counts it afterwards.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{MatchedPath, Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::RwLock;
use runtime::metrics::{HTTP_REQUESTS, HTTP_SECONDS};
use tokio::time::Instant;
use tracing::debug;

use crate::problem::{Code, Problem};

/// The most bytes of a request's headers, all names and values added up.
const MAX_HEADERS_BYTES: usize = 16 * 1024;

/// What [`guard`] needs: the longest time of a request, and the metrics of requests.
#[derive(Clone)]
pub struct Guard {
    timeout: Duration,
    metrics: Arc<RequestMetrics>,
}

impl Guard {
    /// A guard that allows each request this long from its head to its response.
    pub fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            metrics: Arc::default(),
        }
    }
}

/// Bounds the headers and the time of a request, and counts the request. For
/// `axum::middleware::from_fn_with_state`.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    let started = Instant::now();
    let method = method_name(request.method());
    let route = request.extensions().get::<MatchedPath>().cloned();
    let response = if headers_bytes(request.headers()) > MAX_HEADERS_BYTES {
        let detail = "The headers are larger than 16 KiB, the most that the service accepts.";
        Problem::new(Code::HeaderTooLarge, detail).into_response()
    } else {
        match tokio::time::timeout(guard.timeout, next.run(request)).await {
            Ok(response) => response,
            Err(_) => Problem::new(
                Code::RequestTimeout,
                "The request was not finished in time, and may or may not have taken effect. \
                 A retry with the same Idempotency-Key is safe.",
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
    guard.metrics.count(route, method, status, elapsed);
    response
}

/// The metrics of requests by route. They are cached, since looking them up by their labels costs
/// more than counting. Routes, methods and statuses are few.
#[derive(Default)]
struct RequestMetrics(RwLock<HashMap<String, Vec<ResponseMetrics>>>);

/// The metrics of one route's responses of one method and status.
struct ResponseMetrics {
    method: &'static str,
    status: u16,
    requests: Counter,
    seconds: Histogram,
}

impl RequestMetrics {
    fn count(&self, route: &str, method: &'static str, status: u16, elapsed: Duration) {
        let count = |cached: &Vec<ResponseMetrics>| {
            let matches = |it: &&ResponseMetrics| it.status == status && it.method == method;
            cached.iter().find(matches)?.count(elapsed);
            Some(())
        };
        if self.0.read().get(route).and_then(count).is_some() {
            return;
        }
        let name = route.to_owned();
        let metrics = ResponseMetrics {
            method,
            status,
            requests: counter!(HTTP_REQUESTS, "route" => name.clone(), "method" => method,
                "status" => status.to_string()),
            seconds: histogram!(HTTP_SECONDS, "route" => name.clone(), "method" => method),
        };
        metrics.count(elapsed);
        // Two requests may get here at once. Both entries count into the same metrics.
        self.0.write().entry(name).or_default().push(metrics);
    }
}

impl ResponseMetrics {
    fn count(&self, elapsed: Duration) {
        self.requests.increment(1);
        self.seconds.record(elapsed);
    }
}

fn headers_bytes(headers: &HeaderMap) -> usize {
    let sizes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    sizes.sum()
}

/// The method as the label of a metric. Labels must have few values, whatever clients send.
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
