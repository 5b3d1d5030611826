//! Pages of other origins, and the page below a prefix.

mod support;

use std::net::SocketAddr;

use doorbuster::serve;
use runtime::drain::Drain;
use runtime::settings::{Flags, Service, Settings};
use support::instance::until_ready;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const SHOP: &str = "https://shop.example.org";

/// Status and headers of the answer to a request of a page of this origin.
async fn head(address: SocketAddr, line: &str, origin: &str, more: &str) -> (u16, Vec<String>) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{line} HTTP/1.1\r\nhost: x\r\norigin: {origin}\r\nconnection: close\r\n{more}\r\n"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, _) = answer.split_once("\r\n\r\n").unwrap();
    let mut lines = head.lines().map(str::to_ascii_lowercase);
    let status = lines.next().unwrap()[9..12].parse().unwrap();
    (status, lines.collect())
}

fn value<'a>(headers: &'a [String], name: &str) -> Option<&'a str> {
    let found = headers
        .iter()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    found.map(str::trim)
}

async fn with_origins(origins: &str, check: impl AsyncFnOnce(SocketAddr)) {
    let dir = tempfile::tempdir().unwrap();
    let flags = Flags::default()
        .with("listen", "127.0.0.1:0")
        .with("operations_listen", "127.0.0.1:0")
        .with("data_dir", dir.path().to_str().unwrap())
        .with("admin_token", "let-me-in")
        .with("allowed_origins", origins);
    let settings = Settings::from_sources(Service::Serve, &flags, []).unwrap();
    let drain = Drain::new(settings.drain_grace);
    let running = serve::start(settings, drain).await.unwrap();
    until_ready(running.operations()).await;
    check(running.address()).await;
    running.shutdown().await.unwrap();
}

const ALLOWED: &str = "access-control-allow-origin";

#[tokio::test]
async fn pages_of_allowed_origins_may_order_and_read_the_answers() {
    let check = async |at| {
        // What a browser asks before it sends an order of another origin's page.
        let order = "/api/flash-sales/demo-sneaker/order";
        let wishes = "access-control-request-method: POST\r\n\
                      access-control-request-headers: content-type,idempotency-key,x-buyer-id\r\n";
        for origin in [SHOP, "http://localhost:3000"] {
            let (status, headers) = head(at, &format!("OPTIONS {order}"), origin, wishes).await;
            assert_eq!(status, 200, "{headers:?}");
            assert_eq!(value(&headers, ALLOWED), Some(origin));
            let sent = value(&headers, "access-control-allow-headers").unwrap();
            for name in [
                "content-type",
                "authorization",
                "idempotency-key",
                "x-buyer-id",
                "if-match",
                "traceparent",
            ] {
                assert!(sent.contains(name), "{sent}");
            }
            let methods = value(&headers, "access-control-allow-methods").unwrap();
            assert_eq!(methods, "get,post,put");
            assert_eq!(value(&headers, "access-control-max-age"), Some("600"));
            assert_eq!(value(&headers, "access-control-allow-credentials"), None);
        }
        // Answers and problems alike, whoever made them.
        let post = format!("POST {order}");
        let long = format!("GET /{}", "a".repeat(4_000));
        for (line, expected) in [
            ("GET /api/flash-sales", 200),
            ("GET /api/commands/0-99", 404),
            ("GET /nowhere", 404),
            ("DELETE /api/flash-sales", 405),
            (&*post, 400),
            ("PUT /api/admin/flash-sales/boot", 401),
            (&*long, 404),
        ] {
            let (status, headers) = head(at, line, SHOP, "").await;
            assert_eq!(status, expected, "{line}: {headers:?}");
            assert_eq!(value(&headers, ALLOWED), Some(SHOP), "{line}");
            let read = value(&headers, "access-control-expose-headers").unwrap();
            for name in ["location", "retry-after", "etag"] {
                assert!(read.contains(name), "{read}");
            }
            // A cache must not give one origin's answer to another.
            let vary = headers.iter().filter(|line| line.starts_with("vary:"));
            assert!(
                vary.clone().any(|line| line.contains("origin")),
                "{headers:?}"
            );
        }
        for other in [
            "https://evil.example.org",
            "http://shop.example.org",
            "null",
        ] {
            let (status, headers) = head(at, "GET /api/flash-sales", other, "").await;
            assert_eq!((status, value(&headers, ALLOWED)), (200, None), "{other}");
            let (_, headers) = head(at, &format!("OPTIONS {order}"), other, wishes).await;
            assert_eq!(value(&headers, ALLOWED), None, "{other}");
        }
    };
    with_origins(&format!("{SHOP},http://localhost:3000"), check).await;
}

#[tokio::test]
async fn no_other_origin_is_allowed_unless_it_is_set() {
    let check = async |at| {
        let (status, headers) = head(at, "GET /api/flash-sales", SHOP, "").await;
        assert_eq!((status, value(&headers, ALLOWED)), (200, None));
        let wishes = "access-control-request-method: POST\r\n";
        let (status, headers) = head(at, "OPTIONS /api/flash-sales", SHOP, wishes).await;
        assert_eq!((status, value(&headers, ALLOWED)), (405, None));
    };
    with_origins("", check).await;
}
