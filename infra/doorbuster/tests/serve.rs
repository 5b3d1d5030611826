//! All services in one process: a sale from order to answer, restarts, and what is answered when no
//! route fits or the drain starts.

mod support;

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::{Value, json};
use support::instance::{ADMIN, BUYER, call, start, start_with, try_start, until_ready};
use tokio::time::sleep;

fn sale(stock: u32) -> String {
    let price = json!({"minor": 100, "currency": "EUR"});
    json!({"name": "Boot", "price": price, "stock": stock}).to_string()
}

#[tokio::test]
async fn acknowledged_attempts_are_answered_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let at = running.address();
    let put = call(at, "PUT", "/api/admin/flash-sales/boot", ADMIN, &sale(1)).await;
    assert_eq!(put.0, 202, "{}", put.1);

    let mut attempts = Vec::new();
    for _ in 0..2 {
        let order = "/api/flash-sales/boot/order";
        let (status, taken) = call(at, "POST", order, BUYER, r#"{"quantity":1}"#).await;
        assert_eq!(status, 202, "{taken}");
        attempts.push(format!(
            "/api/attempts/{}?wait=5",
            taken["attempt_id"].as_str().unwrap()
        ));
    }
    let mut answers = Vec::new();
    for attempt in &attempts {
        answers.push(call(at, "GET", attempt, "", "").await);
    }
    assert_eq!(
        (&answers[0].1["status"], &answers[1].1["status"]),
        (&json!("sold"), &json!("refused"))
    );
    let sales = call(at, "GET", "/api/flash-sales", "", "").await.1;
    let ids: Vec<_> = sales["sales"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sale| &sale["product_id"])
        .collect();
    assert_eq!(ids, ["boot", "demo-sneaker"]);
    let demo = "/api/flash-sales/demo-sneaker";
    let opens_at = call(at, "GET", demo, "", "").await.1["opens_at"].clone();

    // Acknowledged, but perhaps not decided yet when the drain starts.
    let order = "/api/flash-sales/boot/order";
    let (_, last) = call(at, "POST", order, BUYER, r#"{"quantity":1}"#).await;
    running.shutdown().await.unwrap();

    let running = start(dir.path()).await;
    let at = running.address();
    for (attempt, answer) in attempts.iter().zip(&answers) {
        assert_eq!(&call(at, "GET", attempt, "", "").await, answer);
    }
    let last = format!(
        "/api/attempts/{}?wait=5",
        last["attempt_id"].as_str().unwrap()
    );
    assert_eq!(call(at, "GET", &last, "", "").await.1["status"], "refused");
    let (_, again) = call(at, "GET", demo, "", "").await;
    assert!(opens_at.is_string());
    assert_eq!(again["opens_at"], opens_at, "the demo sale is created once");
    running.shutdown().await.unwrap();
}

/// The position of a 202, as the id of its command.
fn command_of(taken: &Value) -> String {
    let position = &taken["position"];
    format!(
        "/api/commands/{}-{}",
        position["partition"], position["offset"]
    )
}

#[tokio::test]
async fn refused_changes_and_cancellations_can_be_read_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let at = running.address();
    let boot = "/api/admin/flash-sales/boot";
    let (_, put) = call(at, "PUT", boot, ADMIN, &sale(5)).await;
    let order = "/api/flash-sales/boot/order";
    let (_, taken) = call(at, "POST", order, BUYER, r#"{"quantity":3}"#).await;
    let attempt = taken["attempt_id"].as_str().unwrap().to_owned();
    let stock = format!("{boot}/stock");
    let (_, below) = call(at, "POST", &stock, ADMIN, r#"{"stock":2}"#).await;
    let (_, closed) = call(at, "POST", &format!("{boot}/close"), ADMIN, "").await;
    let (_, open) = call(at, "POST", &format!("{boot}/open"), ADMIN, "").await;
    let other = "X-Buyer-Id: other\r\n";
    let cancel = format!("{order}/{attempt}/cancel");
    let (_, not_yours) = call(at, "POST", &cancel, other, "").await;
    let (_, done) = call(at, "POST", &cancel, BUYER, "").await;
    let (_, again) = call(at, "POST", &cancel, BUYER, "").await;
    let expected = [
        (&put, ADMIN, "put_sale", "done", Value::Null),
        (
            &below,
            ADMIN,
            "set_stock",
            "refused",
            json!("stock_below_committed"),
        ),
        (&closed, ADMIN, "close_sale", "done", Value::Null),
        (&open, ADMIN, "open_sale", "refused", json!("closed")),
        (
            &not_yours,
            other,
            "cancel_order",
            "refused",
            json!("not_yours"),
        ),
        (&done, BUYER, "cancel_order", "done", Value::Null),
        (
            &again,
            BUYER,
            "cancel_order",
            "refused",
            json!("unknown_order"),
        ),
    ];
    let check = async |at: SocketAddr| {
        for (taken, reader, kind, status, reason) in &expected {
            let path = format!("{}?wait=20", command_of(taken));
            let (code, answer) = call(at, "GET", &path, reader, "").await;
            assert_eq!(code, 200, "{kind}: {answer}");
            let found = (&answer["kind"], &answer["status"], &answer["reason"]);
            assert_eq!(found, (&json!(kind), &json!(status), reason), "{answer}");
            let (code, _) = call(at, "GET", &path, "X-Buyer-Id: mallory\r\n", "").await;
            assert!([401, 404].contains(&code), "{kind}: {code}");
        }
    };
    check(at).await;
    // After a restart only the store has the outcomes.
    running.shutdown().await.unwrap();
    let running = start(dir.path()).await;
    check(running.address()).await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_trace_leads_from_the_request_to_its_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let at = running.address();
    let put = call(at, "PUT", "/api/admin/flash-sales/boot", ADMIN, &sale(1)).await;
    assert_eq!(put.0, 202, "{}", put.1);

    let ordered_in = "0af7651916cd43dd8448eb211c80319c";
    let cancelled_in = "4bf92f3577b34da6a3ce929d0e0e4736";
    let order = "/api/flash-sales/boot/order";
    let traced = |trace: &str| {
        format!(
            "{BUYER}traceparent: 00-{trace}-b9c7c989f97918e1-01\r\ntracestate: congo=t61rcWkgMzE\r\n"
        )
    };
    let one = r#"{"quantity":1}"#;
    let (_, taken) = call(at, "POST", order, &traced(ordered_in), one).await;
    let id = taken["attempt_id"].as_str().unwrap().to_owned();
    let (_, refused) = call(at, "POST", order, BUYER, one).await;
    let refused = refused["attempt_id"].as_str().unwrap().to_owned();
    let (_, sold) = call(at, "GET", &format!("/api/attempts/{id}?wait=5"), "", "").await;
    assert_eq!(
        (&sold["status"], &sold["trace_id"]),
        (&json!("sold"), &json!(ordered_in))
    );
    let path = format!("/api/attempts/{refused}?wait=5");
    let (_, other) = call(at, "GET", &path, "", "").await;
    assert_eq!(other["status"], "refused");
    assert_eq!(
        other.get("trace_id"),
        None,
        "there is no trace id without a trace"
    );

    let cancel = format!("{order}/{id}/cancel");
    let (_, taken) = call(at, "POST", &cancel, &traced(cancelled_in), "").await;
    let position = &taken["position"];
    let at_least = format!("{}:{}", position["partition"], position["offset"]);
    let path = format!("/api/attempts/{id}?at_least={at_least}");
    let (_, cancelled) = call(at, "GET", &path, "", "").await;
    let expected = (&json!("cancelled"), &json!(cancelled_in));
    assert_eq!((&cancelled["status"], &cancelled["trace_id"]), expected);
    let path = format!("/api/buyers/me/orders?at_least={at_least}");
    let (_, mine) = call(at, "GET", &path, BUYER, "").await;
    assert_eq!(mine["orders"][0]["trace_id"], cancelled_in, "{mine}");

    // After a restart only the store has the answer.
    running.shutdown().await.unwrap();
    let running = start(dir.path()).await;
    let path = format!("/api/attempts/{id}");
    let (_, stored) = call(running.address(), "GET", &path, "", "").await;
    assert_eq!((&stored["status"], &stored["trace_id"]), expected);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_data_directory_belongs_to_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let error = try_start(dir.path())
        .await
        .err()
        .expect("the directory is in use");
    let text = format!("{error:#}");
    assert!(
        text.contains("in use") && text.contains(dir.path().to_str().unwrap()),
        "{text}"
    );
    running.shutdown().await.unwrap();
    start(dir.path()).await.shutdown().await.unwrap();
}

#[tokio::test]
async fn unknown_routes_are_problems_and_the_drain_ends_long_polls() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let at = running.address();
    assert_eq!(
        call(at, "GET", "/nowhere", "", "").await.1["code"],
        "not_found"
    );
    assert_eq!(
        call(at, "DELETE", "/api/flash-sales", "", "").await.1["code"],
        "method_not_allowed"
    );
    // Shoppers have no business with operations, nor operators with the API there.
    let operations = running.operations();
    for path in ["/healthz", "/readyz", "/metrics"] {
        assert_eq!(call(at, "GET", path, "", "").await.0, 404, "{path}");
        assert_eq!(call(operations, "GET", path, "", "").await.0, 200, "{path}");
        let (_, problem) = call(operations, "POST", path, "", "").await;
        assert_eq!(problem["code"], "method_not_allowed", "{path}");
    }
    let (_, problem) = call(operations, "GET", "/api/flash-sales", "", "").await;
    assert_eq!(problem["code"], "not_found");
    assert_eq!(call(at, "GET", "/problems/overloaded", "", "").await.0, 200);
    assert_eq!(call(at, "GET", "/problems/nonsense", "", "").await.0, 404);

    let polling = tokio::spawn(async move {
        call(at, "GET", "/api/flash-sales?at_least=0:1000000", "", "").await
    });
    sleep(Duration::from_millis(200)).await;
    running.shutdown().await.unwrap();
    // A poll that waited to its end would be answered with not_caught_up.
    let (status, answer) = polling.await.unwrap();
    assert_eq!(
        (status, &answer["code"]),
        (503, &json!("read_model_unavailable")),
        "{answer}"
    );
}

#[tokio::test]
async fn it_listens_on_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let running = start_with(dir.path(), "localhost:0").await.unwrap();
    assert!(running.address().ip().is_loopback());
    until_ready(running.operations()).await;
    running.shutdown().await.unwrap();
}
