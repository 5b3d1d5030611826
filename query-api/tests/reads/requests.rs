//! Invalid requests, the page, and the OpenAPI document.

use serde_json::Value;

use crate::support::{Shop, TOKEN, id};

#[tokio::test(start_paused = true)]
async fn each_invalid_parameter_is_named() {
    let shop = Shop::open();
    shop.settle().await;
    let attempt = format!("/api/attempts/{}", id(1));
    let long = "x".repeat(65);
    let cases: Vec<(String, &str, &str)> = [
        ("wait=", "wait"),
        ("wait=abc", "wait"),
        ("wait=-1", "wait"),
        ("wait=31", "wait"),
        ("wait=1.5", "wait"),
        ("wait=%2B1", "wait"),
        ("wait=99999999999999999999", "wait"),
        ("wait=1&wait=2", "wait"),
        ("at_least=3", "at_least"),
        ("at_least=", "at_least"),
        ("at_least=0:-1", "at_least"),
        ("at_least=2:0", "at_least"),
        ("at_least=4294967296:0", "at_least"),
        ("at_least=0:9223372036854775808", "at_least"),
        ("at_least=0:0&at_least=0:0", "at_least"),
    ]
    .into_iter()
    .map(|(query, field)| (format!("{attempt}?{query}"), "invalid_request", field))
    .chain([
        (
            "/api/attempts/nonsense".into(),
            "invalid_request",
            "attempt_id",
        ),
        ("/api/attempts/%FF".into(), "invalid_request", "attempt_id"),
        (
            "/api/flash-sales?limit=0".into(),
            "invalid_request",
            "limit",
        ),
        (
            "/api/flash-sales?limit=501".into(),
            "invalid_request",
            "limit",
        ),
        (
            "/api/flash-sales?limit=ten".into(),
            "invalid_request",
            "limit",
        ),
        (
            "/api/flash-sales?after=a%2Fb".into(),
            "invalid_request",
            "after",
        ),
        ("/api/flash-sales?after=".into(), "invalid_request", "after"),
        (
            format!("/api/flash-sales?after={long}"),
            "invalid_request",
            "after",
        ),
        (
            "/api/flash-sales?sort=price".into(),
            "invalid_request",
            "sort",
        ),
        (
            "/api/flash-sales?sort=busiest&after=61".into(),
            "invalid_request",
            "after",
        ),
        (
            "/api/flash-sales?at_least=7:1".into(),
            "invalid_request",
            "at_least",
        ),
        (
            format!("/api/flash-sales/{long}"),
            "invalid_request",
            "product_id",
        ),
        (
            "/api/flash-sales/%C3%BC".into(),
            "invalid_request",
            "product_id",
        ),
        (
            "/api/flash-sales/%00".into(),
            "invalid_request",
            "product_id",
        ),
        (
            "/api/buyers/me/orders?after=abc".into(),
            "invalid_request",
            "after",
        ),
        (
            "/api/buyers/me/orders?limit=1000000".into(),
            "invalid_request",
            "limit",
        ),
        (
            "/api/buyers/me/orders?at_least=2:0".into(),
            "invalid_request",
            "at_least",
        ),
    ])
    .collect();
    for (path, code, field) in cases {
        let answer = shop.get_with(&path, &[("x-buyer-id", "b")]).await;
        assert_eq!(answer.status, 400, "{path}: {}", answer.body);
        assert_eq!(
            answer.headers["content-type"], "application/problem+json",
            "{path}"
        );
        assert_eq!(answer.body["code"], code, "{path}: {}", answer.body);
        assert_eq!(answer.body["field"], field, "{path}: {}", answer.body);
        assert!(
            answer.body["expected"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{path}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn parameters_at_their_limits_are_accepted() {
    let shop = Shop::open();
    shop.put_sale(0, "a b", 1);
    shop.project(0).await;
    shop.ask(0, "a b", id(1));
    shop.settle().await;
    for path in [
        "/api/flash-sales?limit=1".to_owned(),
        "/api/flash-sales?limit=500&sort=product_id&at_least=0:0".to_owned(),
        "/api/flash-sales?sort=busiest".to_owned(),
        "/api/flash-sales/a%20b".to_owned(),
        format!("/api/attempts/{}?wait=0", id(1)),
        format!("/api/attempts/{}?wait=30", id(1)),
        "/api/buyers/me/orders?after=343239343936373239353a39323233333732303336383534373735383037"
            .to_owned(),
    ] {
        let answer = shop.get_with(&path, &[("x-buyer-id", "b")]).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    }
}

#[tokio::test(start_paused = true)]
async fn parameters_that_are_not_known_are_ignored() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 1);
    shop.project(0).await;
    shop.ask(0, "p", id(1));
    shop.settle().await;
    let mut paths = 0;
    for template in Shop::openapi().paths.paths.keys() {
        paths += 1;
        let path = template
            .replace("{product_id}", "p")
            .replace("{attempt_id}", &id(1).to_string())
            .replace("{command_id}", "0-0");
        let token = format!("Bearer {TOKEN}");
        let headers = [("x-buyer-id", "b"), ("authorization", &*token)];
        let plain = shop.get_with(&path, &headers).await;
        assert_eq!(plain.status, 200, "{path}: {}", plain.body);
        for query in [
            "_=1",
            "utm_source=a&utm_source=b",
            "x",
            "%FF=%FF",
            "wiat=1&",
        ] {
            let path = format!("{path}?{query}");
            let answer = shop.get_with(&path, &headers).await;
            assert_eq!(
                (answer.status, &answer.body),
                (plain.status, &plain.body),
                "{path}"
            );
        }
    }
    assert_eq!(paths, 6);
}

#[tokio::test(start_paused = true)]
async fn every_page_follows_whatever_the_ids_are_made_of() {
    let shop = Shop::open();
    let ids = ["BAH-SB+7", "BAH-SB+8", "a b", "a+b", "a:b@c"];
    for (partition, id) in (0..).zip(&ids) {
        shop.put_sale(partition % 2, id, 1);
    }
    shop.settle().await;
    let mut found = vec![];
    let mut path = "/api/flash-sales?limit=1".to_owned();
    while found.len() <= ids.len() {
        let page = shop.get(&path).await.body;
        let sales = page["sales"].as_array().unwrap().iter();
        found.extend(sales.map(|sale| sale["product_id"].as_str().unwrap().to_owned()));
        // As it is, without escapes.
        let Some(next) = page["next"].as_str() else {
            break;
        };
        path = format!("/api/flash-sales?limit=1&after={next}");
    }
    assert_eq!(found, ids);
}

#[tokio::test]
async fn the_page_serves_every_file_it_needs() {
    let shop = Shop::open();
    let mut texts = vec![];
    for (path, content_type) in [
        ("/", "text/html; charset=utf-8"),
        ("/shop.css", "text/css; charset=utf-8"),
        ("/shop.js", "text/javascript; charset=utf-8"),
        ("/shop.svg", "image/svg+xml"),
    ] {
        let answer = shop.get(path).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.headers["content-type"], content_type);
        let policy = answer.headers["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'self';") && !policy.contains("unsafe"));
        assert_eq!(answer.headers["x-content-type-options"], "nosniff");
        texts.push(answer.body.as_str().unwrap().to_owned());
    }
    let html = &texts[0];
    for reference in html
        .split(['"', '\''])
        .filter(|text| text.starts_with("/shop."))
    {
        assert_eq!(shop.get(reference).await.status, 200, "{reference}");
    }
    // The content security policy would block these without an error on the page.
    for blocked in [
        "style=\"", "onclick", "<style", "<script>", "http://", "https://",
    ] {
        assert!(!html.contains(blocked), "{blocked} in the page");
    }
}

#[test]
fn the_openapi_document_describes_every_path() {
    let api = Shop::openapi();
    let described: Value = serde_json::to_value(&api).unwrap();
    let paths: Vec<&String> = described["paths"].as_object().unwrap().keys().collect();
    let expected = [
        "/api/attempts/{attempt_id}",
        "/api/buyers/me/orders",
        "/api/commands/{command_id}",
        "/api/flash-sales",
        "/api/flash-sales/{product_id}",
        "/api/flash-sales/{product_id}/intents",
    ];
    assert_eq!(paths, expected);
    for path in expected {
        let responses = &described["paths"][path]["get"]["responses"];
        assert!(
            responses["200"].is_object() && responses["503"].is_object(),
            "{path}"
        );
    }
    let attempt = &described["components"]["schemas"]["Attempt"]["properties"];
    assert!(
        attempt["reason"]["enum"]
            .as_array()
            .unwrap()
            .contains(&"sold_out".into())
    );
}
