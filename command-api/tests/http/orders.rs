//! Orders and cancellations, with a log and a store that work or fail.

use std::time::Duration;

use axum::body::Body;
use kit::OnAppend;
use ports::read_store::{Progress, Row, SaleRow};
use ports::{AppendError, NewRecord, ReadStore};
use runtime::health::Health;
use runtime::metrics::APPEND_FAILURES;
use runtime::telemetry;
use schemas::command::CommandBody;
use schemas::ids::{AttemptId, Offset, ProductId};
use schemas::placement::Placement;
use schemas::topics::Topic;
use serde_json::json;
use tokio::time::sleep;
use web::receipt::ReceiptKey;

use crate::support::{ADMIN, BUYER, CANCEL, NOW, PARTITIONS, SALE, World, sale, world};

#[tokio::test]
async fn an_order_is_in_the_log_before_it_is_answered() {
    let world = world(None);
    let answer = world
        .order(&[BUYER, ("idempotency-key", "k")], r#"{"quantity":2}"#)
        .await;
    assert_eq!(answer.status, 202);

    let (product, buyer) = ("sneaker".parse().unwrap(), "b-1".parse().unwrap());
    let id = AttemptId::from_key(&product, &buyer, "k", 1);
    let partition = Placement::new(PARTITIONS).partition_of(&product);
    let location = format!("/api/attempts/{id}?at_least={}:0", partition.0);
    assert_eq!(answer.header("location"), location);
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
    assert_eq!(place.round, Some(1));
    let (at, record) = world.appended().remove(0);
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
    let again = world.order(&[BUYER, quoted], r#"{"quantity":1}"#).await;
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
async fn the_same_key_with_another_quantity_is_a_conflict() {
    let world = world(None);
    let key = ("idempotency-key", "k");
    let first = world.order(&[BUYER, key], r#"{"quantity":2}"#).await;
    assert_eq!(first.status, 202);
    let other = world.order(&[BUYER, key], r#"{"quantity":3}"#).await;
    assert_eq!(other.problem(), (422, "idempotency_conflict"));
    assert_eq!(other.body["field"], "quantity");
    assert_eq!(other.body["retry"], "never");
    assert_eq!(world.appended().len(), 1);
    // The first one's receipt can still be had, and another buyer has keys of his own.
    let again = world.order(&[BUYER, key], r#"{"quantity":2}"#).await;
    assert_eq!(again.body["attempt_id"], first.body["attempt_id"]);
    let bob = [("x-buyer-id", "b-2"), key];
    assert_eq!(world.order(&bob, r#"{"quantity":3}"#).await.status, 202);
    // Orders without a key never conflict.
    for quantity in [1, 2] {
        let body = format!("{{\"quantity\":{quantity}}}");
        assert_eq!(world.order(&[BUYER], body).await.status, 202);
    }
}

/// The round and the id of the last order in the log.
fn last_order(world: &World) -> (Option<u32>, AttemptId) {
    match world.commands().pop().unwrap().body {
        CommandBody::PlaceAttempt(place) => (place.round, place.attempt_id),
        other => panic!("{other:?} is no order"),
    }
}

fn sale_in_round(round: u32) -> Row {
    Row::Sale(SaleRow {
        round,
        version: round.into(),
        ..sale("sneaker")
    })
}

#[tokio::test(start_paused = true)]
async fn a_key_names_another_attempt_in_each_round() {
    let world = world(None);
    let (product, buyer) = ("sneaker".parse().unwrap(), "b-1".parse().unwrap());
    let id = |round| AttemptId::from_key(&product, &buyer, "k", round);
    let order = || world.order(&[BUYER, ("idempotency-key", "k")], r#"{"quantity":1}"#);
    order().await;
    assert_eq!(last_order(&world), (Some(1), id(1)));
    // A round that was read just now is not read again for every order.
    let queries = world.store_queries();
    world.store.put(sale_in_round(2));
    order().await;
    assert_eq!(last_order(&world), (Some(1), id(1)));
    assert_eq!(world.store_queries(), queries);
    sleep(Duration::from_secs(1)).await;
    order().await;
    assert_eq!(last_order(&world), (Some(2), id(2)));

    // Rounds only grow: an answer that says otherwise is older.
    world.store.put(sale_in_round(3));
    sleep(Duration::from_secs(1)).await;
    order().await;
    assert_eq!(last_order(&world), (Some(3), id(3)));
    // Without the store it is the last round known.
    for silent in [false, true] {
        world.store.fail(!silent);
        world.store.keep_silent(silent);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(order().await.status, 202);
        assert_eq!(last_order(&world), (Some(3), id(3)));
    }
    // An order without a key is of whichever round is current.
    world.order(&[BUYER], r#"{"quantity":1}"#).await;
    assert_eq!(last_order(&world).0, None);
}

/// Orders that find the round old at the same time share one read of the store.
#[tokio::test(start_paused = true)]
async fn many_orders_at_once_read_the_round_once() {
    let world = world(None);
    let order = |n: u32| {
        let world = &world;
        async move {
            let key = format!("k-{n}");
            let headers = [BUYER, ("idempotency-key", key.as_str())];
            world.order(&headers, r#"{"quantity":1}"#).await.status
        }
    };
    assert_eq!(order(0).await, 202);
    sleep(Duration::from_secs(1)).await;
    let queries = world.store_queries();
    let all = futures::future::join_all((1..200).map(order)).await;
    assert!(all.iter().all(|status| *status == 202));
    assert!(world.store_queries() <= queries + 1);
}

/// An order after `POST …/rounds` waits for the store to have that command's outcome.
#[tokio::test(start_paused = true)]
async fn an_order_after_a_new_round_is_made_for_it() {
    let world = world(Some("let-me-in"));
    let order = || world.order(&[BUYER, ("idempotency-key", "k")], r#"{"quantity":1}"#);
    order().await;
    assert_eq!(last_order(&world).0, Some(1));
    let body = r#"{"name":"x","price":{"minor":1,"currency":"EUR"},"stock":1}"#;
    let rounds = format!("{SALE}/rounds");
    assert_eq!(
        world.call("POST", &rounds, &[ADMIN], body).await.status,
        202
    );
    let partition = Placement::new(PARTITIONS).partition_of(&"sneaker".parse().unwrap());
    let catching_up = async {
        sleep(Duration::from_millis(35)).await;
        let progress = Progress {
            next: Offset(3),
            claim: Offset(0),
            answered: Offset(1),
            log: None,
        };
        let rows = vec![sale_in_round(2)];
        let applied = world.store.apply(partition, rows, progress).await;
        applied.unwrap();
    };
    tokio::join!(order(), catching_up);
    assert_eq!(last_order(&world).0, Some(2));
}

#[tokio::test]
async fn a_cancellation_is_accepted_with_or_without_an_empty_body() {
    let world = world(None);
    for body in ["", "{}"] {
        let answer = world.call("POST", CANCEL, &[BUYER], body).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        let position = &answer.body["position"];
        let location = format!(
            "/api/commands/{}-{}",
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
async fn each_failure_of_the_log_has_its_answer() {
    let metrics = telemetry::metrics();
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
            AppendError::Unavailable("x".into()),
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
        world.log.on_append(OnAppend::Fail(error.clone()));
        let answer = world.order(&[BUYER], r#"{"quantity":1}"#).await;
        assert_eq!(answer.problem(), (status, code), "{error:?}");
        assert_eq!(answer.body["retry"], retry, "{error:?}");
        let seconds = if status == 503 { "1" } else { "" };
        assert_eq!(answer.header("retry-after"), seconds, "{error:?}");
        let names_the_key = answer.body["detail"]
            .as_str()
            .unwrap()
            .contains("Idempotency-Key");
        assert_eq!(names_the_key, code == "log_unavailable", "{error:?}");
    }

    world.log.on_append(OnAppend::Hang);
    let answer = world.order(&[BUYER], r#"{"quantity":1}"#).await;
    assert_eq!(answer.problem(), (408, "request_timeout"));
    assert_eq!(answer.body["retry"], "same_request");
    let text = metrics.render(&Health::default());
    for reason in APPEND_FAILURES {
        // The last one is the watch's, in another test.
        let failures = u8::from(reason != "another_log");
        let count = format!("doorbuster_appends_failed_total{{reason=\"{reason}\"}} {failures}\n");
        assert!(
            text.contains(&count),
            "{reason} is not {failures} in\n{text}"
        );
    }

    world.log.on_append(OnAppend::Take);
    assert_eq!(world.order(&[BUYER], r#"{"quantity":1}"#).await.status, 202);
}

#[tokio::test]
async fn a_body_that_never_ends_times_out() {
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
        world.store_queries(),
        1,
        "a known product is not looked up again"
    );
    for _ in 0..2 {
        let boot = "/api/flash-sales/boot/order";
        let answer = world
            .call("POST", boot, &[BUYER], r#"{"quantity":1}"#)
            .await;
        assert_eq!(answer.problem(), (404, "unknown_product"));
    }
    assert_eq!(
        world.store_queries(),
        5,
        "an unknown product is looked up each time, and again when the store is current"
    );

    // When the store fails, the core decides.
    world.store.fail(true);
    let cap = "/api/flash-sales/cap/order";
    assert_eq!(
        world
            .call("POST", cap, &[BUYER], r#"{"quantity":1}"#)
            .await
            .status,
        202
    );
}

/// A product that is put through one command API is known to all others, also before the projector has
/// written it and after the read models were deleted.
#[tokio::test(start_paused = true)]
async fn a_product_is_unknown_only_when_the_store_is_current() {
    let world = world(None);
    let boot: ProductId = "boot".parse().unwrap();
    let partition = Placement::new(PARTITIONS).partition_of(&boot);
    let order = || {
        world.call(
            "POST",
            "/api/flash-sales/boot/order",
            &[BUYER],
            r#"{"quantity":1}"#,
        )
    };
    let projected = async |answered: i64, rows| {
        let progress = Progress {
            next: Offset(answered + 2),
            claim: Offset(0),
            answered: Offset(answered),
            log: None,
        };
        let applied = world.store.apply(partition, rows, progress).await;
        applied.unwrap();
    };
    assert_eq!(order().await.problem(), (404, "unknown_product"));

    // Another command API has appended the sale, and the store does not have it yet.
    world.log.put(
        Topic::PurchaseAttempts,
        partition,
        vec![NewRecord::default()],
    );
    assert_eq!(order().await.status, 202, "the core decides");
    // The order is a record as well, and has not been projected.
    projected(0, vec![]).await;
    assert_eq!(
        order().await.status,
        202,
        "the store is behind by one record"
    );

    // A store that is current shortly after the request is waited for.
    projected(2, vec![]).await;
    assert_eq!(order().await.problem(), (404, "unknown_product"));
    world.log.put(
        Topic::PurchaseAttempts,
        partition,
        vec![NewRecord::default()],
    );
    let catching_up = async {
        sleep(Duration::from_millis(35)).await;
        projected(3, vec![Row::Sale(sale("boot"))]).await;
    };
    let (answer, ()) = tokio::join!(order(), catching_up);
    assert_eq!(answer.status, 202);
    assert_eq!(world.appended().last().unwrap().1.offset, Offset(4));
}

/// A store that does not answer delays an order only for a moment.
#[tokio::test(start_paused = true)]
async fn orders_do_not_wait_for_a_silent_store() {
    let world = world(None);
    world.store.keep_silent(true);
    let began = tokio::time::Instant::now();
    let answer = world.order(&[BUYER], r#"{"quantity":1}"#).await;
    assert_eq!(answer.status, 202);
    assert!(began.elapsed() < std::time::Duration::from_secs(1));
}
