//! Malformed and hostile requests, each with the answer that names what is wrong.

use crate::support::{ADMIN, BUYER, CANCEL, ORDER, SALE, world};

#[tokio::test]
async fn invalid_requests_are_refused_by_name_and_append_nothing() {
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
    assert!(world.appended().is_empty());
}
