//! Counts of requests by route, method and status: of every request, whatever its path and its end.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::Response;
use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::RwLock;
use runtime::metrics::{HTTP_REQUESTS, HTTP_SECONDS};
use tokio::time::Instant;
use tracing::debug;

/// The label of a request that reached no route, or of which not even the method is known.
const NONE: &str = "none";
/// The label in place of a status when no answer was sent: the client is gone, or the process ended
/// first.
const ABORTED: &str = "aborted";

/// The route of a request, which only the router finds out: an extension of the request, by which the
/// router names it to the server.
#[derive(Clone, Default)]
pub(crate) struct RouteName(Arc<OnceLock<MatchedPath>>);

impl RouteName {
    /// Notes the route that the router has found for a request.
    pub(crate) fn note(request: &Request) {
        let extensions = request.extensions();
        if let (Some(name), Some(route)) = (extensions.get::<Self>(), extensions.get()) {
            // Noting it twice changes nothing.
            let _ = name.0.set(MatchedPath::clone(route));
        }
    }
}

/// Names the route of a request to the server, where [`guard`](crate::limits::guard) does not. For
/// `axum::middleware::from_fn`.
pub async fn name_route(request: Request, next: Next) -> Response {
    RouteName::note(&request);
    next.run(request).await
}

/// A server's counts. They are cached, since looking them up by their labels costs more than counting.
/// Routes, methods and statuses are few.
#[derive(Default)]
pub(crate) struct RequestCounts(RwLock<HashMap<String, Vec<AnswerCounts>>>);

/// The metrics of one route's answers with one method and status.
struct AnswerCounts {
    method: &'static str,
    /// None for requests without an answer.
    status: Option<StatusCode>,
    requests: Counter,
    seconds: Histogram,
}

impl RequestCounts {
    /// Begins at zero what happens before any route.
    pub(crate) fn new() -> Arc<Self> {
        let counts = Self::default();
        for status in [400, 408, 414, 431, 503] {
            counter!(HTTP_REQUESTS, "route" => NONE, "method" => NONE, "status" => status.to_string())
                .increment(0);
        }
        Arc::new(counts)
    }

    /// Counts a request that is answered with this status before its method is known, or not at all.
    pub(crate) fn count_unread(&self, status: Option<StatusCode>) {
        counter!(HTTP_REQUESTS, "route" => NONE, "method" => NONE, "status" => label(status))
            .increment(1);
    }

    fn count(
        &self,
        route: &str,
        method: &'static str,
        status: Option<StatusCode>,
        elapsed: Duration,
    ) {
        let count = |cached: &Vec<AnswerCounts>| {
            let matches = |it: &&AnswerCounts| it.status == status && it.method == method;
            cached.iter().find(matches)?.count(elapsed);
            Some(())
        };
        if self.0.read().get(route).and_then(count).is_some() {
            return;
        }
        let name = route.to_owned();
        let counts = AnswerCounts {
            method,
            status,
            requests: counter!(HTTP_REQUESTS, "route" => name.clone(), "method" => method,
                "status" => label(status)),
            seconds: histogram!(HTTP_SECONDS, "route" => name.clone(), "method" => method),
        };
        counts.count(elapsed);
        // Two requests may get here at once. Both entries count into the same metrics.
        self.0.write().entry(name).or_default().push(counts);
    }
}

impl AnswerCounts {
    fn count(&self, elapsed: Duration) {
        self.requests.increment(1);
        self.seconds.record(elapsed);
    }
}

/// A request that is being answered. It is counted when this is dropped.
pub(crate) struct OpenRequest {
    counts: Arc<RequestCounts>,
    method: &'static str,
    route: RouteName,
    started: Instant,
    status: Option<StatusCode>,
}

impl OpenRequest {
    /// Begins with a request, and asks the router for its route.
    pub(crate) fn begin<B>(
        counts: Arc<RequestCounts>,
        request: &mut axum::http::Request<B>,
    ) -> Self {
        let route = RouteName::default();
        request.extensions_mut().insert(route.clone());
        Self {
            counts,
            method: method_name(request.method()),
            route,
            started: Instant::now(),
            status: None,
        }
    }

    /// Ends it with the status of its answer. Without this it counts as aborted.
    pub(crate) fn end(mut self, status: StatusCode) {
        self.status = Some(status);
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        let route = self.route.0.get().map_or(NONE, MatchedPath::as_str);
        let (method, status, elapsed) = (self.method, self.status, self.started.elapsed());
        debug!(
            route,
            method,
            status = status.map(|status| status.as_u16()),
            elapsed_us = elapsed.as_micros() as u64
        );
        self.counts.count(route, method, status, elapsed);
    }
}

/// The status as the label of a metric.
fn label(status: Option<StatusCode>) -> String {
    let status = status.as_ref().map_or(ABORTED, StatusCode::as_str);
    status.to_owned()
}

/// The method as the label of a metric. Labels must have few values, whatever clients send.
fn method_name(method: &Method) -> &'static str {
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
