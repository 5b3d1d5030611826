//! What became of a command, by its position.

use std::time::Duration;

use query_api::live::LiveSettings;
use schemas::command::{CancelOrder, CommandBody, PlaceAttempt, SetStock};
use schemas::decision::{
    AttemptConflicted, CancelRefusalReason, CancelRefused, Event, OrderReleased, RefusalReason,
    ReleaseCause, SaleChangeRefusalReason, SaleChangeRefused, StockSet,
};
use schemas::ids::{AttemptId, Offset};
use serde_json::{Value, json};

use crate::support::{Answer, Shop, id, order, refused, repeated, sold};

const STAFF: (&str, &str) = ("authorization", "Bearer a-good-token");
const BUYER: (&str, &str) = ("x-buyer-id", "buyer");
const OTHER: (&str, &str) = ("x-buyer-id", "other");

async fn command(shop: &Shop, at: Offset, headers: &[(&str, &str)]) -> Answer {
    let path = format!("/api/commands/0-{at}");
    shop.get_with(&path, headers).await
}

fn problem(answer: &Answer) -> (u16, &str) {
    (
        answer.status.as_u16(),
        answer.body["code"].as_str().unwrap_or_default(),
    )
}

fn set_stock() -> CommandBody {
    CommandBody::SetStock(SetStock { stock: 5 })
}

fn refuse_change(shop: &Shop, at: Offset, reason: SaleChangeRefusalReason) {
    let refused = Event::SaleChangeRefused(SaleChangeRefused { reason });
    shop.decide(0, "p", at, vec![refused]);
}

fn cancel() -> CommandBody {
    CommandBody::CancelOrder(CancelOrder {
        attempt_id: id(1),
        buyer_id: "buyer".parse().unwrap(),
    })
}

fn cancelled(attempt_at: Offset) -> Event {
    Event::OrderReleased(OrderReleased {
        order: order(id(1), attempt_at),
        cause: ReleaseCause::Cancelled,
    })
}

#[tokio::test(start_paused = true)]
async fn a_change_is_pending_and_a_waiting_read_returns_once_it_is_decided() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    shop.tick(0, "p");
    let at = shop.send(0, "p", set_stock());
    shop.settle().await;
    let answer = command(&shop, at, &[STAFF]).await;
    let expected = json!({
        "command_id": "0-2", "kind": "set_stock", "status": "pending", "product_id": "p",
        "position": {"partition": 0, "offset": 2}, "ahead": 1,
    });
    assert_eq!(answer.body, expected);
    assert_eq!(answer.headers["cache-control"], "private, no-store");

    let deciding = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        shop.decide(0, "p", Offset(1), vec![]);
        let set = StockSet { stock: 5 };
        shop.decide(0, "p", at, vec![Event::StockSet(set)]);
    };
    let (answer, ()) = tokio::join!(
        shop.get_with("/api/commands/0-2?wait=30", &[STAFF]),
        deciding
    );
    let expected = json!({
        "command_id": "0-2", "kind": "set_stock", "status": "done", "product_id": "p",
        "position": {"partition": 0, "offset": 2}, "decided_at": "2026-11-21T08:00:00.000Z",
    });
    assert_eq!(answer.body, expected);
}

#[tokio::test(start_paused = true)]
async fn a_refused_change_names_its_reason_and_whether_a_retry_can_help() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    for (reason, can_help) in [
        (SaleChangeRefusalReason::StockBelowCommitted, false),
        (SaleChangeRefusalReason::HoldsOutstanding, true),
        (SaleChangeRefusalReason::InvalidTerms, false),
    ] {
        let at = shop.send(0, "p", set_stock());
        refuse_change(&shop, at, reason);
        shop.settle().await;
        let body = command(&shop, at, &[STAFF]).await.body;
        let found = (&body["status"], &body["reason"], &body["retry_can_help"]);
        let expected = (&json!("refused"), &json!(reason.as_str()), &json!(can_help));
        assert_eq!(found, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_read_from_the_store_after_memory_has_dropped_it() {
    let few = LiveSettings {
        keep_attempts: 1,
        ..LiveSettings::default()
    };
    let shop = Shop::with(few);
    shop.put_sale(0, "p", 5);
    let refused = shop.send(0, "p", set_stock());
    refuse_change(&shop, refused, SaleChangeRefusalReason::Closed);
    let later = shop.send(0, "p", CommandBody::CloseSale);
    shop.decide(0, "p", later, vec![Event::SaleClosed]);
    shop.settle().await;
    shop.project(0).await;
    shop.settle().await;
    let reads = || shop.store.calls().get("command").copied().unwrap_or(0);
    assert_eq!(reads(), 0);
    let answer = command(&shop, refused, &[STAFF]).await;
    assert_eq!((&answer.body["reason"], reads()), (&json!("closed"), 1));
    assert_eq!(command(&shop, later, &[STAFF]).await.body["status"], "done");
    assert_eq!(reads(), 1, "the last one is in memory");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_behind_what_memory_dropped_is_no_reason_to_say_unknown() {
    let few = LiveSettings {
        keep_attempts: 1,
        max_attempts: 1,
        ..LiveSettings::default()
    };
    let shop = Shop::with(few);
    shop.put_sale(0, "p", 5);
    let changes = [(); 3].map(|()| {
        let at = shop.send(0, "p", CommandBody::PauseSale);
        shop.decide(0, "p", at, vec![Event::SalePaused]);
        at
    });
    shop.settle().await;
    let answer = command(&shop, changes[0], &[STAFF]).await;
    assert_eq!(problem(&answer), (503, "read_model_unavailable"));
    shop.project(0).await;
    shop.settle().await;
    let answer = command(&shop, changes[0], &[STAFF]).await;
    assert_eq!(answer.body["status"], "done");
}

#[tokio::test(start_paused = true)]
async fn a_change_is_for_the_staff_and_a_cancellation_for_its_buyer() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    let attempt = shop.ask(0, "p", id(1));
    shop.decide(0, "p", attempt, sold(id(1), attempt));
    let change = shop.send(0, "p", set_stock());
    let done = shop.send(0, "p", cancel());
    let refused = shop.send(0, "p", cancel());
    for decided in [false, true] {
        if decided {
            refuse_change(&shop, change, SaleChangeRefusalReason::Closed);
            shop.decide(0, "p", done, vec![cancelled(attempt)]);
            let kept = CancelRefused {
                attempt_id: id(1),
                buyer_id: "buyer".parse().unwrap(),
                reason: CancelRefusalReason::UnknownOrder,
            };
            shop.decide(0, "p", refused, vec![Event::CancelRefused(kept)]);
        }
        shop.settle().await;
        let wrong = ("authorization", "Bearer a-bad-token");
        for headers in [&[][..], &[BUYER], &[wrong]] {
            let answer = command(&shop, change, headers).await;
            assert_eq!(problem(&answer), (401, "unauthorized"), "{headers:?}");
        }
        for at in [done, refused] {
            for headers in [&[][..], &[OTHER], &[wrong, OTHER]] {
                let answer = command(&shop, at, headers).await;
                assert_eq!(problem(&answer), (404, "unknown_command"), "{headers:?}");
            }
            for headers in [&[BUYER][..], &[STAFF], &[STAFF, OTHER]] {
                let answer = command(&shop, at, headers).await;
                assert_eq!(answer.body["kind"], "cancel_order", "{headers:?}");
                assert_eq!(answer.body["attempt_id"], id(1).to_string());
                assert!(!answer.body.to_string().contains("buyer"), "{headers:?}");
            }
        }
    }
    let body = command(&shop, refused, &[BUYER]).await.body;
    let found = (&body["reason"], &body["retry_can_help"]);
    assert_eq!(found, (&json!("unknown_order"), &json!(false)));
    assert_eq!(command(&shop, done, &[BUYER]).await.body["status"], "done");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_command_is_unknown() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    let queued = shop.ask(0, "p", id(1));
    shop.settle().await;
    let unknown = async |path: &str| {
        let answer = shop.get_with(path, &[STAFF, BUYER]).await;
        assert_eq!(problem(&answer), (404, "unknown_command"), "{path}");
        answer.body["detail"].as_str().unwrap().to_owned()
    };
    let detail = unknown(&format!("/api/commands/0-{queued}")).await;
    assert!(detail.contains("/api/attempts/"), "{detail}");
    let (decided, time) = (shop.ask(0, "p", id(2)), shop.tick(0, "p"));
    shop.decide(0, "p", queued, sold(id(1), queued));
    shop.decide(0, "p", decided, sold(id(2), decided));
    shop.decide(0, "p", time, vec![Event::SaleClosed]);
    for at in [queued, decided, time] {
        unknown(&format!("/api/commands/0-{at}")).await;
    }
    // Beyond the end, and in a partition that does not exist.
    for path in ["0-99", "0-9223372036854775807", "7-0", "4294967295-0"] {
        unknown(&format!("/api/commands/{path}?wait=30")).await;
    }
    for bad in [
        "0",
        "0:0",
        "-0",
        "0-",
        "a-0",
        "0-+1",
        "0-0-0",
        "4294967296-0",
        "0-9223372036854775808",
    ] {
        let answer = shop.get(&format!("/api/commands/{bad}")).await;
        assert_eq!(problem(&answer), (400, "invalid_request"), "{bad}");
        assert_eq!(answer.body["field"], "command_id");
    }
    let answer = shop.get("/api/commands/0-0?wait=31").await;
    assert_eq!(answer.body["field"], "wait");
}

#[tokio::test(start_paused = true)]
async fn decisions_without_the_kind_of_their_command_have_outcomes_too() {
    let shop = Shop::open();
    // Decisions of older versions name no kind; here those on the passing of time do not.
    let put = shop.tick(0, "p");
    shop.decide(0, "p", put, vec![Event::SalePaused]);
    let refused = shop.tick(0, "p");
    refuse_change(&shop, refused, SaleChangeRefusalReason::Closed);
    shop.settle().await;
    let body = command(&shop, put, &[STAFF]).await.body;
    assert_eq!(
        (&body["kind"], &body["status"]),
        (&json!("pause_sale"), &json!("done"))
    );
    let answer = command(&shop, refused, &[BUYER]).await;
    assert_eq!(problem(&answer), (401, "unauthorized"));
    let body = command(&shop, refused, &[STAFF]).await.body;
    assert_eq!(
        (&body["kind"], &body["reason"]),
        (&Value::Null, &json!("closed"))
    );
}

/// The same key with another quantity: its outcome is not the first one's.
#[tokio::test(start_paused = true)]
async fn a_conflict_is_the_outcome_of_its_own_position() {
    let few = LiveSettings {
        keep_attempts: 1,
        ..LiveSettings::default()
    };
    let shop = Shop::with(few);
    shop.put_sale(0, "p", 5);
    let first = shop.ask(0, "p", id(1));
    shop.decide(0, "p", first, sold(id(1), first));
    let again = shop.ask(0, "p", id(1));
    shop.decide(0, "p", again, repeated(id(1)));
    let place = PlaceAttempt {
        attempt_id: id(1),
        buyer_id: "buyer".parse().unwrap(),
        quantity: 3,
        round: None,
    };
    let second = shop.send(0, "p", CommandBody::PlaceAttempt(place));
    shop.settle().await;
    let path = |at: Offset| format!("/api/attempts/{}?at_least=0:{at}", id(1));
    let body = shop.get(&path(second)).await.body;
    let found = (
        &body["status"],
        &body["quantity"],
        &body["position"]["offset"],
    );
    assert_eq!(found, (&json!("queued"), &json!(3), &json!(second.0)));

    let conflicted = AttemptConflicted {
        attempt_id: id(1),
        quantity: 3,
    };
    let deciding = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        shop.decide(0, "p", second, vec![Event::AttemptConflicted(conflicted)]);
    };
    let waiting = format!("{}&wait=30", path(second));
    let (answer, ()) = tokio::join!(shop.get(&waiting), deciding);
    let expected = json!({
        "attempt_id": id(1).to_string(), "status": "refused", "reason": "idempotency_conflict",
        "retry_can_help": false, "product_id": "p", "quantity": 3,
        "position": {"partition": 0, "offset": second.0}, "decided_at": "2026-11-21T08:00:00.000Z",
    });
    assert_eq!(answer.body, expected);
    // The first request, and the same one again, have the first answer.
    for at in [first, again] {
        assert_eq!(shop.get(&path(at)).await.body["status"], "sold");
    }
    assert_eq!(shop.status(id(1)).await, "sold");

    // Everyone may read the kind and the outcome of the position, and nothing else.
    let expected = json!({
        "command_id": format!("0-{second}"), "kind": "place_attempt", "status": "refused",
        "reason": "idempotency_conflict", "retry_can_help": false,
        "position": {"partition": 0, "offset": second.0}, "decided_at": "2026-11-21T08:00:00.000Z",
    });
    assert_eq!(command(&shop, second, &[OTHER]).await.body, expected);

    // The same from the store.
    let later = shop.send(0, "p", CommandBody::PauseSale);
    shop.decide(0, "p", later, vec![Event::SalePaused]);
    shop.project(0).await;
    shop.settle().await;
    let body = shop.get(&path(second)).await.body;
    assert_eq!(body["reason"], "idempotency_conflict");
    assert!(shop.store.calls().contains_key("command"));
}

/// An attempt that was made for another round has an outcome at its own position, and its id keeps the
/// outcome of its own round.
#[tokio::test(start_paused = true)]
async fn an_attempt_of_another_round_keeps_the_answer_of_its_own() {
    let shop = Shop::open();
    shop.put_sale(0, "p", 5);
    let path = |id: AttemptId, at: Offset| format!("/api/attempts/{id}?at_least=0:{at}");
    let first = shop.ask(0, "p", id(1));
    shop.decide(0, "p", first, sold(id(1), first));
    let late = shop.ask(0, "p", id(1));
    shop.decide(0, "p", late, refused(id(1), RefusalReason::AnotherRound));
    let early = shop.ask(0, "p", id(2));
    shop.decide(0, "p", early, refused(id(2), RefusalReason::AnotherRound));
    for projected in [false, true] {
        if projected {
            shop.project(0).await;
        }
        shop.settle().await;
        for (attempt, at) in [(id(1), late), (id(2), early)] {
            let body = shop.get(&path(attempt, at)).await.body;
            assert_eq!(body["status"], "refused");
            assert_eq!(body["reason"], "another_round");
            assert_eq!(body["retry_can_help"], true);
            assert_eq!(body["position"]["offset"], json!(at.0));
        }
        assert_eq!(shop.get(&path(id(1), first)).await.body["status"], "sold");
        assert_eq!(shop.status(id(1)).await, "sold");
        let unknown = shop.get(&format!("/api/attempts/{}", id(2))).await;
        assert_eq!(unknown.status, 404);
    }
}
