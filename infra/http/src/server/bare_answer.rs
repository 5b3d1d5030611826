//! What hyper cannot read as a request it answers itself, with a bare status. Clients get a problem
//! document instead, as for every other error.
//!
//! hyper answers nothing at all to the preface of HTTP/2, to a head that ends early, and to one
//! that does not arrive in time; it closes the connection. A client that sends nonsense after a
//! request, without having read any of the answer to it, may get the bare status.

use axum::http::StatusCode;

use crate::problem::{Code, Problem};

/// The answer in place of these bytes, and its status, if they are an answer of hyper's own. No route
/// of ours answers with such a status and without a body.
pub(super) fn replacement(bytes: &[u8]) -> Option<(StatusCode, Vec<u8>)> {
    let status = bytes.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    let problem = match status {
        b"400" => Problem::new(
            Code::InvalidRequest,
            "The bytes are not a request of HTTP/1.1; no part of them had an effect.",
        )
        .at("request", "a request of HTTP/1.1"),
        b"414" => uri_too_long(),
        b"431" => Problem::new(
            Code::HeaderTooLarge,
            "The request has more than 64 headers, or its head is larger than 64 KiB.",
        ),
        _ => return None,
    };
    let head = std::str::from_utf8(bytes).ok()?;
    let is_bare = head.ends_with("\r\n\r\n") && head.contains("\r\ncontent-length: 0\r\n");
    is_bare.then(|| (problem.code.status(), written_out(&problem).into_bytes()))
}

/// The answer to a request whose path and query are too long, whether hyper or a check finds it.
pub(super) fn uri_too_long() -> Problem {
    Problem::new(
        Code::UriTooLong,
        "The path and the query are longer than 8 KiB, the most that the service accepts.",
    )
}

/// A problem as the bytes of a response that ends its connection.
pub(super) fn written_out(problem: &Problem) -> String {
    let status: StatusCode = problem.code.status();
    let reason = status.canonical_reason().unwrap_or_default();
    let retry = match problem.retry_after {
        Some(seconds) => format!("retry-after: {seconds}\r\n"),
        None => String::new(),
    };
    let body = serde_json::json!(problem.document()).to_string();
    format!(
        "HTTP/1.1 {} {reason}\r\ncontent-type: application/problem+json\r\n\
         cache-control: no-store\r\n{retry}connection: close\r\ncontent-length: {}\r\n\r\n{body}",
        status.as_u16(),
        body.len()
    )
}
