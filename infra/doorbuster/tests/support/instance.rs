//! An instance with all services in the test's own process.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use doorbuster::instance::Instance;
use doorbuster::serve;
use runtime::drain::Drain;
use runtime::settings::{Flags, Service, Settings};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::PATIENCE;

const TOKEN: &str = "let-me-in";
/// The header of the seller's requests.
pub const ADMIN: &str = "authorization: Bearer let-me-in\r\n";
/// The header of a buyer's requests.
pub const BUYER: &str = "x-buyer-id: b-1\r\n";

/// Starts an instance, and waits until it is ready.
pub async fn start(data_dir: &Path) -> Instance {
    let running = try_start(data_dir).await.unwrap();
    until_ready(running.operations()).await;
    running
}

/// Starts an instance on a free port.
pub async fn try_start(data_dir: &Path) -> anyhow::Result<Instance> {
    start_with(data_dir, "127.0.0.1:0").await
}

/// Starts an instance that listens there.
pub async fn start_with(data_dir: &Path, listen: &str) -> anyhow::Result<Instance> {
    let flags = Flags::default()
        .with("listen", listen)
        .with("operations_listen", "127.0.0.1:0")
        .with("data_dir", data_dir.to_str().unwrap())
        .with("admin_token", TOKEN)
        .with("drain_grace_seconds", "5");
    let settings = Settings::from_sources(Service::Serve, &flags, []).unwrap();
    let drain = Drain::new(settings.drain_grace);
    serve::start(settings, drain).await
}

/// Waits until the instance with this address for operations is ready.
pub async fn until_ready(operations: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, report) = call(operations, "GET", "/readyz", "", "").await;
        if status == 200 {
            return;
        }
        assert!(Instant::now() < deadline, "not ready in time: {report}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Status and body of a request on its own connection.
pub async fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\
         content-type: application/json\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    timeout(PATIENCE, read)
        .await
        .expect("an answer in time")
        .unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let status = text
        .get(9..12)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (
        status,
        serde_json::from_str(body).unwrap_or_else(|_| body.into()),
    )
}

/// The description at `/openapi.json` of an instance with all services.
pub async fn description() -> Value {
    let dir = tempfile::tempdir().unwrap();
    let running = try_start(dir.path()).await.unwrap();
    let (status, document) = call(running.address(), "GET", "/openapi.json", "", "").await;
    assert_eq!(status, 200);
    running.shutdown().await.unwrap();
    document
}
