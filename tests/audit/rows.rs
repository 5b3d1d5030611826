//! Audits of read models that were tampered with.

use std::sync::Arc;

use audit::report::{LogPosition, ReadModels, Report};
use parking_lot::Mutex;
use ports::ReadStore;
use ports::read_store::{AttemptStatus, Progress, Row};
use schemas::decision::ReleaseCause;
use schemas::ids::Offset;
use schemas::topics::Topic;

use crate::forge::{PARTITION, audited, history, id, store_of};

/// A kind of tampering, with the place and the words in which it must be reported.
struct Tampering {
    name: &'static str,
    forge: fn(&mut Vec<Row>),
    offset: Option<i64>,
    what: &'static [&'static str],
}

const TABLE: &[Tampering] = &[
    Tampering {
        name: "an attempt missing",
        forge: |rows| rows.retain(|row| !matches!(row, Row::Attempt(a) if a.attempt_id == id(4))),
        offset: Some(4),
        what: &["the row of attempt 04040404-0404-0404-0404-040404040404 is missing; it should be"],
    },
    Tampering {
        name: "an order missing",
        forge: |rows| rows.retain(|row| !matches!(row, Row::Order(a) if a.attempt_id == id(5))),
        offset: Some(5),
        what: &["the row of order ann 0:5 is missing"],
    },
    Tampering {
        name: "an intent missing",
        forge: |rows| rows.retain(|row| !matches!(row, Row::Intent(a) if a.attempt_id == id(5))),
        offset: Some(5),
        what: &["the row of intent shoe 0:5 is missing"],
    },
    Tampering {
        name: "a quantity changed",
        forge: |rows| {
            for row in rows {
                if let Row::Attempt(row) | Row::Order(row) = row
                    && row.attempt_id == id(2)
                {
                    row.quantity = 1;
                }
            }
        },
        offset: Some(2),
        what: &[
            "the row of attempt 02020202-0202-0202-0202-020202020202 should be",
            "\"quantity\":2",
            "but is",
            "\"quantity\":1",
        ],
    },
    Tampering {
        name: "a status changed",
        forge: |rows| {
            for row in rows {
                if let Row::Order(row) = row
                    && row.attempt_id == id(8)
                {
                    row.status = AttemptStatus::Released(ReleaseCause::Cancelled);
                }
            }
        },
        offset: Some(8),
        what: &[
            "the row of order cy 0:8 should be",
            "\"Sold\"",
            "but is",
            "\"cancelled\"",
        ],
    },
    Tampering {
        name: "a trace lost",
        forge: |rows| {
            for row in rows {
                if let Row::Order(row) = row
                    && row.attempt_id == id(3)
                {
                    // It was cancelled by the request at offset 7.
                    assert_eq!(row.trace_id.take().unwrap().as_bytes()[15], 8);
                }
            }
        },
        offset: Some(3),
        what: &[
            "the row of order bob 0:3 should be",
            "\"trace_id\":[0,",
            "but is",
            "\"trace_id\":null",
        ],
    },
    Tampering {
        name: "a version off",
        forge: |rows| {
            for row in rows {
                if let Row::Intent(row) = row
                    && row.attempt_id == id(12)
                {
                    row.version += 1;
                }
            }
        },
        offset: Some(12),
        what: &[
            "the row of intent cap 0:12 should be",
            "\"version\":8",
            "\"version\":9",
        ],
    },
    Tampering {
        name: "a command missing",
        forge: |rows| {
            rows.retain(|row| !matches!(row, Row::Command(c) if c.position.offset.0 == 7))
        },
        offset: Some(7),
        what: &[
            "the row of command 0:7 is missing; it should be",
            "\"Done\"",
        ],
    },
    Tampering {
        name: "a row too many",
        forge: |rows| {
            let order = rows.iter().find_map(|row| match row {
                Row::Order(order) => Some(order.clone()),
                _ => None,
            });
            let mut order = order.unwrap();
            order.buyer_id = "mallory".parse().unwrap();
            order.position.offset = Offset(6);
            rows.push(Row::Order(order));
        },
        offset: Some(6),
        what: &["there should be no row of order mallory 0:6, but there is"],
    },
    Tampering {
        name: "an attempt moved far away",
        forge: |rows| {
            for row in rows {
                if let Row::Attempt(row) = row
                    && row.attempt_id == id(6)
                {
                    row.position.offset = Offset(1_000_000);
                }
            }
        },
        offset: Some(6),
        what: &["\"offset\":6", "but is", "\"offset\":1000000"],
    },
    Tampering {
        name: "a sale's stock changed",
        forge: |rows| {
            for row in rows {
                if let Row::Sale(row) = row
                    && row.product_id.as_str() == "shoe"
                {
                    row.stock.available += 1;
                }
            }
        },
        offset: None,
        what: &[
            "the row of sale shoe should be",
            "\"available\":0",
            "\"available\":1",
        ],
    },
    Tampering {
        name: "several at once, of which the first by position is reported",
        forge: |rows| {
            rows.retain(|row| {
                !matches!(row, Row::Attempt(a) if [id(12), id(4), id(6)].contains(&a.attempt_id))
            });
        },
        offset: Some(4),
        what: &["the row of attempt 04040404-0404-0404-0404-040404040404 is missing"],
    },
];

async fn audited_with(forge: fn(&mut Vec<Row>), alter: fn(&mut Progress)) -> Report {
    let history = history();
    let good = history.read_models(15).await;
    let rows = Arc::new(Mutex::new(Vec::new()));
    let all = rows.clone();
    let keep = move |row| {
        all.lock().push(row);
        true
    };
    good.visit(Box::new(keep)).await.unwrap();
    let mut rows = rows.lock().split_off(0);
    let mut progress = good.progress().await.unwrap()[&PARTITION];
    forge(&mut rows);
    alter(&mut progress);
    audited(history.log(), Some(store_of(rows, progress).await)).await
}

#[tokio::test]
async fn each_tampering_is_reported_with_its_place() {
    let mut wrong = Vec::new();
    for tampering in TABLE {
        let report = audited_with(tampering.forge, |_| ()).await;
        if !tampering.is_named(&report) {
            wrong.push(format!("{}: {:?}", tampering.name, report.violation));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

impl Tampering {
    fn is_named(&self, report: &Report) -> bool {
        let Some(violation) = &report.violation else {
            return false;
        };
        let place = self.offset.map(|offset| LogPosition {
            topic: Topic::PurchaseAttempts.name(),
            partition: PARTITION,
            offset: Offset(offset),
        });
        // The words come in this order, with other text between them.
        let mut rest = Some(violation.what.as_str());
        for words in self.what {
            rest = rest.and_then(|rest| Some(rest.split_once(words)?.1));
        }
        let differ = matches!(report.read_models, ReadModels::Differ);
        violation.place == place && violation.product.is_some() && rest.is_some() && differ
    }
}

#[tokio::test]
async fn progress_that_does_not_follow_from_the_decisions_is_reported() {
    let alterations: [fn(&mut Progress); 2] = [
        |progress| progress.answered = Offset(11),
        |progress| progress.claim = Offset(0),
    ];
    for alter in alterations {
        let report = audited_with(|_| (), alter).await;
        let violation = report.violation.expect("it is noticed");
        let place = violation.place.expect("it has a place");
        assert_eq!((place.topic, place.offset), ("stock-decisions", Offset(14)));
        assert!(
            violation
                .what
                .contains("the progress of the read models names claim"),
            "{violation}"
        );
    }
}

#[tokio::test]
async fn unreadable_read_models_are_never_skipped() {
    let history = history();
    let store = history.read_models(15).await;
    store.fail(true);
    for store in [Some(store), None] {
        let report = audited(history.log(), store).await;
        assert_eq!(report.violation, None);
        assert!(matches!(report.read_models, ReadModels::NotCompared { .. }));
    }
}
