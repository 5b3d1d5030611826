//! The administration: sales are created, changed and restocked with the admin token.

use schemas::command::CommandBody;
use serde_json::{Value, json};

use crate::support::{ADMIN, BUYER, NOW, SALE, World, world};

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
        let at = format!("{}-{}", position["partition"], position["offset"]);
        assert_eq!(answer.header("location"), format!("/api/commands/{at}"));
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
    assert_eq!(world.store_queries(), 0);
}

#[tokio::test]
async fn a_sale_is_opened_paused_closed_and_restocked() {
    let world = world(Some("let-me-in"));
    for (action, body) in [
        ("open", String::new()),
        ("pause", "{}".to_owned()),
        ("close", String::new()),
        ("stock", r#"{"stock":0}"#.to_owned()),
        ("rounds", sale().to_string()),
    ] {
        let path = format!("{SALE}/{action}");
        let answer = world.call("POST", &path, &[ADMIN], body.clone()).await;
        assert_eq!(answer.status, 202, "{action}: {}", answer.body);
        let position = &answer.body["position"];
        let at = format!("{}-{}", position["partition"], position["offset"]);
        assert_eq!(answer.header("location"), format!("/api/commands/{at}"));
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
            CommandBody::SetStock(_),
            CommandBody::BeginRound(_)
        ]
    ));
}

/// The versions that the changes in the log were made for.
fn versions(world: &World) -> Vec<Option<u64>> {
    let commands = world.commands().into_iter();
    commands.map(|command| command.if_version).collect()
}

#[tokio::test]
async fn a_change_carries_the_version_it_was_made_for() {
    let world = world(Some("let-me-in"));
    let terms = sale().to_string();
    let routes = [
        ("PUT", "", terms.clone()),
        ("POST", "/rounds", terms),
        ("POST", "/open", String::new()),
        ("POST", "/pause", String::new()),
        ("POST", "/close", String::new()),
        ("POST", "/stock", r#"{"stock":1}"#.to_owned()),
    ];
    for (method, action, body) in routes {
        let path = format!("{SALE}{action}");
        let headers = [ADMIN, ("if-match", "\"17\"")];
        let answer = world.call(method, &path, &headers, body.clone()).await;
        assert_eq!(answer.status, 202, "{method} {path}: {}", answer.body);
        assert_eq!(versions(&world).pop(), Some(Some(17)), "{method} {path}");
        world.call(method, &path, &[ADMIN], body).await;
        assert_eq!(versions(&world).pop(), Some(None), "{method} {path}");
    }
    let appended = world.appended().len();
    for bad in [
        "17",
        "\"\"",
        "*",
        "W/\"17\"",
        "\"17\", \"18\"",
        "\"-1\"",
        "\"x\"",
        "\"9223372036854775808\"",
    ] {
        let headers = [ADMIN, ("if-match", bad)];
        let open = format!("{SALE}/open");
        let answer = world.call("POST", &open, &headers, "").await;
        assert_eq!(answer.problem(), (400, "invalid_request"), "{bad}");
        assert_eq!(answer.body["field"], "If-Match", "{bad}");
    }
    assert_eq!(world.appended().len(), appended);
}

/// A field that is left out may give away what the sale does not. So such a request creates a sale,
/// and changes none.
#[tokio::test]
async fn terms_with_a_field_left_out_only_create_a_sale() {
    let world = world(Some("let-me-in"));
    let fields = ["limit_per_buyer", "hold_ms", "opens_at", "closes_at"];
    for field in fields {
        let mut terms = sale();
        terms.as_object_mut().unwrap().remove(field);
        let body = terms.to_string();
        assert_eq!(
            world.call("PUT", SALE, &[ADMIN], body.clone()).await.status,
            202
        );
        assert_eq!(versions(&world).pop(), Some(Some(0)), "without {field}");
        let headers = [ADMIN, ("if-match", "\"17\"")];
        let answer = world.call("PUT", SALE, &headers, body.clone()).await;
        assert_eq!(
            answer.problem(),
            (400, "invalid_request"),
            "without {field}"
        );
        assert_eq!(answer.body["field"], field);
        // With null it is stated.
        terms[field] = Value::Null;
        let answer = world.call("PUT", SALE, &[ADMIN], terms.to_string()).await;
        assert_eq!(answer.status, 202, "{field} null: {}", answer.body);
        assert_eq!(versions(&world).pop(), Some(None), "{field} null");
        // A new round has no field to keep.
        let rounds = format!("{SALE}/rounds");
        assert_eq!(
            world.call("POST", &rounds, &[ADMIN], body).await.status,
            202
        );
        assert_eq!(versions(&world).pop(), Some(None));
    }
}

#[tokio::test]
async fn terms_out_of_bounds_are_named() {
    let world = world(Some("let-me-in"));
    let cases = [
        ("/name", json!(""), 422, "name"),
        ("/name", json!("x".repeat(201)), 422, "name"),
        ("/name", json!(7), 400, "name"),
        ("/name", json!(" "), 422, "name"),
        (
            "/name",
            json!("\u{a0}\u{3000}\u{200b}\u{feff}"),
            422,
            "name",
        ),
        ("/name", json!("Lamp\n"), 422, "name"),
        ("/name", json!("Lamp\u{0}"), 422, "name"),
        ("/name", json!("Lamp\u{85}"), 422, "name"),
        ("/name", json!("Lamp\u{2028}"), 422, "name"),
        ("/name", json!("\u{202e}pmaL"), 422, "name"),
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
        let rounds = format!("{SALE}/rounds");
        for (method, path) in [("PUT", SALE), ("POST", &rounds)] {
            let answer = world.call(method, path, &[ADMIN], body.to_string()).await;
            assert_eq!(answer.status, status, "{method} {place} {value}");
        }
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
    assert!(world.appended().is_empty());
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
        ("POST", "/rounds"),
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
    assert!(world.appended().is_empty());
    let lower = [("authorization", "bearer let-me-in")];
    assert_eq!(
        world
            .call("POST", &format!("{SALE}/open"), &lower, "")
            .await
            .status,
        202
    );
}
