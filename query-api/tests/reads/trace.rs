//! The trace of an attempt.

use schemas::decision::{Event, OrderReleased, RefusalReason, ReleaseCause};
use schemas::ids::{AttemptId, Offset};
use serde_json::{Value, json};

use crate::support::{Shop, TOKEN, id, order, refused, sold};

/// A trace id of one digit, and the header that names it.
fn trace(digit: u8) -> (String, String) {
    let trace = digit.to_string().repeat(32);
    let traceparent = format!("00-{trace}-00f067aa0ba902b7-01");
    (trace, traceparent)
}

/// Attempts that are sold, held, refused, cancelled and expired, each requested in its own trace.
/// The hold expires in the decision on another attempt.
fn history(shop: &Shop) {
    shop.put_sale(0, "p", 9);
    let decide = |digit: u8, id: AttemptId, events: &dyn Fn(Offset) -> Vec<Event>| {
        shop.in_trace(Some(&trace(digit).1));
        let at = shop.ask(0, "p", id);
        shop.decide(0, "p", at, events(at));
        at
    };
    let held = |id: AttemptId, at: Offset| {
        let mut held = order(id, at);
        held.hold_until_ms = Some(1);
        held
    };
    let accept = |order| {
        use schemas::decision::OrderAccepted;
        vec![Event::OrderAccepted(OrderAccepted { order })]
    };
    let released = |order, cause| Event::OrderReleased(OrderReleased { order, cause });
    decide(1, id(1), &|at| sold(id(1), at));
    let second = decide(2, id(2), &|at| accept(held(id(2), at)));
    let third = decide(3, id(3), &|at| accept(held(id(3), at)));
    decide(4, id(4), &|_| {
        let mut events = vec![released(held(id(3), third), ReleaseCause::Expired)];
        events.extend(refused(id(4), RefusalReason::SoldOut));
        events
    });
    shop.in_trace(Some(&trace(5).1));
    let at = shop.tick(0, "p");
    let cancelled = released(held(id(2), second), ReleaseCause::Cancelled);
    shop.decide(0, "p", at, vec![cancelled]);
    // A repeated attempt has no new answer; a request may have no trace or an invalid one.
    decide(6, id(1), &|_| crate::support::repeated(id(1)));
    shop.in_trace(Some("00-abc"));
    let at = shop.ask(0, "p", id(7));
    shop.decide(0, "p", at, sold(id(7), at));
    shop.in_trace(None);
    let at = shop.ask(0, "p", id(8));
    shop.decide(0, "p", at, sold(id(8), at));
}

/// Each attempt's trace, in one digit.
const EXPECTED: [(u8, Option<u8>); 6] = [
    (1, Some(1)),
    (2, Some(5)),
    (3, None),
    (4, Some(4)),
    (7, None),
    (8, None),
];

fn trace_id(row: &Value) -> Option<&Value> {
    row.get("trace_id")
}

#[tokio::test(start_paused = true)]
async fn an_attempt_has_the_trace_of_the_request_that_led_to_its_status() {
    let shop = Shop::open();
    history(&shop);
    shop.settle().await;
    for (number, expected) in EXPECTED {
        let path = format!("/api/attempts/{}", id(number));
        let attempt = shop.get(&path).await.body;
        let expected = expected.map(|digit| json!(trace(digit).0));
        assert_eq!(trace_id(&attempt), expected.as_ref(), "{attempt}");
    }
}

#[tokio::test(start_paused = true)]
async fn lists_and_stored_attempts_have_the_same_traces() {
    let mut shop = Shop::closed();
    shop.claim(0);
    history(&shop);
    shop.project(0).await;
    shop = shop.started();
    shop.settle().await;
    let admin = format!("Bearer {TOKEN}");
    let orders = shop
        .get_with("/api/buyers/me/orders", &[("x-buyer-id", "buyer")])
        .await;
    let intents = shop
        .get_with(
            "/api/flash-sales/p/intents",
            &[("authorization", admin.as_str())],
        )
        .await;
    let mut rows = orders.body["orders"].as_array().unwrap().clone();
    assert_eq!(rows.len(), 5);
    rows.extend(intents.body["intents"].as_array().unwrap().clone());
    assert_eq!(
        rows.len(),
        7,
        "one expired, which is an order and an intent"
    );
    for (number, expected) in EXPECTED {
        let expected = expected.map(|digit| json!(trace(digit).0));
        let id = id(number).to_string();
        let of_it: Vec<_> = rows.iter().filter(|row| row["attempt_id"] == id).collect();
        assert!(!of_it.is_empty(), "{number}");
        for row in of_it {
            assert_eq!(trace_id(row), expected.as_ref(), "{row}");
        }
        let attempt = shop.get(&format!("/api/attempts/{id}")).await.body;
        assert_eq!(trace_id(&attempt), expected.as_ref(), "{attempt}");
    }
}

#[test]
fn the_openapi_document_describes_the_trace_id() {
    let described = serde_json::to_value(Shop::openapi()).unwrap();
    let field = &described["components"]["schemas"]["Attempt"]["properties"]["trace_id"];
    assert_eq!(field["pattern"], "^[0-9a-f]{32}$", "{field}");
    let required = &described["components"]["schemas"]["Attempt"]["required"];
    assert!(!required.as_array().unwrap().contains(&json!("trace_id")));
}
