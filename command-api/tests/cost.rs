//! The CPU time of an order at the HTTP API, beside a bare endpoint that parses the same body:
//! `cargo test -p command-api --release --test cost -- --ignored --nocapture`.

#[allow(dead_code, reason = "shared with the other tests, which use all of it")]
mod support;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::routing::post;
use command_api::http::{CommandApi, KnownProducts, KnownRounds, RecentOrders, router};
use command_api::log_watch::LogState;
use kit::MemoryLog;
use ports::clock::SystemClock;
use schemas::codec::Codec;
use schemas::placement::Placement;
use serde::Deserialize;
use support::{PARTITIONS, store};
use tower::ServiceExt;
use web::receipt::ReceiptKey;

#[derive(Deserialize)]
struct Order {
    quantity: u32,
}

async fn measure(name: &str, router: Router) {
    const ROUNDS: u32 = 100_000;
    let started = Instant::now();
    for round in 0..ROUNDS {
        let request = Request::post("/api/flash-sales/sneaker/order")
            .header("host", "127.0.0.1:8080")
            .header("x-buyer-id", "buyer-1")
            .header("idempotency-key", round.to_string())
            .header("content-type", "application/json")
            .body(Body::from(r#"{"quantity":1}"#))
            .unwrap();
        let response = router.clone().oneshot(request).await.unwrap();
        assert!(response.status().is_success());
    }
    println!(
        "{name}: {} ns a request",
        (started.elapsed() / ROUNDS).as_nanos()
    );
}

#[tokio::test]
#[ignore = "a measurement"]
async fn cost_of_an_order() {
    let clock = Arc::new(SystemClock);
    let commands = CommandApi {
        log: Arc::new(MemoryLog::new(PARTITIONS, clock.clone())),
        store: store(),
        codec: Arc::new(Codec::embedded()),
        placement: Placement::new(PARTITIONS),
        receipts: ReceiptKey::new(&[7; 32]),
        clock,
        known: KnownProducts::default(),
        log_state: LogState::default(),
        rounds: KnownRounds::default(),
        recent: RecentOrders::default(),
    };
    let _ = runtime::telemetry::metrics();
    let bare = post(async |axum::Json(order): axum::Json<Order>| order.quantity.to_string());
    let bare = Router::new().route("/api/flash-sales/{product_id}/order", bare);
    measure("bare", bare.clone()).await;
    measure(
        "command API",
        router(Arc::new(commands), None, Duration::from_secs(10)).into(),
    )
    .await;
    measure("bare", bare).await;
}
