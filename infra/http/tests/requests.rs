//! The extractors, on good requests and on wrong ones.

use axum::body::Body as HttpBody;
use axum::extract::DefaultBodyLimit;
use axum::http::{Request, StatusCode};
use axum::routing::{get, post};
use axum::{Json, Router};
use http_body_util::BodyExt;
use schemas::ids::{Position, ProductId};
use serde::Deserialize;
use serde_json::{Value, json};
use tower::ServiceExt;
use web::extract::{self, Body, Buyer, IdempotencyKey, NoBody, Path, Query};
use web::rfc3339::Moment;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Price {
    minor: i64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    #[serde(deserialize_with = "extract::number::<_, 1, 100_000>")]
    quantity: u32,
    price: Option<Price>,
    at: Option<Moment>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default, deserialize_with = "extract::query_number::<_, 1, 500>")]
    limit: Option<u32>,
    #[serde(default, deserialize_with = "extract::query_position")]
    at_least: Option<Position>,
}

fn router() -> Router {
    Router::new()
        .route(
            "/body",
            post(async |Body(order): Body<Order>| {
                let minor = order.price.map(|price| price.minor);
                Json(json!([order.quantity, minor, order.at.map(|at| at.0)]))
            }),
        )
        .route("/empty", post(async |_: NoBody| "accepted"))
        .route(
            "/products/{product_id}",
            get(async |Path(id): Path<ProductId>| id.to_string()),
        )
        .route(
            "/page",
            get(async |Query(page): Query<Page>| {
                Json(json!([page.limit, page.at_least.map(|at| at.to_string())]))
            }),
        )
        .route(
            "/who",
            get(
                async |Buyer(buyer): Buyer, IdempotencyKey(key): IdempotencyKey| {
                    Json(json!([buyer.as_str(), key]))
                },
            ),
        )
        .layer(DefaultBodyLimit::max(256))
}

async fn send(request: Request<HttpBody>) -> (StatusCode, Value) {
    let response = router().oneshot(request).await.unwrap();
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    let text = || Value::String(String::from_utf8_lossy(&body).into_owned());
    (
        status,
        serde_json::from_slice(&body).unwrap_or_else(|_| text()),
    )
}

async fn post_json(path: &str, body: impl Into<HttpBody>) -> (StatusCode, Value) {
    let request = Request::post(path).header("content-type", "application/json; charset=utf-8");
    send(request.body(body.into()).unwrap()).await
}

/// Status, code, field and expectation of a problem.
fn problem(answer: &(StatusCode, Value)) -> (u16, &str, &str, &str) {
    let text = |name| answer.1[name].as_str().unwrap_or_default();
    (
        answer.0.as_u16(),
        text("code"),
        text("field"),
        text("expected"),
    )
}

#[tokio::test]
async fn good_requests_are_accepted() {
    let body = r#" {"quantity":2,"price":{"minor":-3},"at":"1970-01-01T00:00:01Z"} "#;
    assert_eq!(
        post_json("/body", body).await,
        (StatusCode::OK, json!([2, -3, 1000]))
    );
    for body in ["", "{}", " { } "] {
        assert_eq!(post_json("/empty", body).await.0, 200, "{body:?}");
    }
    let bare = Request::post("/empty").body(HttpBody::empty()).unwrap();
    assert_eq!(send(bare).await.0, 200);
    let page = Request::get("/page?limit=500&at_least=3:18")
        .body(HttpBody::empty())
        .unwrap();
    assert_eq!(send(page).await.1, json!([500, "3:18"]));
    let page = Request::get("/page").body(HttpBody::empty()).unwrap();
    assert_eq!(send(page).await.1, json!([null, null]));
    let product = Request::get("/products/BANK%20CHARGES")
        .body(HttpBody::empty())
        .unwrap();
    assert_eq!(send(product).await.1, json!("BANK CHARGES"));
}

#[tokio::test]
async fn the_problem_of_a_wrong_body_names_the_wrong_part() {
    let whole = "a whole number from 1 to 100000";
    let time = "a time as in RFC 3339, such as 2026-11-21T08:00:00.000Z";
    let cases = [
        (r#"{"quantity":0}"#, "invalid_request", "quantity", whole),
        (
            r#"{"quantity":100001}"#,
            "invalid_request",
            "quantity",
            whole,
        ),
        (r#"{"quantity":-1}"#, "invalid_request", "quantity", whole),
        (r#"{"quantity":1.0}"#, "invalid_request", "quantity", whole),
        (
            r#"{"quantity":18446744073709551616}"#,
            "invalid_request",
            "quantity",
            whole,
        ),
        (r#"{"quantity":"1"}"#, "invalid_request", "quantity", whole),
        (
            r#"{"quantity":", expected x"}"#,
            "invalid_request",
            "quantity",
            whole,
        ),
        (r#"{"quantity":null}"#, "invalid_request", "quantity", whole),
        ("{}", "invalid_request", "quantity", "given"),
        (
            r#"{"quantity":1,"quantity":2}"#,
            "invalid_request",
            "quantity",
            "given once",
        ),
        (
            r#"{"quantity":1,"x":2}"#,
            "unknown_field",
            "x",
            "one of quantity, price, at",
        ),
        (
            r#"{"quantity":1,"`a`, expected `b":2}"#,
            "unknown_field",
            "`a`, expected `b",
            "one of quantity, price, at",
        ),
        (
            r#"{"quantity":1,"":2}"#,
            "unknown_field",
            "\"\"",
            "one of quantity, price, at",
        ),
        (
            r#"{"quantity":1,"price":{}}"#,
            "invalid_request",
            "price.minor",
            "given",
        ),
        (
            r#"{"quantity":1,"price":{"minor":"a"}}"#,
            "invalid_request",
            "price.minor",
            "a whole number",
        ),
        (
            r#"{"quantity":1,"price":7}"#,
            "invalid_request",
            "price",
            "a JSON object",
        ),
        (
            r#"{"quantity":1,"at":"now"}"#,
            "invalid_request",
            "at",
            time,
        ),
        ("[1,null,null]", "invalid_request", "body", "a JSON object"),
        ("", "invalid_request", "body", "JSON"),
        ("{", "invalid_request", "body", "JSON"),
        (r#"{"quantity":1}x"#, "invalid_request", "body", "JSON"),
        ("\u{0}\u{1}", "invalid_request", "body", "JSON"),
    ];
    for (body, code, field, expected) in cases {
        let answer = post_json("/body", body).await;
        assert_eq!(problem(&answer), (400, code, field, expected), "{body}");
    }
    let answer = post_json("/body", vec![0xff, 0xfe]).await;
    assert_eq!(problem(&answer), (400, "invalid_request", "body", "JSON"));
    let answer = post_json("/body", format!("{{\"quantity\":1{}", " ".repeat(300))).await;
    assert_eq!(problem(&answer), (413, "body_too_large", "", ""));
    let answer = post_json("/empty", r#"{"a":1}"#).await;
    assert_eq!(
        problem(&answer),
        (400, "unknown_field", "a", "no field at all")
    );
    let answer = post_json("/empty", r#"{"`a":1}"#).await;
    assert_eq!(
        problem(&answer),
        (400, "unknown_field", "`a", "no field at all")
    );

    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonx",
        "",
    ] {
        for path in ["/body", "/empty"] {
            let request = Request::post(path).header("content-type", kind);
            let answer = send(request.body(r#"{"quantity":1}"#.into()).unwrap()).await;
            let expected = (
                415,
                "unsupported_media_type",
                "Content-Type",
                "application/json",
            );
            assert_eq!(problem(&answer), expected, "{kind:?} at {path}");
        }
    }
}

#[tokio::test]
async fn the_problem_of_a_wrong_path_or_query_names_the_wrong_part() {
    let limit = "a whole number from 1 to 500";
    let position = "partition:offset, two numbers such as 3:1842";
    let long = format!("/products/{}", "x".repeat(65));
    let id = "consist of ASCII letters, digits, '-', '_', '.', ':', '@', '+' and inner spaces";
    let cases = [
        ("/page?limit=0", "invalid_request", "limit", limit),
        ("/page?limit=501", "invalid_request", "limit", limit),
        ("/page?limit=+1", "invalid_request", "limit", limit),
        ("/page?limit=ten", "invalid_request", "limit", limit),
        ("/page?limit=", "invalid_request", "limit", limit),
        (
            "/page?limit=1&limit=2",
            "invalid_request",
            "limit",
            "given once",
        ),
        ("/page?at_least=3", "invalid_request", "at_least", position),
        (
            "/page?at_least=3:-1",
            "invalid_request",
            "at_least",
            position,
        ),
        (
            "/page?offset=3",
            "unknown_field",
            "offset",
            "limit or at_least",
        ),
        ("/products/a%2Fb", "invalid_request", "product_id", id),
        (&long, "invalid_request", "product_id", "1 to 64 bytes long"),
        ("/products/%FF", "invalid_request", "product_id", "UTF-8"),
        ("/products/a%0a", "invalid_request", "product_id", id),
    ];
    for (path, code, field, expected) in cases {
        let answer = send(Request::get(path).body(HttpBody::empty()).unwrap()).await;
        assert_eq!(problem(&answer), (400, code, field, expected), "{path}");
    }
}

#[tokio::test]
async fn headers_name_the_buyer_and_the_attempt() {
    let ask = async |headers: &[(&str, &[u8])]| {
        let mut request = Request::get("/who");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        send(request.body(HttpBody::empty()).unwrap()).await
    };
    let buyer: (&str, &[u8]) = ("X-Buyer-Id", b"b-1");
    assert_eq!(ask(&[buyer]).await.1, json!(["b-1", null]));
    for (given, meant) in [
        ("k", "k"),
        (r#""k""#, "k"),
        (r#""a\"b\\c""#, r#"a"b\c"#),
        (r#"a"b"#, r#"a"b"#),
    ] {
        let answer = ask(&[buyer, ("Idempotency-Key", given.as_bytes())]).await;
        assert_eq!(answer.1, json!(["b-1", meant]), "{given}");
    }
    let longest = "x".repeat(255);
    assert_eq!(
        ask(&[buyer, ("Idempotency-Key", longest.as_bytes())])
            .await
            .0,
        200
    );

    assert_eq!(problem(&ask(&[]).await).1, "missing_header");
    let long = "x".repeat(65);
    for bad in [&b""[..], b"a/b", b"\xc3\xbc", b"<script>", long.as_bytes()] {
        let answer = ask(&[("X-Buyer-Id", bad)]).await;
        let (status, code, field, expected) = problem(&answer);
        assert_eq!(
            (status, code, field),
            (400, "invalid_request", "X-Buyer-Id"),
            "{bad:?}"
        );
        assert!(!expected.is_empty(), "{answer:?}");
    }
    assert_eq!(problem(&ask(&[buyer, buyer]).await).3, "given once");

    let long = "x".repeat(256);
    for bad in [
        "", "\"", "\"\"", "a b", "\"a", r#""a"b""#, r#""a\x""#, r#""a\""#, &long, "\u{fc}",
    ] {
        let answer = ask(&[buyer, ("Idempotency-Key", bad.as_bytes())]).await;
        assert_eq!(problem(&answer).2, "Idempotency-Key", "{bad:?}");
    }
}
