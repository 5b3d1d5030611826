//! What bounds a request before its handler runs.

use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::HeaderMap;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::counts::RouteName;
use crate::problem::{Code, Problem};

/// The most bytes of a request's headers, all names and values added up.
const MAX_HEADERS_BYTES: usize = 16 * 1024;

/// What [`guard`] needs: the longest time of a request.
#[derive(Clone)]
pub struct Guard {
    timeout: Duration,
}

impl Guard {
    /// A guard that allows each request this long from its head to its response.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout }
    }
}

/// Bounds the headers and the time of a request, and names its route to the server, which counts it.
/// For `axum::middleware::from_fn_with_state`.
pub async fn guard(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    RouteName::note(&request);
    if headers_bytes(request.headers()) > MAX_HEADERS_BYTES {
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
    }
}

fn headers_bytes(headers: &HeaderMap) -> usize {
    let sizes = headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len());
    sizes.sum()
}
