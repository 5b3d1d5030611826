//! Receipts compared with the log.

use audit::command::{Args, carry_out};
use audit::receipt::{ReceiptReport, check};
use doorbuster::audit_source::open;
use kit::MemoryLog;
use ports::Clock;
use ports::clock::SystemClock;
use schemas::codec::Codec;
use schemas::ids::{AttemptId, Offset, Partition, Position};
use schemas::topics::Topic;
use tempfile::TempDir;
use web::receipt::ReceiptKey;

use crate::directories::{Service, args};
use crate::forge::{PARTITION, history, id};

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
    key().sign(attempt, &product.parse().unwrap(), position, value, 1_000)
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
    assert!(why.contains("not one that this service signed"), "{why}");

    let other = receipt(&good, id(9), "cap", 4);
    let why = checked(&good, &other).await.violation.unwrap();
    assert!(why.contains("offset 4, is not attempt 09090909"), "{why}");

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
    let signed = key.sign(place.attempt_id, &product, position, &value, 1);
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
