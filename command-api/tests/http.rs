//! The door's answers to good, malformed, oversized, hostile and repeated requests, and to a
//! log that fails in each way it can.

mod support;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use command_api::http::{Door, KnownProducts, router};
use http_body_util::BodyExt;
use ports::AppendError;
use runtime::auth::AdminToken;
use runtime::receipt::ReceiptKey;
use schemas::codec::Codec;
use schemas::command::{Command, CommandBody};
use schemas::ids::AttemptId;
use schemas::placement::Placement;
use serde_json::{Value, json};
use support::{At, MemoryLog, MemoryStore, Mood, PARTITIONS};
use tower::ServiceExt;

const NOW: i64 = 1_795_248_000_007;
const ORDER: &str = "/api/flash-sales/sneaker/order";
const SALE: &str = "/api/admin/flash-sales/sneaker";
const CANCEL: &str = "/api/flash-sales/sneaker/order/0188bb5c-0000-4000-8000-000000000001/cancel";

struct World {
    log: Arc<MemoryLog>,
    store: Arc<MemoryStore>,
    router: Router,
}

struct Answer {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

/// A door that knows one product, the sneaker.
fn world(admin: Option<&str>) -> World {
    let log = Arc::new(MemoryLog::default());
    let store = Arc::new(MemoryStore::default());
    store.products.lock().insert("sneaker".into());
    let door = Door {
        log: log.clone(),
        store: store.clone(),
        codec: Arc::new(Codec::embedded()),
        placement: Placement::new(PARTITIONS),
        receipts: ReceiptKey::new(&[7; 32]),
        clock: Arc::new(At(NOW)),
        known: KnownProducts::default(),
    };
    let admin = admin.map(|token| AdminToken::new(token).unwrap());
    let router = router(Arc::new(door), admin, Duration::from_millis(200)).into();
    World { log, store, router }
}

impl World {
    async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    }

    async fn order(&self, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.call("POST", ORDER, headers, body).await
    }

    async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    /// The commands in the log, in the order they came.
    fn commands(&self) -> Vec<Command> {
        let codec = Codec::embedded();
        let appended = self.log.appended.lock();
        let decode = |value: &[u8]| codec.decode_command(value).unwrap();
        appended
            .iter()
            .map(|(_, record)| decode(&record.value))
            .collect()
    }
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Status and code of a problem, after checking that it is one in full.
    fn problem(&self) -> (u16, &str) {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{}",
            self.body
        );
        assert_eq!(self.body["status"], self.status);
        let code = self.body["code"].as_str().unwrap();
        assert_eq!(self.body["type"], format!("/problems/{code}"));
        assert!(!self.body["detail"].as_str().unwrap().is_empty());
        (self.status, code)
    }
}

const BUYER: (&str, &str) = ("x-buyer-id", "b-1");
const ADMIN: (&str, &str) = ("authorization", "Bearer let-me-in");

#[tokio::test]
async fn an_order_is_in_the_log_before_it_is_answered() {
    let world = world(None);
    let answer = world
        .order(&[BUYER, ("idempotency-key", "k")], r#"{"quantity":2}"#)
        .await;
    assert_eq!(answer.status, 202);

    let (product, buyer) = ("sneaker".parse().unwrap(), "b-1".parse().unwrap());
    let id = AttemptId::from_key(&product, &buyer, "k");
    let partition = Placement::new(PARTITIONS).partition_of(&product);
    assert_eq!(answer.header("location"), format!("/api/attempts/{id}"));
    assert_eq!(answer.body["attempt_id"], id.to_string());
    assert_eq!(answer.body["product_id"], "sneaker");
    assert_eq!(
        answer.body["position"],
        json!({"partition": partition.0, "offset": 0})
    );
    let CommandBody::PlaceAttempt(place) = world.commands().remove(0).body else {
        panic!("an order places an attempt");
    };
    assert_eq!(
        (place.attempt_id, place.buyer_id, place.quantity),
        (id, buyer, 2)
    );
    let (at, record) = world.log.appended.lock().remove(0);
    assert_eq!((at, &record.key[..]), (partition, &b"sneaker"[..]));

    // The receipt proves that very record.
    let key = ReceiptKey::new(&[7; 32]);
    let claims = key
        .verify(answer.body["receipt"].as_str().unwrap())
        .unwrap();
    let value = sha256(&record.value);
    assert_eq!(
        (claims.sub, claims.product),
        (id.to_string(), "sneaker".into())
    );
    assert_eq!((claims.partition, claims.offset), (partition.0, 0));
    assert_eq!((claims.iat_ms, claims.value_sha256), (NOW, value));
}

fn sha256(value: &[u8]) -> String {
    use sha2::Digest;
    schemas::ids::ChainHash(sha2::Sha256::digest(value).into()).to_string()
}

#[tokio::test]
async fn the_same_key_is_the_same_attempt_at_a_new_position() {
    let world = world(None);
    let key = ("idempotency-key", "k");
    let first = world.order(&[BUYER, key], r#"{"quantity":1}"#).await;
    let quoted = ("idempotency-key", "\"k\"");
    let again = world.order(&[BUYER, quoted], r#"{"quantity":3}"#).await;
    assert_eq!(first.body["attempt_id"], again.body["attempt_id"]);
    assert_eq!(again.body["position"]["offset"], 1);

    let other_buyer = world
        .order(&[("x-buyer-id", "b-2"), key], r#"{"quantity":1}"#)
        .await;
    assert_ne!(first.body["attempt_id"], other_buyer.body["attempt_id"]);
    let no_key = [
        world.order(&[BUYER], r#"{"quantity":1}"#).await,
        world.order(&[BUYER], r#"{"quantity":1}"#).await,
    ];
    assert_ne!(no_key[0].body["attempt_id"], no_key[1].body["attempt_id"]);
}

#[tokio::test]
async fn a_cancellation_is_taken_with_or_without_an_empty_body() {
    let world = world(None);
    for body in ["", "{}"] {
        let answer = world.call("POST", CANCEL, &[BUYER], body).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        let position = &answer.body["position"];
        let location = format!(
            "/api/attempts/0188bb5c-0000-4000-8000-000000000001?at_least={}:{}",
            position["partition"], position["offset"]
        );
        assert_eq!(answer.header("location"), location);
        assert!(answer.body["receipt"].is_string());
    }
    assert!(matches!(
        world.commands()[1].body,
        CommandBody::CancelOrder(_)
    ));
    let wrong = CANCEL.replace("0188bb5c", "zzz");
    let answer = world.call("POST", &wrong, &[BUYER], "").await;
    assert_eq!(
        (answer.problem(), &answer.body["field"]),
        ((400, "invalid_request"), &json!("attempt_id"))
    );
}

#[tokio::test]
async fn requests_that_are_wrong_are_refused_by_name_and_leave_no_trace() {
    let world = world(None);
    let quantity = r#"{"quantity":1}"#;
    let long_buyer = "b".repeat(65);
    let long_key = "k".repeat(256);
    let huge_header = "h".repeat(17 * 1024);
    let huge_body = format!("{{\"quantity\":1{}}}", " ".repeat(5_000));
    let deep = "[".repeat(4_000);
    type Case<'a> = (
        &'a str,
        &'a [(&'a str, &'a str)],
        &'a str,
        u16,
        &'a str,
        &'a str,
    );
    let cases: &[Case] = &[
        (ORDER, &[], quantity, 400, "missing_header", "X-Buyer-Id"),
        (
            ORDER,
            &[("x-buyer-id", "")],
            quantity,
            400,
            "invalid_request",
            "X-Buyer-Id",
        ),
        (
            ORDER,
            &[("x-buyer-id", &long_buyer)],
            quantity,
            400,
            "invalid_request",
            "X-Buyer-Id",
        ),
        (
            ORDER,
            &[("x-buyer-id", "a\tb")],
            quantity,
            400,
            "invalid_request",
            "X-Buyer-Id",
        ),
        (
            ORDER,
            &[("x-buyer-id", "'; DROP TABLE--")],
            quantity,
            400,
            "invalid_request",
            "X-Buyer-Id",
        ),
        (
            ORDER,
            &[BUYER, ("x-buyer-id", "b-2")],
            quantity,
            400,
            "invalid_request",
            "X-Buyer-Id",
        ),
        (
            ORDER,
            &[BUYER, ("idempotency-key", "")],
            quantity,
            400,
            "invalid_request",
            "Idempotency-Key",
        ),
        (
            ORDER,
            &[BUYER, ("idempotency-key", &long_key)],
            quantity,
            400,
            "invalid_request",
            "Idempotency-Key",
        ),
        (
            ORDER,
            &[BUYER, ("idempotency-key", "\"a")],
            quantity,
            400,
            "invalid_request",
            "Idempotency-Key",
        ),
        (ORDER, &[BUYER], "", 400, "invalid_request", "body"),
        (
            ORDER,
            &[BUYER],
            "{\"quantity\":",
            400,
            "invalid_request",
            "body",
        ),
        (ORDER, &[BUYER], &deep, 400, "invalid_request", "body"),
        (ORDER, &[BUYER], "null", 400, "invalid_request", "body"),
        (ORDER, &[BUYER], "{}", 400, "invalid_request", "quantity"),
        (
            ORDER,
            &[BUYER],
            r#"{"quantity":0}"#,
            400,
            "invalid_request",
            "quantity",
        ),
        (
            ORDER,
            &[BUYER],
            r#"{"quantity":-1}"#,
            400,
            "invalid_request",
            "quantity",
        ),
        (
            ORDER,
            &[BUYER],
            r#"{"quantity":1.5}"#,
            400,
            "invalid_request",
            "quantity",
        ),
        (
            ORDER,
            &[BUYER],
            r#"{"quantity":1e3}"#,
            400,
            "invalid_request",
            "quantity",
        ),
        (
            ORDER,
            &[BUYER],
            r#"{"quantity":"1"}"#,
            400,
            "invalid_request",
            "quantity",
        ),
        (
            ORDER,
            &[BUYER],
            r#"{"quantity":100001}"#,
            400,
            "invalid_request",
            "quantity",
        ),
        (
            ORDER,
            &[BUYER],
            r#"{"quantity":1,"quantity":1}"#,
            400,
            "invalid_request",
            "quantity",
        ),
        (
            ORDER,
            &[BUYER],
            r#"{"quantity":1,"price":0}"#,
            400,
            "unknown_field",
            "price",
        ),
        (ORDER, &[BUYER], &huge_body, 413, "body_too_large", ""),
        (
            ORDER,
            &[BUYER, ("x-padding", &huge_header)],
            quantity,
            431,
            "header_too_large",
            "",
        ),
        (
            ORDER,
            &[BUYER, ("content-type", "text/plain")],
            quantity,
            415,
            "unsupported_media_type",
            "Content-Type",
        ),
        (
            "/api/flash-sales/boot/order",
            &[BUYER],
            quantity,
            404,
            "unknown_product",
            "",
        ),
        (
            "/api/flash-sales/%2e%2e/order",
            &[BUYER],
            quantity,
            400,
            "invalid_request",
            "product_id",
        ),
        (
            "/api/flash-sales/a%00b/order",
            &[BUYER],
            quantity,
            400,
            "invalid_request",
            "product_id",
        ),
        (
            "/api/flash-sales/%ff/order",
            &[BUYER],
            quantity,
            400,
            "invalid_request",
            "product_id",
        ),
        (CANCEL, &[], "", 400, "missing_header", "X-Buyer-Id"),
        (CANCEL, &[BUYER], quantity, 400, "unknown_field", "quantity"),
        (CANCEL, &[BUYER], &huge_body, 413, "body_too_large", ""),
        (SALE, &[ADMIN], "{}", 404, "admin_disabled", ""),
    ];
    for (path, headers, body, status, code, field) in cases {
        let method = if *path == SALE { "PUT" } else { "POST" };
        let answer = world.call(method, path, headers, body.to_string()).await;
        let case = format!("{path} {headers:?} {:.60}: {}", body, answer.body);
        assert_eq!(answer.problem(), (*status, *code), "{case}");
        assert_eq!(
            answer.body["field"].as_str().unwrap_or_default(),
            *field,
            "{case}"
        );
        assert_eq!(answer.body["retry"], "never", "{case}");
    }
    assert!(world.log.appended.lock().is_empty());
}

#[tokio::test]
async fn each_failure_of_the_log_has_its_answer() {
    let world = world(None);
    let cases = [
        (AppendError::Full, 503, "overloaded", "later"),
        (
            AppendError::Unknown("x".into()),
            503,
            "log_unavailable",
            "same_request",
        ),
        (
            AppendError::Stopped("x".into()),
            503,
            "log_unavailable",
            "same_request",
        ),
        (
            AppendError::TooLarge {
                what: "value",
                bytes: 2,
                max: 1,
            },
            413,
            "body_too_large",
            "never",
        ),
    ];
    for (error, status, code, retry) in cases {
        *world.log.mood.lock() = Mood::Fails(error.clone());
        let answer = world.order(&[BUYER], r#"{"quantity":1}"#).await;
        assert_eq!(answer.problem(), (status, code), "{error:?}");
        assert_eq!(answer.body["retry"], retry, "{error:?}");
        let patience = if status == 503 { "1" } else { "" };
        assert_eq!(answer.header("retry-after"), patience, "{error:?}");
        let names_the_key = answer.body["detail"]
            .as_str()
            .unwrap()
            .contains("Idempotency-Key");
        assert_eq!(names_the_key, code == "log_unavailable", "{error:?}");
    }

    *world.log.mood.lock() = Mood::Hangs;
    let answer = world.order(&[BUYER], r#"{"quantity":1}"#).await;
    assert_eq!(answer.problem(), (408, "request_timeout"));
    assert_eq!(answer.body["retry"], "same_request");

    *world.log.mood.lock() = Mood::Takes;
    assert_eq!(world.order(&[BUYER], r#"{"quantity":1}"#).await.status, 202);
}

#[tokio::test]
async fn a_body_that_never_ends_is_given_up() {
    let world = world(None);
    let endless = futures::stream::pending::<Result<bytes::Bytes, std::io::Error>>();
    let answer = world.order(&[BUYER], Body::from_stream(endless)).await;
    assert_eq!(answer.problem(), (408, "request_timeout"));
    let broken = futures::stream::iter([Err::<bytes::Bytes, _>(std::io::Error::other("gone"))]);
    let answer = world.order(&[BUYER], Body::from_stream(broken)).await;
    assert_eq!(answer.problem(), (400, "invalid_request"));
}

#[tokio::test]
async fn a_product_is_looked_up_until_it_is_known() {
    let world = world(None);
    for _ in 0..3 {
        assert_eq!(world.order(&[BUYER], r#"{"quantity":1}"#).await.status, 202);
    }
    assert_eq!(
        *world.store.asked.lock(),
        1,
        "what is known is not asked again"
    );
    for _ in 0..2 {
        let boot = "/api/flash-sales/boot/order";
        let answer = world
            .call("POST", boot, &[BUYER], r#"{"quantity":1}"#)
            .await;
        assert_eq!(answer.problem(), (404, "unknown_product"));
    }
    assert_eq!(
        *world.store.asked.lock(),
        3,
        "what is unknown may be known the next time"
    );

    // When the store cannot tell, the core has to.
    *world.store.fails.lock() = true;
    let cap = "/api/flash-sales/cap/order";
    assert_eq!(
        world
            .call("POST", cap, &[BUYER], r#"{"quantity":1}"#)
            .await
            .status,
        202
    );
}

fn sale() -> Value {
    json!({
        "name": "Sneaker", "price": {"minor": 1999, "currency": "EUR"}, "stock": 10,
        "limit_per_buyer": 2, "hold_ms": 60000,
        "opens_at": "2026-11-21T08:00:00.000Z", "closes_at": "2026-11-21T09:00:00+00:00",
    })
}

#[tokio::test]
async fn a_sale_is_put_and_can_be_ordered_from_at_once() {
    let world = world(Some("let-me-in"));
    let path = "/api/admin/flash-sales/BANK%20CHARGES";
    let mut open_now = sale();
    open_now.as_object_mut().unwrap().remove("opens_at");
    for body in [sale(), open_now] {
        let answer = world.call("PUT", path, &[ADMIN], body.to_string()).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        let position = &answer.body["position"];
        let at = format!("{}:{}", position["partition"], position["offset"]);
        let location = format!("/api/flash-sales/BANK%20CHARGES?at_least={at}");
        assert_eq!(answer.header("location"), location);
        assert_eq!(answer.body["product_id"], "BANK CHARGES");
    }
    let opens = world
        .commands()
        .into_iter()
        .map(|command| match command.body {
            CommandBody::PutSale(terms) => {
                assert_eq!(terms.closes_at_ms, Some(1_795_251_600_000));
                assert_eq!(
                    (&*terms.name, terms.stock, terms.hold_ms),
                    ("Sneaker", 10, Some(60_000))
                );
                assert_eq!((terms.price.minor, &*terms.price.currency), (1999, "EUR"));
                terms.opens_at_ms
            }
            other => panic!("{other:?}"),
        });
    let opens = opens.collect::<Vec<_>>();
    assert_eq!(opens, [1_795_248_000_000, NOW]);
    let order = "/api/flash-sales/BANK%20CHARGES/order";
    assert_eq!(
        world
            .call("POST", order, &[BUYER], r#"{"quantity":1}"#)
            .await
            .status,
        202
    );
    assert_eq!(*world.store.asked.lock(), 0);
}

#[tokio::test]
async fn a_sale_is_opened_paused_closed_and_restocked() {
    let world = world(Some("let-me-in"));
    for (action, body) in [
        ("open", ""),
        ("pause", "{}"),
        ("close", ""),
        ("stock", r#"{"stock":0}"#),
    ] {
        let path = format!("{SALE}/{action}");
        let answer = world.call("POST", &path, &[ADMIN], body).await;
        assert_eq!(answer.status, 202, "{action}: {}", answer.body);
        assert!(
            answer
                .header("location")
                .starts_with("/api/flash-sales/sneaker?at_least=")
        );
        let unknown = format!("/api/admin/flash-sales/boot/{action}");
        let answer = world.call("POST", &unknown, &[ADMIN], body).await;
        assert_eq!(answer.problem(), (404, "unknown_product"), "{action}");
    }
    let bodies: Vec<_> = world
        .commands()
        .into_iter()
        .map(|command| command.body)
        .collect();
    assert!(matches!(
        bodies[..],
        [
            CommandBody::OpenSale,
            CommandBody::PauseSale,
            CommandBody::CloseSale,
            CommandBody::SetStock(_)
        ]
    ));
}

#[tokio::test]
async fn terms_out_of_bounds_are_named() {
    let world = world(Some("let-me-in"));
    let cases = [
        ("/name", json!(""), 422, "name"),
        ("/name", json!("x".repeat(201)), 422, "name"),
        ("/name", json!(7), 400, "name"),
        ("/price/minor", json!(-1), 422, "price.minor"),
        ("/price/minor", json!(0.5), 400, "price.minor"),
        ("/price/currency", json!("eur"), 422, "price.currency"),
        ("/stock", json!(1_000_000_001), 422, "stock"),
        ("/stock", json!(-1), 400, "stock"),
        ("/limit_per_buyer", json!(0), 422, "limit_per_buyer"),
        ("/hold_ms", json!(0), 422, "hold_ms"),
        ("/hold_ms", json!(604_800_001), 422, "hold_ms"),
        ("/opens_at", json!("tomorrow"), 400, "opens_at"),
        ("/opens_at", json!("2026-11-21T09:00:00Z"), 422, "closes_at"),
        ("/opens_at", json!("1969-12-31T23:59:59Z"), 422, "opens_at"),
        (
            "/closes_at",
            json!("2026-11-21T08:00:00.007Z"),
            422,
            "closes_at",
        ),
    ];
    for (place, value, status, field) in cases {
        let mut body = sale();
        *body.pointer_mut(place).unwrap() = value.clone();
        let answer = world.call("PUT", SALE, &[ADMIN], body.to_string()).await;
        let code = if status == 422 {
            "invalid_terms"
        } else {
            "invalid_request"
        };
        assert_eq!(
            answer.problem(),
            (status, code),
            "{place} {value}: {}",
            answer.body
        );
        assert_eq!(answer.body["field"], field, "{place} {value}");
        assert!(
            !answer.body["expected"].as_str().unwrap().is_empty(),
            "{place} {value}"
        );
    }
    let stock = format!("{SALE}/stock");
    let answer = world
        .call("POST", &stock, &[ADMIN], r#"{"stock":1000000001}"#)
        .await;
    assert_eq!(answer.problem(), (422, "invalid_terms"));
    let large = format!("{{\"name\":\"{}\"", "x".repeat(70_000));
    let answer = world.call("PUT", SALE, &[ADMIN], large).await;
    assert_eq!(answer.problem(), (413, "body_too_large"));
    assert!(world.log.appended.lock().is_empty());
}

#[tokio::test]
async fn only_the_admin_token_opens_the_administration() {
    let world = world(Some("let-me-in"));
    let routes = [
        ("PUT", ""),
        ("POST", "/open"),
        ("POST", "/pause"),
        ("POST", "/close"),
        ("POST", "/stock"),
    ];
    let wrong = [
        "",
        "Bearer",
        "Bearer ",
        "Bearer let-me-i",
        "Bearer let-me-in ",
        "Bearer let-me-inn",
        "Basic let-me-in",
        "let-me-in",
        "Bearer LET-ME-IN",
    ];
    for (method, action) in routes {
        let path = format!("{SALE}{action}");
        for token in wrong {
            let answer = world
                .call(method, &path, &[("authorization", token)], "{}")
                .await;
            assert_eq!(
                answer.problem(),
                (401, "unauthorized"),
                "{method} {path} {token:?}"
            );
            assert_eq!(answer.header("www-authenticate"), "Bearer");
        }
        let answer = world.call(method, &path, &[], "{}").await;
        assert_eq!(answer.problem(), (401, "unauthorized"), "{method} {path}");
    }
    assert!(world.log.appended.lock().is_empty());
    let lower = [("authorization", "bearer let-me-in")];
    assert_eq!(
        world
            .call("POST", &format!("{SALE}/open"), &lower, "")
            .await
            .status,
        202
    );
}
