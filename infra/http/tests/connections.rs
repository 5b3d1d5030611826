//! What happens on a connection when its client is careless, slow or gone.

use std::net::{Shutdown, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use web::extract::Body;
use web::limits::{Guard, guard};
use web::problem::Problem;
use web::server::{Limits, serve};

/// Longer than anything here takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Order {
    quantity: u32,
}

struct Server {
    address: SocketAddr,
    drain: CancellationToken,
    ended: JoinHandle<bool>,
}

/// A server whose `/order` takes a body of at most 4 KiB, whose `/slow` takes 200 ms, and whose
/// `/stuck` never answers.
async fn server() -> Server {
    server_within(10.into()).await
}

async fn server_within(limits: Limits) -> Server {
    let order = async |Body(order): Body<Order>| order.quantity.to_string();
    let slow = async || {
        sleep(Duration::from_millis(200)).await;
        "done"
    };
    let router = Router::new()
        .route("/order", post(order))
        .layer(DefaultBodyLimit::max(4 * 1024))
        .route("/slow", get(slow).post(slow))
        .route("/stuck", get(async || std::future::pending::<()>().await))
        .route("/large", get(async || vec![b'x'; 1 << 20]))
        .fallback(async || Problem::not_found())
        .layer(from_fn_with_state(Guard::new(PATIENCE), guard));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let drain = CancellationToken::new();
    let started = drain.clone();
    let routes = watch::channel(router).1;
    let ended =
        tokio::spawn(async move { serve(listener, routes, limits, &started, PATIENCE).await });
    Server {
        address,
        drain,
        ended,
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// The answer to these bytes, on a connection of their own.
    async fn answer(&self, request: &str) -> Answer {
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.unwrap();
        Answer::read(&mut stream).await
    }
}

/// Status, head and body of a response.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    /// Reads until the other side closes, which must not be by a reset.
    async fn read(stream: &mut TcpStream) -> Self {
        let mut bytes = Vec::new();
        let read = stream.read_to_end(&mut bytes);
        let read = timeout(PATIENCE, read).await.expect("an answer");
        read.expect("the connection is not reset");
        let text = String::from_utf8(bytes).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
        let status = text.get(9..12).and_then(|status| status.parse().ok());
        Self {
            status: status.unwrap_or(0),
            head: head.to_lowercase(),
            body: body.to_owned(),
        }
    }

    /// Checks that it is a problem document, complete and with its media type.
    fn is_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        let length = format!("content-length: {}", self.body.len());
        for part in ["content-type: application/problem+json", &length] {
            assert!(self.head.contains(part), "no {part} in {self:?}");
        }
        let body: Value = serde_json::from_str(&self.body).unwrap();
        assert_eq!(
            (&body["code"], &body["status"]),
            (&code.into(), &status.into())
        );
        assert!(
            body["detail"]
                .as_str()
                .is_some_and(|detail| detail.len() > 10)
        );
    }
}

fn half_close(stream: TcpStream) -> TcpStream {
    let stream = stream.into_std().unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    TcpStream::from_std(stream).unwrap()
}

#[tokio::test]
async fn a_client_that_closes_its_side_after_the_request_is_answered() {
    let server = server().await;
    for method in ["GET", "POST"] {
        let mut stream = server.connect().await;
        let request = format!("{method} /slow HTTP/1.1\r\nhost: x\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut stream = half_close(stream);
        let answer = Answer::read(&mut stream).await;
        assert_eq!((answer.status, &*answer.body), (200, "done"), "{method}");
    }
}

#[tokio::test]
async fn a_query_of_a_client_that_is_gone_is_given_up() {
    let server = server().await;
    let mut stream = server.connect().await;
    stream
        .write_all(b"GET /stuck HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    let mut stream = half_close(stream);
    assert_eq!(Answer::read(&mut stream).await.status, 0);
}

#[tokio::test]
async fn a_body_that_is_too_large_is_answered_before_the_rest_is_discarded() {
    let server = server().await;
    let large = "x".repeat(3_000_000);
    let heads = [
        (
            "/order",
            "content-type: application/json\r\n",
            413,
            "body_too_large",
        ),
        ("/order", "", 415, "unsupported_media_type"),
        ("/nowhere", "", 404, "not_found"),
    ];
    for (path, headers, status, code) in heads {
        let length = format!("content-length: {}\r\n\r\n{large}", large.len());
        let chunk = format!(
            "transfer-encoding: chunked\r\n\r\n{:x}\r\n{large}\r\n0\r\n\r\n",
            large.len()
        );
        for body in [length, chunk] {
            let request = format!("POST {path} HTTP/1.1\r\nhost: x\r\n{headers}{body}");
            let answer = server.answer(&request).await;
            answer.is_problem(status, code);
            assert!(answer.head.contains("connection: close"), "{answer:?}");
        }
    }
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_not_waited_for() {
    let server = server().await;
    for expect in ["", "expect: 100-continue\r\n"] {
        let request = format!(
            "POST /order HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{expect}\
             content-length: 10000000\r\n\r\n"
        );
        let answer = server.answer(&request).await;
        answer.is_problem(413, "body_too_large");
    }
}

#[tokio::test]
async fn a_connection_continues_after_a_body_that_was_read() {
    let server = server().await;
    let mut stream = server.connect().await;
    let body = r#"{"quantity":7}"#;
    for last in [false, true] {
        let close = if last { "connection: close\r\n" } else { "" };
        let request = format!(
            "POST /order HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{close}\
             content-length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
    }
    let answer = Answer::read(&mut stream).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body.matches("200 OK").count(), 1, "{answer:?}");
}

#[tokio::test]
async fn requests_that_are_not_http_are_answered_with_problems() {
    let server = server().await;
    let many = "a: b\r\n".repeat(65);
    let cases = [
        (
            format!("GET /slow HTTP/1.1\r\nhost: x\r\n{many}\r\n"),
            431,
            "header_too_large",
        ),
        (
            format!("GET /slow HTTP/1.1\r\na: {}", "x".repeat(100_000)),
            431,
            "header_too_large",
        ),
        (
            format!(
                "GET /{} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n",
                "x".repeat(9_000)
            ),
            414,
            "uri_too_long",
        ),
        (
            "GET /slow HTTP/1.1\r\nhost x\r\n\r\n".into(),
            400,
            "invalid_request",
        ),
        (
            "G\u{e4}T /slow HTTP/1.1\r\nhost: x\r\n\r\n".into(),
            400,
            "invalid_request",
        ),
        (
            "GET /slow HTTP/9.9\r\nhost: x\r\n\r\n".into(),
            400,
            "invalid_request",
        ),
        (
            "GET /{}\u{7f} HTTP/1.1\r\nhost: x\r\n\r\n".into(),
            400,
            "invalid_request",
        ),
        (
            "POST /order HTTP/1.1\r\nhost: x\r\ncontent-length: x\r\n\r\n".into(),
            400,
            "invalid_request",
        ),
    ];
    for (request, status, code) in cases {
        server.answer(&request).await.is_problem(status, code);
    }
    // The answer to the request before is not touched.
    let answer = server
        .answer("GET /slow HTTP/1.1\r\nhost: x\r\n\r\nnonsense\r\n\r\n")
        .await;
    assert_eq!(answer.status, 200);
    assert!(answer.body.contains("invalid_request"), "{answer:?}");
}

#[tokio::test]
async fn a_request_names_one_host() {
    let server = server().await;
    let cases = [
        ("HTTP/1.1", "", "missing_header"),
        ("HTTP/1.1", "host: x\r\nhost: x\r\n", "invalid_request"),
        ("HTTP/1.0", "host: x\r\nhost: y\r\n", "invalid_request"),
        ("HTTP/1.1", "host: a b\r\n", "invalid_request"),
        ("HTTP/1.1", "host: me@x\r\n", "invalid_request"),
    ];
    for (version, headers, code) in cases {
        let request = format!("GET /slow {version}\r\nconnection: close\r\n{headers}\r\n");
        server.answer(&request).await.is_problem(400, code);
    }
    let good = [
        ("HTTP/1.0", ""),
        ("HTTP/1.1", "host:\r\n"),
        ("HTTP/1.1", "host: shop.example:8080\r\n"),
        ("HTTP/1.1", "host: [::1]:8080\r\n"),
    ];
    for (version, headers) in good {
        let request = format!("GET /slow {version}\r\nconnection: close\r\n{headers}\r\n");
        assert_eq!(server.answer(&request).await.status, 200, "{request}");
    }
}

/// Pipelines requests and never reads, until the server stops reading too.
async fn never_read(server: &Server) -> TcpStream {
    let mut stream = server.connect().await;
    let request = b"GET /large HTTP/1.1\r\nhost: x\r\n\r\n".repeat(100);
    let _ = timeout(Duration::from_millis(300), stream.write_all(&request)).await;
    stream
}

#[tokio::test]
async fn clients_that_never_read_do_not_keep_others_out() {
    let limits = Limits {
        write_timeout: Duration::from_millis(200),
        ..Limits::from(2)
    };
    let server = server_within(limits).await;
    let _never_read = [never_read(&server).await, never_read(&server).await];
    let served = async {
        let request = "GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        while server.answer(request).await.status != 200 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, served)
        .await
        .expect("a connection is free");
}

#[tokio::test]
async fn a_client_that_reads_slowly_gets_everything() {
    let server = server().await;
    let mut stream = server.connect().await;
    let request = b"GET /large HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    sleep(Duration::from_millis(300)).await;
    let answer = Answer::read(&mut stream).await;
    assert_eq!((answer.status, answer.body.len()), (200, 1 << 20));
}

#[tokio::test]
async fn the_drain_does_not_wait_for_clients_that_never_read_or_never_stop_sending() {
    let limits = Limits {
        drain_timeout: Duration::from_millis(100),
        discard_timeout: PATIENCE * 10,
        ..Limits::from(10)
    };
    let server = server_within(limits).await;
    let _never_reads = never_read(&server).await;
    let mut announces = server.connect().await;
    let request = "POST /nowhere HTTP/1.1\r\nhost: x\r\ncontent-length: 10000000\r\n\r\n";
    announces.write_all(request.as_bytes()).await.unwrap();
    Answer::read(&mut announces)
        .await
        .is_problem(404, "not_found");
    server.drain.cancel();
    let ended = timeout(PATIENCE / 2, server.ended).await;
    assert!(ended.expect("the drain ends").unwrap(), "and in time");
}

#[tokio::test]
async fn what_is_discarded_is_bounded() {
    let limits = Limits {
        discard_bytes: 1_000_000,
        discard_timeout: PATIENCE * 10,
        ..Limits::from(1)
    };
    let server = server_within(limits).await;
    let mut stream = server.connect().await;
    let request = "POST /nowhere HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let endless = async {
        let piece = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
        while stream.write_all(piece.as_bytes()).await.is_ok() {}
    };
    timeout(PATIENCE, endless)
        .await
        .expect("the connection ends");
}
