//! The closed list of errors that a client can get, each as an RFC 9457 problem document.

use std::borrow::Cow;
use std::collections::BTreeMap;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::{Content, Ref, RefOr, Response as Described, ResponseBuilder};

/// The kind of a problem: the stable part of an error, for programs to act upon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Code {
    /// A part of the request is not as expected; `field` and `expected` name it.
    InvalidRequest,
    /// The body has an unknown field.
    UnknownField,
    /// A required header is missing.
    MissingHeader,
    /// The body is larger than the route accepts.
    BodyTooLarge,
    /// The headers are larger than the service accepts.
    HeaderTooLarge,
    /// The path and the query are longer than the service accepts.
    UriTooLong,
    /// The body is not declared as JSON.
    UnsupportedMediaType,
    /// The admin token is missing or wrong.
    Unauthorized,
    /// Administration is off, because no admin token is set.
    AdminDisabled,
    /// There is no sale of that product.
    UnknownProduct,
    /// There is no attempt with that id.
    UnknownAttempt,
    /// There is no command with that id whose outcome the client may read.
    UnknownCommand,
    /// There is nothing at this path.
    NotFound,
    /// The path does not accept this method; `Allow` lists the methods that it accepts.
    MethodNotAllowed,
    /// A term of a sale is out of its bounds; `field` and `expected` name it.
    InvalidTerms,
    /// The `Idempotency-Key` was used before, for another request.
    IdempotencyConflict,
    /// The append queue is full. The request had no effect.
    Overloaded,
    /// It is unknown whether the request was appended to the log.
    LogUnavailable,
    /// The read models cannot be read.
    ReadModelUnavailable,
    /// The service has reached its bound of waiting requests.
    TooManyWaiters,
    /// The read models have not reached the requested position.
    NotCaughtUp,
    /// The request was not finished in time.
    RequestTimeout,
    /// The service is starting. The request had no effect.
    Starting,
    /// The service is at fault.
    Internal,
}

/// Whether a retry can help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Retry {
    /// The same request gets the same response.
    Never,
    /// The same request, with the same `Idempotency-Key`, may be sent again at once.
    SameRequest,
    /// The request may be sent again later, after `Retry-After` if it is given.
    Later,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 24] = [
        Code::InvalidRequest,
        Code::UnknownField,
        Code::MissingHeader,
        Code::BodyTooLarge,
        Code::HeaderTooLarge,
        Code::UriTooLong,
        Code::UnsupportedMediaType,
        Code::Unauthorized,
        Code::AdminDisabled,
        Code::UnknownProduct,
        Code::UnknownAttempt,
        Code::UnknownCommand,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::InvalidTerms,
        Code::IdempotencyConflict,
        Code::Overloaded,
        Code::LogUnavailable,
        Code::ReadModelUnavailable,
        Code::TooManyWaiters,
        Code::NotCaughtUp,
        Code::RequestTimeout,
        Code::Starting,
        Code::Internal,
    ];

    /// HTTP status, title, whether a retry can help, and the code's name in the API.
    const fn facts(self) -> (StatusCode, &'static str, Retry, &'static str) {
        use Retry::{Later, Never, SameRequest};
        use StatusCode as S;
        match self {
            Code::InvalidRequest => (S::BAD_REQUEST, "Invalid request", Never, "invalid_request"),
            Code::UnknownField => (S::BAD_REQUEST, "Unknown field", Never, "unknown_field"),
            Code::MissingHeader => (S::BAD_REQUEST, "Missing header", Never, "missing_header"),
            Code::BodyTooLarge => (
                S::PAYLOAD_TOO_LARGE,
                "Body too large",
                Never,
                "body_too_large",
            ),
            Code::HeaderTooLarge => (
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "Headers too large",
                Never,
                "header_too_large",
            ),
            Code::UriTooLong => (S::URI_TOO_LONG, "URI too long", Never, "uri_too_long"),
            Code::UnsupportedMediaType => (
                S::UNSUPPORTED_MEDIA_TYPE,
                "Unsupported media type",
                Never,
                "unsupported_media_type",
            ),
            Code::Unauthorized => (S::UNAUTHORIZED, "Unauthorized", Never, "unauthorized"),
            Code::AdminDisabled => (
                S::NOT_FOUND,
                "Administration is off",
                Never,
                "admin_disabled",
            ),
            Code::Starting => (S::SERVICE_UNAVAILABLE, "Starting", Later, "starting"),
            Code::UnknownProduct => (S::NOT_FOUND, "Unknown product", Never, "unknown_product"),
            Code::UnknownAttempt => (S::NOT_FOUND, "Unknown attempt", Never, "unknown_attempt"),
            Code::UnknownCommand => (S::NOT_FOUND, "Unknown command", Never, "unknown_command"),
            Code::NotFound => (S::NOT_FOUND, "Not found", Never, "not_found"),
            Code::MethodNotAllowed => (
                S::METHOD_NOT_ALLOWED,
                "Method not allowed",
                Never,
                "method_not_allowed",
            ),
            Code::InvalidTerms => (
                S::UNPROCESSABLE_ENTITY,
                "Invalid terms",
                Never,
                "invalid_terms",
            ),
            // The status that draft-ietf-httpapi-idempotency-key-header gives to a key that is used
            // again with another payload.
            Code::IdempotencyConflict => (
                S::UNPROCESSABLE_ENTITY,
                "Idempotency key used before",
                Never,
                "idempotency_conflict",
            ),
            Code::Overloaded => (S::SERVICE_UNAVAILABLE, "Overloaded", Later, "overloaded"),
            Code::LogUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "Log unavailable",
                SameRequest,
                "log_unavailable",
            ),
            Code::ReadModelUnavailable => (
                S::SERVICE_UNAVAILABLE,
                "Read model unavailable",
                Later,
                "read_model_unavailable",
            ),
            Code::TooManyWaiters => (
                S::SERVICE_UNAVAILABLE,
                "Too many waiters",
                Later,
                "too_many_waiters",
            ),
            Code::NotCaughtUp => (
                S::SERVICE_UNAVAILABLE,
                "Not caught up",
                Later,
                "not_caught_up",
            ),
            Code::RequestTimeout => (
                S::REQUEST_TIMEOUT,
                "Request timeout",
                SameRequest,
                "request_timeout",
            ),
            Code::Internal => (
                S::INTERNAL_SERVER_ERROR,
                "Internal error",
                Later,
                "internal",
            ),
        }
    }

    /// The HTTP status of the response.
    pub const fn status(self) -> StatusCode {
        self.facts().0
    }

    /// A short title in English.
    pub const fn title(self) -> &'static str {
        self.facts().1
    }

    /// Whether a retry can help.
    pub const fn retry(self) -> Retry {
        self.facts().2
    }

    /// The code's name in the API.
    pub const fn name(self) -> &'static str {
        self.facts().3
    }
}

/// One error, to be sent to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The kind of problem.
    pub code: Code,
    /// What went wrong with this request, in a sentence for people.
    pub detail: Cow<'static, str>,
    /// The part of the request that is wrong, by its name in the API.
    pub field: Option<Cow<'static, str>>,
    /// What that part must be.
    pub expected: Option<Cow<'static, str>>,
    /// How many seconds to wait before a retry.
    pub retry_after: Option<u32>,
}

impl Problem {
    /// A problem of this kind, with a sentence for people. Statuses 429 and 503 ask the client to
    /// wait for a second.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        let is_temporary = matches!(code.status().as_u16(), 429 | 503);
        Self {
            code,
            detail: detail.into(),
            field: None,
            expected: None,
            retry_after: is_temporary.then_some(1),
        }
    }

    /// The same problem, with the part of the request that is wrong and what it must be.
    pub fn at(
        mut self,
        field: impl Into<Cow<'static, str>>,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        self.field = Some(field.into());
        self.expected = Some(expected.into());
        self
    }

    /// A part of the request is not as expected.
    pub fn invalid(
        field: impl Into<Cow<'static, str>>,
        expected: impl Into<Cow<'static, str>>,
    ) -> Self {
        let (field, expected) = (field.into(), expected.into());
        let detail = format!("{field} must be {expected}.");
        Self::new(Code::InvalidRequest, detail).at(field, expected)
    }

    /// The response to an unknown path.
    pub fn not_found() -> Self {
        Self::new(
            Code::NotFound,
            "There is nothing at this path; GET /openapi.json lists all paths.",
        )
    }

    /// The response to a method that the path does not accept.
    pub fn method_not_allowed() -> Self {
        Self::new(
            Code::MethodNotAllowed,
            "This path does not accept this method; the Allow header lists those that it accepts.",
        )
    }

    /// The document to send.
    pub fn document(&self) -> ProblemDocument<'_> {
        let (status, title, retry, name) = self.code.facts();
        ProblemDocument {
            r#type: format!("/problems/{name}"),
            title,
            status: status.as_u16(),
            code: self.code,
            detail: &self.detail,
            field: self.field.as_deref(),
            expected: self.expected.as_deref(),
            retry,
        }
    }
}

/// A problem document (RFC 9457), sent as `application/problem+json`.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemDocument<'a> {
    /// Identifies the kind of problem: `/problems/` and the code.
    pub r#type: String,
    /// The kind of problem in a few words.
    pub title: &'a str,
    /// The HTTP status.
    pub status: u16,
    /// The kind of problem, for programs.
    pub code: Code,
    /// What went wrong with this request, for people.
    pub detail: &'a str,
    /// The part of the request that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<&'a str>,
    /// What that part must be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected: Option<&'a str>,
    /// Whether a retry can help.
    pub retry: Retry,
}

/// The media type of problem documents.
const MEDIA_TYPE: &str = "application/problem+json";

/// The problems of every route: the request is not valid HTTP, or the service is at fault.
const OF_EVERY_ROUTE: [Code; 5] = [
    Code::InvalidRequest,
    Code::MissingHeader,
    Code::UriTooLong,
    Code::HeaderTooLarge,
    Code::Internal,
];

/// The description of a route's problems, for an `impl utoipa::IntoResponses`: these, and those of
/// every route.
pub fn describe(codes: &[Code]) -> BTreeMap<String, RefOr<Described>> {
    let mut names: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    let others = codes.iter().filter(|code| !OF_EVERY_ROUTE.contains(code));
    for code in OF_EVERY_ROUTE.iter().chain(others) {
        let names = names.entry(code.status().as_u16()).or_default();
        names.push(code.name());
    }
    let response = |names: Vec<&str>| {
        let schema = Ref::from_schema_name(ProblemDocument::name());
        ResponseBuilder::new()
            .description(format!("A problem: {}.", names.join(", ")))
            .content(MEDIA_TYPE, Content::new(Some(schema)))
            .build()
    };
    let names = names.into_iter();
    names
        .map(|(status, names)| (status.to_string(), response(names).into()))
        .collect()
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.document())
            .expect("a document of texts and numbers is always JSON");
        let mut response = (self.code.status(), body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_problem_is_sent_as_rfc_9457_requires() {
        let response = Problem::invalid("quantity", "a whole number from 1 to 100000");
        let response = response.into_response();
        assert_eq!(response.status(), 400);
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        let expected = json!({
            "type": "/problems/invalid_request",
            "title": "Invalid request",
            "status": 400,
            "code": "invalid_request",
            "detail": "quantity must be a whole number from 1 to 100000.",
            "field": "quantity",
            "expected": "a whole number from 1 to 100000",
            "retry": "never",
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn every_code_has_one_name_and_temporary_problems_have_retry_after() {
        for (index, code) in Code::ALL.into_iter().enumerate() {
            assert_eq!(code as usize, index, "ALL leaves out or moves a code");
            assert_eq!(json!(code), json!(code.name()));
            let response = Problem::new(code, "").into_response();
            let has_retry_after = response.headers().contains_key("retry-after");
            assert_eq!(has_retry_after, code.status() == 503, "{code:?}");
            assert!(response.status().is_client_error() || response.status().is_server_error());
        }
        assert_eq!(Code::ALL.len(), Code::Internal as usize + 1);
        let response = Problem::new(Code::Unauthorized, "").into_response();
        assert_eq!(response.headers()["www-authenticate"], "Bearer");
    }
}
