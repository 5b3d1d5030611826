//! Receipts compared with the log.

use audit::command::{Args, carry_out};
use audit::receipt::{ReceiptReport, RequestKind, check};
use doorbuster::audit_source::open;
use kit::MemoryLog;
use ports::Clock;
use ports::clock::SystemClock;
use schemas::codec::Codec;
use schemas::command::CommandBody;
use schemas::ids::{AttemptId, Offset, Partition, Position};
use schemas::topics::Topic;
use tempfile::TempDir;
use web::receipt::ReceiptKey;

use crate::directories::{Service, args};
use crate::forge::{PARTITION, command, history, history_with, id};

fn key() -> ReceiptKey {
    ReceiptKey::new(&[7; 32])
}

fn receipt(log: &MemoryLog, attempt: AttemptId, product: &str, offset: i64) -> String {
    let records = log.records(Topic::PurchaseAttempts, PARTITION);
    let position = Position {
        partition: PARTITION,
        offset: Offset(offset),
    };
    let value = &records[offset as usize].value;
    key().sign(
        attempt,
        &product.parse().unwrap(),
        position,
        value,
        None,
        1_000,
    )
}

async fn checked(log: &MemoryLog, receipt: &str) -> ReceiptReport {
    check(log, &Codec::embedded(), &key(), receipt)
        .await
        .unwrap()
}

fn events(report: &ReceiptReport) -> Vec<(i64, i64, i64, &str)> {
    let events = report.events.iter();
    events
        .map(|e| (e.decision.0, e.answers.0, e.at_ms, e.what.as_str()))
        .collect()
}

#[tokio::test]
async fn a_receipt_of_another_log_is_named_as_that() {
    let log = history().log();
    let record = &log.records(Topic::PurchaseAttempts, PARTITION)[3];
    let own = log.records(Topic::StockDecisions, PARTITION)[0].hash();
    let position = Position {
        partition: PARTITION,
        offset: record.offset,
    };
    let product = "cap".parse().unwrap();
    let sign = |of| key().sign(id(3), &product, position, &record.value, Some(of), 1_000);
    assert!(checked(&log, &sign(own)).await.is_valid());
    let foreign = checked(&log, &sign(record.hash())).await;
    assert!(!foreign.is_valid());
    let why = foreign.violation.unwrap();
    assert!(
        why.contains("is of another log") && why.contains(&own.to_string()),
        "{why}"
    );
}

#[tokio::test]
async fn the_audit_of_a_receipt_lists_its_attempt_event_by_event() {
    let log = history().log();
    let bob = checked(&log, &receipt(&log, id(3), "cap", 3)).await;
    assert!(bob.is_valid() && bob.decided);
    let all = [
        (4, 3, 1_000, "accepted: 1 sold"),
        (8, 7, 1_200, "cancelled: 1 returned to stock"),
        (11, 9, 1_300, "sent again; the first answer stands"),
    ];
    assert_eq!(events(&bob), all);
    let ann = checked(&log, &receipt(&log, id(5), "shoe", 5)).await;
    let all = [
        (
            6,
            5,
            1_100,
            "accepted: 1 reserved until 1970-01-01T00:00:01.600Z",
        ),
        (12, 10, 1_600, "hold expired: 1 returned to stock"),
    ];
    assert_eq!(events(&ann), all);
    let cy = checked(&log, &receipt(&log, id(4), "cap", 4)).await;
    assert_eq!(events(&cy), [(5, 4, 1_000, "refused: sold_out")]);
}

#[tokio::test]
async fn the_receipt_of_a_cancellation_is_recognized() {
    let mut history = history();
    let log = history.log();
    let bob = checked(&log, &receipt(&log, id(3), "cap", 7)).await;
    assert!(bob.is_valid() && bob.decided, "{bob}");
    assert_eq!(
        bob.request.as_ref().unwrap().kind,
        RequestKind::Cancellation
    );
    assert!(events(&bob).contains(&(8, 7, 1_200, "cancelled: 1 returned to stock")));
    let text = bob.to_string();
    assert!(text.contains("attempt   03030303"), "{text}");
    assert!(
        text.contains("receipt   of a cancellation by buyer bob"),
        "{text}"
    );
    assert!(text.contains("and its cancellation is decided"), "{text}");

    let other = receipt(&log, id(4), "cap", 7);
    let why = checked(&log, &other).await.violation.unwrap();
    assert!(why.contains("is about attempt 03030303"), "{why}");
    let other = receipt(&log, id(3), "shoe", 7);
    let why = checked(&log, &other).await.violation.unwrap();
    assert!(why.contains("is about product cap, but the"), "{why}");

    history.decided.truncate(8);
    let waiting = checked(&history.log(), &receipt(&log, id(3), "cap", 7)).await;
    assert!(waiting.is_valid() && !waiting.decided, "{waiting}");
    let text = waiting.to_string();
    assert!(text.contains("its cancellation is still waiting"), "{text}");
}

#[tokio::test]
async fn the_receipts_of_changes_of_a_sale_are_explained() {
    use CommandBody::*;
    let set = |stock| SetStock(schemas::command::SetStock { stock });
    let (opens, all) = (["the sale opened"], "the round has 5 units in all");
    let cases: [(CommandBody, &str, &[&str]); 8] = [
        (PauseSale, "pause it", &["the sale was paused"]),
        (OpenSale, "open it", &opens),
        (set(5), "5 units in all", &[all]),
        (
            set(0),
            "0 units in all",
            &["the change was refused: stock_below_committed"],
        ),
        (CloseSale, "close it", &["the sale closed"]),
        (OpenSale, "open it", &["the change was refused: closed"]),
        (TimeAdvanced, "a deadline", &["nothing changed"]),
        (
            CorrectClock,
            "a correction",
            &["the product's time was set back by 0 ms"],
        ),
    ];
    let bodies = cases
        .iter()
        .map(|(body, _, _)| command("cap", body.clone()));
    let history = history_with(bodies.map(|command| (1_900, command)));
    let log = history.log();
    let first = checked(&log, &receipt(&log, id(0), "cap", 0)).await;
    assert_eq!(
        events(&first),
        [(1, 0, 0, "the terms took effect, in round 1")]
    );
    let text = first.to_string();
    let terms = "a change of the sale: new terms, 3 units at 1999 minor units of GBP";
    assert!(text.contains(terms), "{text}");
    assert!(
        !text.contains("VIOLATION") && !text.contains("attempt "),
        "{text}"
    );
    for (offset, (body, request, happened)) in (13..).zip(cases) {
        let report = checked(&log, &receipt(&log, id(0), "cap", offset)).await;
        assert!(report.is_valid() && report.decided, "{report}");
        let kind = match body {
            TimeAdvanced => RequestKind::Deadline,
            CorrectClock => RequestKind::ClockCorrection,
            _ => RequestKind::SaleChange,
        };
        assert_eq!(report.request.as_ref().unwrap().kind, kind, "{report}");
        assert!(report.to_string().contains(request), "{report}");
        let found: Vec<_> = events(&report).iter().map(|event| event.3).collect();
        assert_eq!(found, happened, "{report}");
    }
    // The deadline of a hold names the attempt that it was about.
    let deadline = checked(&log, &receipt(&log, id(0), "shoe", 10)).await;
    let what = &deadline.events[0].what;
    assert!(what.starts_with("attempt 05050505"), "{what}");
    assert!(
        what.ends_with(": hold expired: 1 returned to stock"),
        "{what}"
    );
}

#[tokio::test]
async fn an_attempt_without_a_decision_is_still_queued() {
    let mut history = history();
    history.decided.pop();
    let log = history.log();
    let dan = checked(&log, &receipt(&log, id(12), "cap", 12)).await;
    assert!(dan.is_valid() && !dan.decided && dan.events.is_empty());
    assert!(dan.to_string().contains("still waiting for a decision"));
}

#[tokio::test]
async fn a_receipt_that_does_not_match_the_log_is_reported() {
    let mut history = history();
    let good = history.log();
    let taken = receipt(&good, id(4), "cap", 4);
    let last = receipt(&good, id(12), "cap", 12);

    let changed = taken.replacen(|c: char| c.is_ascii_lowercase(), "A", 1);
    let why = checked(&good, &changed).await.violation.unwrap();
    assert!(why.contains("was not signed with this key"), "{why}");

    let other = receipt(&good, id(9), "cap", 4);
    let why = checked(&good, &other).await.violation.unwrap();
    assert!(why.contains("offset 4, is about attempt 04040404"), "{why}");

    history.asked.swap(4, 5);
    let why = checked(&history.log(), &taken).await.violation.unwrap();
    assert!(
        why.contains("partition 0, offset 4, holds another record"),
        "{why}"
    );

    history.asked.pop();
    let why = checked(&history.log(), &last).await.violation.unwrap();
    assert!(why.contains("partition 0, ends at offset 12"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_checked_with_the_directorys_key() {
    let dir = TempDir::new().unwrap();
    let service = Service::start(dir.path());
    let mut shoppers = crate::support::Shoppers::new(9);
    let (command, place) = loop {
        let command = shoppers.next(SystemClock.now_ms());
        if let schemas::command::CommandBody::PlaceAttempt(place) = &command.body {
            break (command.clone(), place.clone());
        }
    };
    let product = command.product_id.clone();
    let value = Codec::embedded().encode_command(command.clone());
    let offset = service.put(command).await;
    service.settled().await;
    let partition = schemas::placement::Placement::new(2).partition_of(&product);
    let position = Position {
        partition: Partition(partition.0),
        offset,
    };

    let without = Args {
        receipt: Some("x".into()),
        ..args(dir.path())
    };
    let error = carry_out(&without, open).await.unwrap_err().to_string();
    assert!(
        error.contains("receipt.key; name it with --receipt-key KEY"),
        "{error}"
    );
    assert!(
        !dir.path().join("receipt.key").exists(),
        "an audit makes no key"
    );

    let key = ReceiptKey::load_or_create(dir.path()).unwrap();
    let signed = key.sign(place.attempt_id, &product, position, &value, None, 1);
    let good = Args {
        receipt: Some(signed.clone()),
        ..args(dir.path())
    };
    assert_eq!(carry_out(&good, open).await.unwrap(), 0);
    let forged = Args {
        receipt: Some(format!("{signed}A")),
        ..args(dir.path())
    };
    assert_eq!(carry_out(&forged, open).await.unwrap(), 1);
    let other_key = Args {
        flags: good.flags.clone().with("receipt_key", "ab".repeat(32)),
        ..good
    };
    assert_eq!(carry_out(&other_key, open).await.unwrap(), 1);
    service.stop().await;
}
