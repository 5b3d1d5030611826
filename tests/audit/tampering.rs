//! Records that were tampered with or cannot be read: each is reported with its place.

use audit::report::{LogPosition, Report};
use ports::NewRecord;
use schemas::command::CommandBody;
use schemas::decision::{AttemptRefused, Event, OrderAccepted, RefusalReason, Stock};
use schemas::ids::Offset;
use schemas::topics::Topic;

use crate::forge::{History, PARTITION, audited, history, id};

/// A kind of tampering, with the place and the words in which it must be reported.
struct Tampering {
    name: &'static str,
    forge: fn(&mut History),
    topic: Topic,
    offset: i64,
    product: Option<&'static str>,
    what: &'static str,
}

const DECISIONS: Topic = Topic::StockDecisions;
const ATTEMPTS: Topic = Topic::PurchaseAttempts;

const TABLE: &[Tampering] = &[
    Tampering {
        name: "a decision removed",
        forge: |history| drop(history.decided.remove(3)),
        topic: DECISIONS,
        offset: 3,
        product: None,
        what: "decisions are missing before it: it follows the one on offset 2, but the last that \
               counts is on offset 1",
    },
    Tampering {
        name: "two decisions swapped",
        forge: |history| history.decided.swap(3, 4),
        topic: DECISIONS,
        offset: 3,
        product: None,
        what: "decisions are missing before it",
    },
    Tampering {
        name: "the last two decisions swapped",
        forge: |history| history.decided.swap(13, 14),
        topic: DECISIONS,
        offset: 13,
        product: None,
        what: "decisions are missing before it",
    },
    Tampering {
        name: "a claim removed",
        forge: |history| drop(history.decided.remove(9)),
        topic: DECISIONS,
        offset: 9,
        product: None,
        what: "it was decided under claim 9, which was never made",
    },
    Tampering {
        name: "a claim that was never made",
        forge: |history| history.decision(4).claim = Offset(2),
        topic: DECISIONS,
        offset: 4,
        product: None,
        what: "it was decided under claim 2, which was never made",
    },
    Tampering {
        name: "a quantity changed",
        forge: |history| history.order(3).quantity = 1,
        topic: DECISIONS,
        offset: 3,
        product: Some("cap"),
        what: "the chain hash should be",
    },
    Tampering {
        name: "a quantity changed under a new chain",
        forge: |history| {
            history.order(3).quantity = 1;
            history.seal();
        },
        topic: DECISIONS,
        offset: 3,
        product: Some("cap"),
        what: "the events lead to Stock",
    },
    Tampering {
        name: "a quantity changed, the stock and the chain with it",
        forge: |history| {
            history.order(3).quantity = 1;
            let stock = &mut history.decision(3).stock;
            (stock.available, stock.sold) = (2, 1);
            history.seal();
        },
        topic: DECISIONS,
        offset: 3,
        product: Some("cap"),
        what: "the decision does not answer the command at the offset it names",
    },
    Tampering {
        name: "a quantity changed in the attempt",
        forge: |history| match &mut history.asked[2].1.body {
            CommandBody::PlaceAttempt(place) => place.quantity = 1,
            other => panic!("{other:?} is no attempt"),
        },
        topic: DECISIONS,
        offset: 3,
        product: Some("cap"),
        what: "the decision does not answer the command at the offset it names",
    },
    Tampering {
        name: "more sold than there is",
        forge: |history| {
            let stock = Stock {
                total: 3,
                available: 0,
                reserved: 0,
                sold: 4,
            };
            accept_instead(history, stock);
        },
        topic: DECISIONS,
        offset: 5,
        product: Some("cap"),
        what: "oversold: 1 units given, 0 available",
    },
    Tampering {
        name: "more sold than there is, and the total raised to match",
        forge: |history| {
            let stock = Stock {
                total: 4,
                available: 0,
                reserved: 0,
                sold: 4,
            };
            accept_instead(history, stock);
        },
        topic: DECISIONS,
        offset: 5,
        product: Some("cap"),
        what: "oversold: 1 units given, 0 available",
    },
    Tampering {
        name: "a refusal while stock is idle",
        forge: |history| {
            refuse_instead(history, 4, "bob", 3, RefusalReason::SoldOut);
            let decision = history.decision(4);
            (decision.stock.available, decision.stock.sold) = (1, 2);
            decision.tally.accepted -= 1;
            decision.tally.refused += 1;
            history.seal();
        },
        topic: DECISIONS,
        offset: 4,
        product: Some("cap"),
        what: "was refused as sold_out with 1 units available",
    },
    Tampering {
        name: "an attempt answered twice",
        forge: |history| {
            refuse_instead(history, 11, "bob", 3, RefusalReason::SoldOut);
            history
                .decisions_from(11, "cap")
                .for_each(|decision| decision.tally.refused += 1);
            history.seal();
        },
        topic: DECISIONS,
        offset: 11,
        product: Some("cap"),
        what: "attempt 03030303-0303-0303-0303-030303030303 has a second outcome",
    },
    Tampering {
        name: "an attempt skipped, and everything else adjusted",
        forge: |history| {
            history.decided.remove(5);
            history.decision(5).follows = Offset(3);
            for decision in history.decisions_from(5, "cap") {
                decision.version -= 1;
                decision.tally.refused -= 1;
            }
            for at in 9..14 {
                history.decision(at).claim = Offset(8);
            }
            history.seal();
        },
        topic: ATTEMPTS,
        offset: 4,
        product: Some("cap"),
        what: "the record has no decision that counts, though later ones have",
    },
    Tampering {
        name: "an attempt removed from the end",
        forge: |history| drop(history.asked.pop()),
        topic: DECISIONS,
        offset: 14,
        product: Some("cap"),
        what: "there is no record at offset 12, which the decision answers",
    },
    Tampering {
        name: "an attempt moved to another product",
        forge: |history| history.asked[4].1.product_id = "shoe".parse().unwrap(),
        topic: DECISIONS,
        offset: 5,
        product: Some("cap"),
        what: "it answers a record about product shoe",
    },
    Tampering {
        name: "another time",
        forge: |history| {
            history.decision(10).decided_at_ms = 1_299;
            history.order(10).accepted_at_ms = 1_299;
            history.seal();
        },
        topic: DECISIONS,
        offset: 10,
        product: Some("cap"),
        what: "decided at 1299 ms, but by the log's time it should be 1300 ms",
    },
    Tampering {
        name: "a version off",
        forge: |history| {
            history.decision(8).version += 1;
            history.seal();
        },
        topic: DECISIONS,
        offset: 8,
        product: Some("cap"),
        what: "the product's version should be 5, but is 6",
    },
];

/// Record 4 is accepted where it was refused.
fn accept_instead(history: &mut History, stock: Stock) {
    let mut order = history.order(4).clone();
    (order.attempt_id, order.attempt_offset) = (id(4), Offset(4));
    order.buyer_id = "cy".parse().unwrap();
    let decision = history.decision(5);
    decision.events = vec![Event::OrderAccepted(OrderAccepted { order })];
    decision.stock = stock;
    decision.tally.accepted += 1;
    decision.tally.refused -= 1;
    history.seal();
}

fn refuse_instead(history: &mut History, at: usize, buyer: &str, number: u8, why: RefusalReason) {
    history.decision(at).events = vec![Event::AttemptRefused(AttemptRefused {
        attempt_id: id(number),
        buyer_id: buyer.parse().unwrap(),
        quantity: 1,
        reason: why,
    })];
}

#[tokio::test]
async fn each_tampering_is_reported_with_its_place() {
    let mut wrong = Vec::new();
    for tampering in TABLE {
        let mut history = history();
        (tampering.forge)(&mut history);
        let report = audited(history.log(), None).await;
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
        let place = LogPosition {
            topic: self.topic.name(),
            partition: PARTITION,
            offset: Offset(self.offset),
        };
        let product = violation.product.as_ref().map(|product| product.as_str());
        violation.place == Some(place)
            && product == self.product
            && violation.what.contains(self.what)
    }
}

#[tokio::test]
async fn unreadable_records_are_reported_with_their_place() {
    for topic in [DECISIONS, ATTEMPTS] {
        let mut history = history();
        let last = history.decided.len() as i64;
        // In `purchase-attempts`, the record that the last decision answers.
        let offset = if topic == DECISIONS { last } else { 12 };
        if topic == ATTEMPTS {
            history.asked.pop();
        }
        let log = history.log();
        // Garbage in `stock-decisions` never counts, but a newer version's record may.
        let (value, why) = match topic {
            DECISIONS => (&b"\0\0\0\0\x63newer"[..], "schema 99"),
            _ => (&b"?"[..], "does not begin with a zero byte and a schema id"),
        };
        let record = NewRecord {
            value: value.into(),
            ..NewRecord::default()
        };
        log.put(topic, PARTITION, vec![record]);
        let report = audited(log, None).await;
        let expected = LogPosition {
            topic: topic.name(),
            partition: PARTITION,
            offset: Offset(offset),
        };
        let violation = report.violation.unwrap();
        assert_eq!(violation.place, Some(expected));
        let what = violation.what;
        assert!(what.contains(why), "{what}");
    }
}
