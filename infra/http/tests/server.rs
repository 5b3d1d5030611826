//! The HTTP server: its bounds, its drain, and the routes for operations.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use runtime::drain::Drain;
use runtime::health::Health;
use runtime::telemetry;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use web::limits::{Guard, guard};
use web::operations;
use web::server::serve;

const GRACE: Duration = Duration::from_millis(500);

struct Server {
    address: SocketAddr,
    drain: Drain,
    health: Health,
    ended: JoinHandle<bool>,
}

/// A server whose `/slow` takes 200 ms and whose `/stuck` never answers.
async fn server(max_connections: usize) -> Server {
    let drain = Drain::new(GRACE);
    let health = Health::default();
    let started = drain.started().clone();
    let router = Router::new()
        .route(
            "/slow",
            get(async || {
                sleep(Duration::from_millis(200)).await;
                "done"
            }),
        )
        .route("/stuck", get(async || std::future::pending::<()>().await))
        .layer(from_fn_with_state(
            Guard::new(Duration::from_secs(5)),
            guard,
        ))
        .merge(operations::router(
            health.clone(),
            telemetry::metrics(),
            started.clone(),
        ));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let ended = tokio::spawn(async move {
        serve(
            listener,
            watch::channel(router).1,
            max_connections,
            &started,
            GRACE,
        )
        .await
    });
    Server {
        address,
        drain,
        health,
        ended,
    }
}

impl Server {
    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Status and body of a request on a connection of its own.
    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = self.connect().await;
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        answer(&mut stream).await
    }
}

/// Reads until the other side closes.
async fn answer(stream: &mut TcpStream) -> (u16, String) {
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    timeout(Duration::from_secs(60), read)
        .await
        .expect("an answer")
        .unwrap();
    let text = String::from_utf8(bytes).unwrap();
    let status = text.get(9..12).and_then(|status| status.parse().ok());
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_default();
    if let Some((_, length)) = head.split_once("content-length: ") {
        let length = length.lines().next().unwrap_or_default();
        assert_eq!(length, body.len().to_string(), "{text}");
    }
    (status.unwrap_or(0), body.to_owned())
}

#[tokio::test]
async fn the_drain_finishes_requests_and_accepts_no_more() {
    let server = server(10).await;
    let mut idle = server.connect().await;
    let mut busy = server.connect().await;
    busy.write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    sleep(Duration::from_millis(50)).await;
    server.drain.start();
    sleep(Duration::from_millis(50)).await;
    assert!(!server.ended.is_finished(), "one request is not finished");

    assert_eq!(answer(&mut busy).await, (200, "done".into()));
    assert_eq!(
        answer(&mut idle).await,
        (0, String::new()),
        "an idle connection is closed"
    );
    assert!(server.ended.await.unwrap(), "all requests were finished");
    assert!(
        TcpStream::connect(server.address).await.is_err(),
        "the port is free"
    );
}

#[tokio::test]
async fn the_drain_waits_no_longer_than_its_grace() {
    let server = server(10).await;
    let mut stuck = server.connect().await;
    stuck
        .write_all(b"GET /stuck HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .unwrap();
    sleep(Duration::from_millis(50)).await;
    let started = Instant::now();
    server.drain.start();
    assert!(!server.ended.await.unwrap(), "one request was not finished");
    assert!(
        (GRACE..GRACE * 3).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn a_connection_above_the_bound_is_refused_with_503() {
    let server = server(1).await;
    let mut first = server.connect().await;
    first
        .write_all(b"GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    sleep(Duration::from_millis(50)).await;
    let mut second = server.connect().await;
    let (status, body) = answer(&mut second).await;
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &body["code"]), (503, &"overloaded".into()));
    assert_eq!(answer(&mut first).await.0, 200);
    assert_eq!(
        server.get("/healthz").await.0,
        200,
        "another connection is accepted again"
    );
}

#[tokio::test]
async fn request_heads_that_are_too_large_are_refused() {
    let server = server(10).await;
    let filler = "x".repeat(20_000);
    let many = "a: b\r\n".repeat(100);
    for headers in [format!("a: {filler}\r\n"), many] {
        let mut stream = server.connect().await;
        let head = format!("GET /slow HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (status, body) = answer(&mut stream).await;
        assert_eq!(status, 431);
        assert!(body.contains("header_too_large"), "{body}");
    }
    let mut stream = server.connect().await;
    let _ = stream.write_all(&vec![b'x'; 200_000]).await;
    let mut bytes = Vec::new();
    let _ = timeout(Duration::from_secs(60), stream.read_to_end(&mut bytes))
        .await
        .unwrap();
    assert!(!String::from_utf8_lossy(&bytes).contains("200 OK"));
}

#[tokio::test]
async fn readiness_follows_the_components_and_the_drain() {
    let server = server(10).await;
    let ready = async || {
        let (status, body) = server.get("/readyz").await;
        (status, serde_json::from_str::<Value>(&body).unwrap())
    };
    let component = server.health.component("decider 3");
    let (status, body) = ready().await;
    assert_eq!(
        (status, &body["components"][0]["detail"]),
        (503, &"starting".into())
    );
    component.progress(1, 7);
    let (status, body) = ready().await;
    assert_eq!(
        (status, &body["ok"], &body["draining"]),
        (200, &true.into(), &false.into())
    );
    assert_eq!(body["components"][0]["lag_records"], 7);
    component.failing("the log is unavailable");
    let (status, body) = ready().await;
    assert_eq!(
        (status, &body["components"][0]["detail"]),
        (503, &"the log is unavailable".into())
    );
    assert_eq!(
        server.get("/healthz").await.0,
        200,
        "a component that fails may recover by itself"
    );
    component.working();

    // A request on a connection from before the drain is answered: not ready.
    let mut open = server.connect().await;
    open.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n")
        .await
        .unwrap();
    sleep(Duration::from_millis(50)).await;
    server.drain.start();
    sleep(Duration::from_millis(50)).await;
    open.write_all(b"\r\n").await.unwrap();
    let (status, body) = answer(&mut open).await;
    assert_eq!(status, 503);
    assert_eq!(
        serde_json::from_str::<Value>(&body).unwrap()["draining"],
        true
    );
}

#[tokio::test]
async fn requests_are_counted_by_route_and_not_by_their_paths() {
    let server = server(10).await;
    server.get("/slow?x=1").await;
    let (status, text) = server.get("/metrics").await;
    assert_eq!(status, 200);
    let count = r#"doorbuster_http_requests_total{route="/slow",method="GET",status="200"}"#;
    assert!(text.contains(count), "{text}");
    let bucket =
        r#"doorbuster_http_request_duration_seconds_bucket{route="/slow",method="GET",le="0.25"}"#;
    assert!(text.contains(bucket), "{text}");
}

/// How many requests were counted with these labels.
fn counted(route: &str, method: &str, status: &str) -> u64 {
    let text = telemetry::metrics().render(&Health::default());
    let labels = format!(r#"{{route="{route}",method="{method}",status="{status}"}} "#);
    let prefix = format!("doorbuster_http_requests_total{labels}");
    let count = text.lines().find_map(|line| line.strip_prefix(&prefix));
    count.map_or(0, |count| count.parse().unwrap())
}

async fn until_counted(times: u64, route: &str, method: &str, status: &str) {
    let counts = async {
        while counted(route, method, status) < times {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let in_time = timeout(Duration::from_secs(60), counts).await;
    let text = telemetry::metrics().render(&Health::default());
    in_time.unwrap_or_else(|_| panic!("{route} {method} {status} is less than {times} in\n{text}"));
}

#[tokio::test]
async fn every_request_is_counted_whatever_its_path_and_its_end() {
    let server = server(8).await;
    server.get("/nowhere").await;
    until_counted(1, "none", "GET", "404").await;

    let mut garbage = server.connect().await;
    garbage.write_all(b"nonsense\r\n\r\n").await.unwrap();
    assert_eq!(answer(&mut garbage).await.0, 400);
    until_counted(1, "none", "none", "400").await;

    let mut half = server.connect().await;
    half.write_all(b"GET /slow HTT").await.unwrap();
    half.shutdown().await.unwrap();
    answer(&mut half).await;
    until_counted(1, "none", "none", "aborted").await;

    // An idle connection that ends is no request.
    answer(&mut {
        let mut idle = server.connect().await;
        idle.shutdown().await.unwrap();
        idle
    })
    .await;

    let mut stuck = Vec::new();
    let request = b"GET /stuck HTTP/1.1\r\nhost: x\r\n\r\n";
    for _ in 0..8 {
        stuck.push(server.connect().await);
        stuck.last_mut().unwrap().write_all(request).await.unwrap();
    }
    assert_eq!(answer(&mut server.connect().await).await.0, 503);
    until_counted(1, "none", "none", "503").await;
    drop(stuck);
    until_counted(1, "/stuck", "GET", "aborted").await;
    assert_eq!(counted("none", "none", "aborted"), 1);
    assert_eq!(counted("none", "none", "431"), 0);
    let text = telemetry::metrics().render(&server.health);
    for figure in [
        "process_cpu_seconds_total",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
        "doorbuster_build_info{version=",
    ] {
        assert!(text.contains(figure), "{figure} is missing in\n{text}");
    }
}
