//! A mock of the HTTP API for the tests of the rehearsal: plain rules over one locked table, with
//! faults: it can be overloaded, close the connection after it acted, answer late, or lie.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use futures::stream;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use schemas::ids::AttemptId;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// How the mock misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Not at all.
    None,
    /// One request in ten is answered with a full queue, another loses its response, and answers
    /// come late.
    Unreliable,
    /// It sells one unit more than there is, and hides it.
    Oversells,
    /// It refuses the last unit.
    Undersells,
    /// It gives another answer the second time.
    ChangesAnswers,
    /// It makes a new attempt of a repeated key.
    BuysTwice,
    /// It accepts any number of units for each buyer.
    IgnoresLimit,
    /// It never answers the fifth attempt.
    LosesOne,
    /// It takes a sale and then refuses it.
    RefusesSales,
}

/// A listening mock.
pub struct MockApi {
    pub address: String,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for MockApi {
    fn drop(&mut self) {
        self.server.abort();
    }
}

pub const TOKEN: &str = "secret";

struct Sale {
    terms: Value,
    total: i64,
    left: i64,
    accepted: u64,
    refused: u64,
    cancelled: u64,
}

struct Attempt {
    product: String,
    buyer: String,
    quantity: i64,
    offset: i64,
    status: &'static str,
    reason: Option<&'static str>,
    polls: u32,
}

struct Shop {
    fault: Fault,
    rng: StdRng,
    offset: i64,
    sales: HashMap<String, Sale>,
    attempts: HashMap<String, Attempt>,
}

type Shared = Arc<Mutex<Shop>>;

impl MockApi {
    pub async fn start(fault: Fault) -> Self {
        let shop = Arc::new(Mutex::new(Shop {
            fault,
            rng: StdRng::seed_from_u64(7),
            offset: 0,
            sales: HashMap::new(),
            attempts: HashMap::new(),
        }));
        let router = Router::new()
            .route("/api/flash-sales", get(time))
            .route("/api/flash-sales/{product}", get(sale))
            .route("/api/flash-sales/{product}/order", post(order))
            .route(
                "/api/flash-sales/{product}/order/{attempt}/cancel",
                post(cancel),
            )
            .route("/api/attempts/{attempt}", get(attempt))
            .route("/api/commands/{command}", get(command))
            .route("/api/admin/flash-sales/{product}", put(put_sale))
            .layer(from_fn_with_state(shop.clone(), inject_fault))
            .with_state(shop);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let server = tokio::spawn(async { axum::serve(listener, router).await.unwrap() });
        Self { address, server }
    }
}

async fn inject_fault(State(shop): State<Shared>, request: Request, next: Next) -> Response {
    let dice = {
        let mut shop = shop.lock().unwrap();
        match shop.fault {
            Fault::Unreliable => shop.rng.random_range(0..20),
            _ => 20,
        }
    };
    if dice < 2 {
        let (full, after) = (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "0")]);
        return (full, after, problem("overloaded")).into_response();
    }
    let response = next.run(request).await;
    if dice < 4 {
        // The body and its connection break after the request has had its effect.
        let broken = stream::iter([Err::<Bytes, _>(std::io::Error::other("hung up"))]);
        return Body::from_stream(broken).into_response();
    }
    response
}

fn problem(code: &str) -> String {
    json!({ "code": code, "detail": "from the mock" }).to_string()
}

fn not_found(code: &str) -> Response {
    (StatusCode::NOT_FOUND, problem(code)).into_response()
}

fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

fn json_body(value: Value) -> Response {
    value.to_string().into_response()
}

async fn time() -> Response {
    json_body(json!({ "server_time": now().format(&Rfc3339).unwrap(), "sales": [] }))
}

async fn sale(State(shop): State<Shared>, Path(product): Path<String>) -> Response {
    let shop = shop.lock().unwrap();
    let Some(sale) = shop.sales.get(&product) else {
        return not_found("unknown_product");
    };
    // One unit oversold is shown as one unit fewer sold, to hide it.
    let left = sale.left.max(0);
    json_body(json!({
        "product_id": product,
        "state": "open",
        "stock": {
            "total": sale.total, "available": left, "reserved": 0, "sold": sale.total - left
        },
        "attempts": {
            "accepted": sale.accepted, "refused": sale.refused,
            "cancelled": sale.cancelled, "expired": 0
        },
        "opens_at": sale.terms["opens_at"].as_str().unwrap_or("2026-01-01T00:00:00Z"),
        "server_time": now().format(&Rfc3339).unwrap(),
    }))
}

async fn put_sale(
    State(shop): State<Shared>,
    Path(product): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Response {
    if headers
        .get("authorization")
        .is_none_or(|value| value != &format!("Bearer {TOKEN}"))
    {
        return (StatusCode::UNAUTHORIZED, problem("unauthorized")).into_response();
    }
    let mut shop = shop.lock().unwrap();
    let terms: Value = serde_json::from_str(&body).unwrap();
    let total = terms["stock"].as_i64().unwrap();
    assert!(!terms["name"].as_str().unwrap().is_empty());
    let sale = Sale {
        terms,
        total,
        left: total,
        accepted: 0,
        refused: 0,
        cancelled: 0,
    };
    shop.sales.insert(product, sale);
    let position = shop.next_position();
    (
        StatusCode::ACCEPTED,
        json!({ "position": position }).to_string(),
    )
        .into_response()
}

async fn command(State(shop): State<Shared>, headers: HeaderMap) -> Response {
    if headers
        .get("authorization")
        .is_none_or(|value| value != &format!("Bearer {TOKEN}"))
    {
        return (StatusCode::UNAUTHORIZED, problem("unauthorized")).into_response();
    }
    json_body(match shop.lock().unwrap().fault {
        Fault::RefusesSales => json!({ "status": "refused", "reason": "holds_outstanding" }),
        _ => json!({ "status": "done" }),
    })
}

async fn order(
    State(shop): State<Shared>,
    Path(product): Path<String>,
    headers: HeaderMap,
    body: String,
) -> Response {
    let header = |name: &str| headers[name].to_str().unwrap().to_owned();
    let (buyer, key) = (header("x-buyer-id"), header("idempotency-key"));
    let body: Value = serde_json::from_str(&body).unwrap();
    let quantity = body["quantity"].as_i64().unwrap();
    let mut shop = shop.lock().unwrap();
    if !shop.sales.contains_key(&product) {
        return not_found("unknown_product");
    }
    let position = shop.next_position();
    let offset = shop.offset;
    let ids = (product.parse().unwrap(), buyer.parse().unwrap());
    let mut id = AttemptId::from_key(&ids.0, &ids.1, &key, 1).to_string();
    if shop.fault == Fault::BuysTwice && shop.attempts.contains_key(&id) {
        id = AttemptId::generate().to_string();
    }
    if !shop.attempts.contains_key(&id) {
        let (status, reason) = shop.decide(&product, &buyer, quantity);
        let attempt = Attempt {
            product: product.clone(),
            buyer,
            quantity,
            offset,
            status,
            reason,
            polls: 0,
        };
        shop.attempts.insert(id.clone(), attempt);
    }
    let receipt = json!({ "attempt_id": id, "product_id": product, "position": position });
    (StatusCode::ACCEPTED, receipt.to_string()).into_response()
}

async fn cancel(
    State(shop): State<Shared>,
    Path((product, id)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let mut shop = shop.lock().unwrap();
    let position = shop.next_position();
    let Shop {
        sales, attempts, ..
    } = &mut *shop;
    let attempt = attempts.get_mut(&id).unwrap();
    assert_eq!(
        (&attempt.product, &*attempt.buyer),
        (&product, headers["x-buyer-id"].to_str().unwrap())
    );
    if attempt.status == "sold" {
        attempt.status = "cancelled";
        let sale = sales.get_mut(&product).unwrap();
        sale.left += attempt.quantity;
        sale.cancelled += 1;
    }
    let receipt = json!({ "attempt_id": id, "product_id": product, "position": position });
    (StatusCode::ACCEPTED, receipt.to_string()).into_response()
}

async fn attempt(State(shop): State<Shared>, Path(id): Path<String>) -> Response {
    let late = {
        let mut shop = shop.lock().unwrap();
        shop.fault == Fault::Unreliable && shop.rng.random_bool(0.2)
    };
    if late {
        tokio::time::sleep(Duration::from_millis(5)).await;
        return json_body(json!({ "status": "queued", "ahead": 1 }));
    }
    let mut shop = shop.lock().unwrap();
    let (fault, at) = (shop.fault, "2026-11-21T08:00:00.000Z");
    let Some(attempt) = shop.attempts.get_mut(&id) else {
        return not_found("unknown_attempt");
    };
    attempt.polls += 1;
    if fault == Fault::LosesOne && attempt.offset == 6 {
        return json_body(json!({ "status": "queued", "ahead": 0 }));
    }
    let mut json = json!({
        "status": attempt.status, "quantity": attempt.quantity, "decided_at": at,
        "position": { "partition": 3, "offset": attempt.offset },
    });
    if let Some(reason) = attempt.reason {
        json["reason"] = reason.into();
    }
    if fault == Fault::ChangesAnswers && attempt.polls > 1 && attempt.status == "sold" {
        json["status"] = "refused".into();
        json["reason"] = "sold_out".into();
    }
    json_body(json)
}

impl Shop {
    fn next_position(&mut self) -> Value {
        self.offset += 1;
        json!({ "partition": 3, "offset": self.offset })
    }

    fn decide(
        &mut self,
        product: &str,
        buyer: &str,
        quantity: i64,
    ) -> (&'static str, Option<&'static str>) {
        let bought = |attempt: &&Attempt| {
            attempt.product == product && attempt.buyer == buyer && attempt.status == "sold"
        };
        let has: i64 = self
            .attempts
            .values()
            .filter(bought)
            .map(|a| a.quantity)
            .sum();
        let sale = self.sales.get_mut(product).unwrap();
        let opens_at = sale.terms["opens_at"].as_str();
        let opens_at = opens_at.map(|text| OffsetDateTime::parse(text, &Rfc3339).unwrap());
        let limit = sale.terms["limit_per_buyer"]
            .as_i64()
            .filter(|_| self.fault != Fault::IgnoresLimit);
        let floor = match self.fault {
            Fault::Oversells => -1,
            Fault::Undersells => 1,
            _ => 0,
        };
        let reason = if opens_at.is_some_and(|opens_at| now() < opens_at) {
            Some("not_open_yet")
        } else if limit.is_some_and(|limit| has + quantity > limit) {
            Some("over_buyer_limit")
        } else if sale.left <= floor {
            Some("sold_out")
        } else if sale.left - floor < quantity {
            Some("not_enough_left")
        } else {
            None
        };
        match reason {
            Some(reason) => {
                sale.refused += 1;
                ("refused", Some(reason))
            }
            None => {
                sale.left -= quantity;
                sale.accepted += 1;
                ("sold", None)
            }
        }
    }
}
