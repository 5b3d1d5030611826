//! Requests to the query API: paths, queries and headers.
//!
//! An answer is JSON, or a file of the page, and the same for the same request. A refusal names the
//! mistake of the client; only a position whose decision has not come is not the client's mistake.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use kit::{ManualClock, MemoryLog, MemoryStore};
use ports::NewRecord;
use ports::read_store::{AttemptRow, AttemptStatus, Row, SalePhase, SaleRow};
use query_api::http::QueryApi;
use query_api::live::{self, Live, LiveSettings};
use runtime::health::Health;
use schemas::codec::Codec;
use schemas::command::{Command, CommandBody, PlaceAttempt, SaleTerms};
use schemas::decision::{RefusalReason, Stock, Tally};
use schemas::ids::{AttemptId, BuyerId, Money, Offset, Partition, Position};
use schemas::topics::Topic;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;
use web::problem::Code;

use crate::http::{Answer, NOW, Process, request, settings};

thread_local! {
    static READ_SIDE: Process = Process::new(read_side);
}

pub(crate) fn run(input: &[u8]) {
    let Some(first) = request(input) else {
        return;
    };
    let is_head = *first.method() == Method::HEAD;
    let answer = ask(first);
    let again = ask(request(input).expect("it was a request before"));
    assert_eq!((again.status, &again.body), (answer.status, &answer.body));
    if is_head {
        return;
    }
    if answer.status == StatusCode::OK {
        if answer.header("content-type") == "application/json" {
            answer.json();
        }
        return;
    }
    let code = answer.check_problem();
    let in_time = answer.status.is_client_error() && code != Code::RequestTimeout;
    assert!(in_time || code == Code::NotCaughtUp, "{code:?}");
}

fn ask(request: axum::http::Request<axum::body::Body>) -> Answer {
    READ_SIDE.with(|side| side.send(request))
}

/// A query API whose store has a sale, an accepted attempt and a refused one; a third attempt is
/// undecided in the log.
async fn read_side() -> OpenApiRouter {
    let clock = Arc::new(ManualClock::still_at(NOW));
    let log = Arc::new(MemoryLog::new(2, clock.clone()));
    let codec = Arc::new(Codec::embedded());
    let waiting = Command {
        product_id: "sneaker".parse().expect("it is an id"),
        body: CommandBody::PlaceAttempt(PlaceAttempt {
            attempt_id: AttemptId::from_bytes([3; 16]),
            buyer_id: buyer(),
            quantity: 1,
            round: None,
        }),
        if_version: None,
    };
    let waiting = NewRecord {
        value: codec.encode_command(waiting).into(),
        ..NewRecord::default()
    };
    log.put(Topic::PurchaseAttempts, Partition(0), vec![waiting]);
    let store = MemoryStore::default();
    store.put(Row::Sale(open_sale("sneaker")));
    store.put(Row::Sale(open_sale("two words")));
    let sold = attempt(1, AttemptStatus::Sold);
    let refused = attempt(2, AttemptStatus::Refused(RefusalReason::SoldOut));
    store.put(Row::Order(sold.clone()));
    store.put(Row::Attempt(sold));
    store.put(Row::Intent(refused.clone()));
    store.put(Row::Attempt(refused));
    let live = Live::new(log, Arc::new(store), codec, LiveSettings::default());
    let stop = CancellationToken::new();
    tokio::spawn(live::run(live.clone(), Health::default(), stop.clone()));
    // Nothing can be answered before the tails have started.
    tokio::time::sleep(Duration::from_secs(1)).await;
    doorbuster::routes::queries(QueryApi { live, clock }, &settings(), &stop)
}

fn buyer() -> BuyerId {
    "b-1".parse().expect("it is an id")
}

fn attempt(n: u8, status: AttemptStatus) -> AttemptRow {
    AttemptRow {
        attempt_id: AttemptId::from_bytes([n; 16]),
        product_id: "sneaker".parse().expect("it is an id"),
        buyer_id: buyer(),
        quantity: 1,
        position: Position {
            partition: Partition(1),
            offset: Offset(n.into()),
        },
        status,
        decided_at_ms: NOW,
        hold_until_ms: None,
        version: n.into(),
        trace_id: None,
        price: None,
    }
}

/// A sale of the product, open and with one unit left.
pub(crate) fn open_sale(product: &str) -> SaleRow {
    SaleRow {
        product_id: product.parse().expect("it is an id"),
        version: 2,
        round: 1,
        terms: SaleTerms {
            name: "x".into(),
            price: Money {
                minor: 1,
                currency: "EUR".into(),
            },
            stock: 2,
            limit_per_buyer: None,
            hold_ms: None,
            opens_at_ms: 0,
            closes_at_ms: None,
        },
        phase: SalePhase::Open,
        stock: Stock {
            total: 2,
            available: 1,
            reserved: 0,
            sold: 1,
        },
        tally: Tally {
            accepted: 1,
            refused: 1,
            cancelled: 0,
            expired: 0,
        },
        decided_at_ms: NOW,
        sale_version: None,
    }
}
