//! Requests from bytes, sent through a process's own routes, and the rules for every answer.

use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use bytes::Bytes;
use http_body_util::BodyExt;
use runtime::settings::{AdminToken, HttpSettings, ListenAddress};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;
use utoipa_axum::router::OpenApiRouter;
use web::problem::Code;

pub(crate) const NOW: i64 = 1_795_248_000_007;
pub(crate) const ADMIN_TOKEN: &str = "let-me-in";

/// The routes of a process, and a runtime with paused time, so that waits take none.
pub(crate) struct Process {
    runtime: Runtime,
    routes: Router,
}

/// An answer over HTTP.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Process {
    /// The process of these routes, which are made in its runtime.
    pub(crate) fn new(routes: impl AsyncFnOnce() -> OpenApiRouter) -> Self {
        let runtime = Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .expect("a runtime of one thread can be built");
        let part = runtime.block_on(routes());
        let routes = doorbuster::routes::all(vec![part], &[]);
        Self { runtime, routes }
    }

    pub(crate) fn send(&self, request: Request<Body>) -> Answer {
        self.runtime.block_on(async {
            let Ok(response) = self.routes.clone().oneshot(request).await;
            let (head, body) = response.into_parts();
            let body = body.collect().await.expect("a body in memory can be read");
            Answer {
                status: head.status,
                headers: head.headers,
                body: body.to_bytes(),
            }
        })
    }
}

/// The settings of the HTTP APIs.
pub(crate) fn settings() -> HttpSettings {
    HttpSettings {
        listen: ListenAddress::new("127.0.0.1:0").expect("it is an address"),
        operations_listen: ListenAddress::new("127.0.0.1:0").expect("it is an address"),
        max_connections: 1,
        request_timeout: Duration::from_secs(10),
        max_waiters: 10,
        admin_token: AdminToken::new(ADMIN_TOKEN),
        receipt_key: None,
        allowed_origins: Vec::new(),
    }
}

/// The request that is written down as HTTP/1.1 does, with bare line feeds and no version:
/// method and path, a line a header, an empty line, the body. None when no server would pass
/// it on.
pub(crate) fn request(input: &[u8]) -> Option<Request<Body>> {
    let end = input.windows(2).position(|pair| pair == b"\n\n");
    let (head, body) = match end {
        Some(end) => (&input[..end], &input[end + 2..]),
        None => (input, &[][..]),
    };
    let mut lines = head.split(|byte| *byte == b'\n');
    let (method, path) = split_at(lines.next()?, b' ')?;
    let mut request = Request::builder().method(method).uri(path);
    for line in lines {
        let (name, value) = split_at(line, b':')?;
        request = request.header(name, value.trim_ascii());
    }
    request.body(Body::from(body.to_vec())).ok()
}

fn split_at(line: &[u8], separator: u8) -> Option<(&[u8], &[u8])> {
    let at = line.iter().position(|byte| *byte == separator)?;
    Some((&line[..at], &line[at + 1..]))
}

impl Answer {
    pub(crate) fn json(&self) -> Value {
        let text = String::from_utf8_lossy(&self.body);
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default()
    }

    /// Any other answer must be a complete problem document with a code for a client's mistake,
    /// which names the wrong part of the request.
    pub(crate) fn check_problem(&self) -> Code {
        assert_eq!(self.header("content-type"), "application/problem+json");
        let problem = self.json();
        let named = |code: &Code| problem["code"] == code.name();
        let code = Code::ALL.into_iter().find(named);
        let code = code.unwrap_or_else(|| panic!("no code of the list: {problem}"));
        assert_ne!(code, Code::Internal, "{problem}");
        assert_eq!(code.status(), self.status, "{problem}");
        assert_eq!(problem["status"], self.status.as_u16());
        assert_eq!(problem["type"], format!("/problems/{}", code.name()));
        assert_eq!(problem["title"], code.title());
        assert_eq!(problem["retry"], serde_json::json!(code.retry()));
        assert!(is_text(&problem["detail"]), "{problem}");
        let names_a_part = matches!(
            code,
            Code::InvalidRequest
                | Code::UnknownField
                | Code::MissingHeader
                | Code::UnsupportedMediaType
                | Code::InvalidTerms
        );
        if names_a_part {
            let named = is_text(&problem["field"]) && is_text(&problem["expected"]);
            assert!(named, "the part that is wrong is not named: {problem}");
        }
        let later = self.headers.contains_key("retry-after");
        assert_eq!(
            later,
            self.status == StatusCode::SERVICE_UNAVAILABLE,
            "{problem}"
        );
        let allowed = self.headers.contains_key("allow");
        assert_eq!(
            allowed,
            self.status == StatusCode::METHOD_NOT_ALLOWED,
            "{problem}"
        );
        code
    }
}

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.is_empty())
}
