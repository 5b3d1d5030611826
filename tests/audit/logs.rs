//! Audits of logs that were tampered with.

use std::collections::BTreeMap;
use std::sync::Arc;

use audit::report::{LogPosition, ReadModels, Report};
use audit::{Scope, Source, audit};
use bytes::Bytes;
use indicatif::ProgressBar;
use ports::NewRecord;
use schemas::codec::Codec;
use schemas::command::CommandBody;
use schemas::decision::{
    AttemptRefused, DecisionRecord, Event, Order, OrderAccepted, RefusalReason, Skipped, Stock,
};
use schemas::ids::Offset;
use schemas::topics::Topic;

use crate::forge::{
    History, PARTITION, attempt, audited, audited_within, history, history_with, id, source_of,
};

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
        forge: |history| order(history, 3).quantity = 1,
        topic: DECISIONS,
        offset: 3,
        product: Some("cap"),
        what: "the chain hash should be",
    },
    Tampering {
        name: "a quantity changed under a new chain",
        forge: |history| {
            order(history, 3).quantity = 1;
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
            order(history, 3).quantity = 1;
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
            order(history, 10).accepted_at_ms = 1_299;
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

fn order(history: &mut History, at: usize) -> &mut Order {
    match history.decision(at).events.last_mut() {
        Some(Event::OrderAccepted(accepted)) => &mut accepted.order,
        other => panic!("{other:?} is no acceptance"),
    }
}

/// Record 4 is accepted where it was refused.
fn accept_instead(history: &mut History, stock: Stock) {
    let mut order = order(history, 4).clone();
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

fn place(report: &Report) -> Option<LogPosition> {
    report
        .violation
        .as_ref()
        .and_then(|violation| violation.place)
}

#[tokio::test]
async fn an_untampered_log_passes() {
    let history = history();
    let report = audited(history.log(), Some(history.read_models(15).await)).await;
    assert_eq!(report.violation, None);
    let ReadModels::Equal { rows } = &report.read_models else {
        panic!("{:?}", report.read_models)
    };
    let counts: Vec<_> = rows.iter().map(|(kind, of)| (*kind, of.count)).collect();
    assert_eq!(
        counts,
        [
            ("attempts", 8),
            ("commands", 3),
            ("intents", 4),
            ("orders", 5),
            ("sales", 2)
        ]
    );

    let of = &report.partitions[0];
    assert_eq!(
        (of.records, of.decisions, of.dropped, of.claims),
        (13, 13, 0, 2)
    );
    assert_eq!((of.undecided, of.not_applied), (0, 0));
    let totals = &report.totals;
    assert_eq!(
        (totals.attempts, totals.accepted, totals.repeated),
        (9, 5, 1)
    );
    assert_eq!(
        totals.refused.clone().into_iter().collect::<Vec<_>>(),
        [("sold_out", 3)]
    );
    assert_eq!((totals.cancelled, totals.expired), (1, 1));
    let units = totals.units;
    assert_eq!(
        (units.total, units.available, units.reserved, units.sold),
        (4, 0, 1, 3)
    );
    let heads: Vec<_> = report
        .heads
        .iter()
        .map(|h| (h.product_id.as_str(), h.version))
        .collect();
    assert_eq!((report.products, heads), (2, vec![("cap", 8), ("shoe", 5)]));
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
        assert_eq!(place(&report), Some(expected));
        let what = report.violation.unwrap().what;
        assert!(what.contains(why), "{what}");
    }
}

/// What a skipped record may answer: garbage and what was deleted since, or, if an operator skipped it,
/// anything.
#[tokio::test]
async fn skipped_records_are_no_violation_unless_a_decider_skipped_what_it_could_decode() {
    let good = Codec::embedded().encode_command(attempt("cap", 99, "zoe", 1));
    let (none, carol) = (None, Some("carol"));
    for (name, record, by, violation) in [
        ("garbage", Some(b"garbage".to_vec()), none, None),
        ("a tombstone", Some(vec![]), none, None),
        (
            "an attempt, by an operator",
            Some(good.clone()),
            carol,
            None,
        ),
        (
            "an attempt, by a decider",
            Some(good),
            none,
            Some("a decider has skipped this record, although it can be decoded"),
        ),
        (
            "nothing",
            None,
            carol,
            Some("there is no record at offset 13"),
        ),
    ] {
        let mut history = history();
        let last = history.decision(14).answers;
        let skipped = Skipped {
            claim: history.decision(14).claim,
            answers: last.next(),
            follows: last,
            reason: "a test".into(),
            by: by.map(Into::into),
        };
        history.decided.push(DecisionRecord::Skipped(skipped));
        let log = history.log();
        let put = |topic, value: &[u8]| {
            let record = NewRecord {
                value: Bytes::copy_from_slice(value),
                ..NewRecord::default()
            };
            log.put(topic, PARTITION, vec![record])
        };
        if let Some(record) = &record {
            put(ATTEMPTS, record);
        }
        put(DECISIONS, b"garbage");
        let report = audited(log.clone(), None).await;
        let found = report.violation.as_ref().map(|found| found.what.as_str());
        match violation {
            Some(violation) => assert!(found.unwrap().contains(violation), "{name}: {found:?}"),
            None => {
                assert_eq!(found, None, "{name}");
                let of = &report.partitions[0];
                assert_eq!((of.skipped, of.dropped, of.undecided), (1, 1, 0), "{name}");
                let line = report.summary(false).to_string();
                assert!(line.contains("offset 13: skipped by"), "{line}");
            }
        }
    }
}

/// Nothing comes after the last record, for which a reader could wait.
#[tokio::test]
async fn the_last_command_may_be_deleted_if_it_was_skipped_and_is_missing_otherwise() {
    let log = history().log();
    log.delete(ATTEMPTS, PARTITION, Offset(12));
    let violation = audited(log, None).await.violation.unwrap();
    let expected = LogPosition {
        topic: DECISIONS.name(),
        partition: PARTITION,
        offset: Offset(14),
    };
    assert_eq!(violation.place, Some(expected));
    assert!(
        violation.what.contains("there is no record at offset 12"),
        "{}",
        violation.what
    );

    let mut history = history();
    let last = history.decision(14).clone();
    history.decided.push(DecisionRecord::Skipped(Skipped {
        claim: last.claim,
        answers: last.answers.next(),
        follows: last.answers,
        reason: "garbage".into(),
        by: None,
    }));
    let log = history.log();
    let garbage = NewRecord {
        value: Bytes::from_static(b"garbage"),
        ..NewRecord::default()
    };
    let offset = log.put(ATTEMPTS, PARTITION, vec![garbage]);
    log.delete(ATTEMPTS, PARTITION, offset);
    let report = audited(log, None).await;
    assert_eq!(report.violation, None);
    let of = &report.partitions[0];
    assert_eq!((of.skipped, of.undecided), (1, 0));
}

#[tokio::test]
async fn decisions_of_a_superseded_decider_are_dropped_without_a_violation() {
    let mut history = history();
    let mut stale = history.decision(11).clone();
    stale.claim = Offset(0);
    stale.decided_at_ms += 5;
    history.decided.insert(10, DecisionRecord::Decision(stale));
    let report = audited(history.log(), Some(history.read_models(16).await)).await;
    assert_eq!(report.violation, None);
    assert!(
        matches!(report.read_models, ReadModels::Equal { .. }),
        "{:?}",
        report.read_models
    );
    let of = &report.partitions[0];
    assert_eq!((of.decisions, of.dropped, of.claims), (13, 1, 2));
}

#[tokio::test]
async fn undecided_and_unprojected_records_are_counted() {
    let mut history = history();
    let read_models = history.read_models(11).await;
    history.decided.truncate(13);
    let report = audited(history.log(), Some(read_models.clone())).await;
    assert_eq!(report.violation, None);
    let ReadModels::Behind { lacking, .. } = &report.read_models else {
        panic!("{:?}", report.read_models);
    };
    assert_eq!(*lacking, BTreeMap::from([(PARTITION, 2)]));
    let text = report.summary(false).to_string();
    assert!(
        text.contains("BEHIND: they lack decisions, 2 of partition 0"),
        "{text}"
    );
    let of = &report.partitions[0];
    assert_eq!((of.records, of.undecided, of.not_applied), (13, 2, 2));

    // A file lacks what the running service has in memory.
    let file = Source {
        is_live: false,
        ..source_of(history.log(), Some(read_models))
    };
    let report = audit(file, Scope::default(), ProgressBar::hidden());
    let report = report.await.unwrap();
    assert!(
        matches!(report.read_models, ReadModels::Equal { .. }),
        "{:?}",
        report.read_models
    );
}

#[tokio::test]
async fn empty_read_models_are_not_equal() {
    let history = history();
    for is_live in [true, false] {
        let empty = Source {
            is_live,
            ..source_of(history.log(), Some(Arc::default()))
        };
        let report = audit(empty, Scope::default(), ProgressBar::hidden());
        let report = report.await.unwrap();
        assert_eq!(report.violation, None);
        assert!(
            matches!(report.read_models, ReadModels::Empty { decisions: 13 }),
            "{:?}",
            report.read_models
        );
        let text = report.summary(false).to_string();
        assert!(
            text.contains("EMPTY: they have none of the 13 decisions"),
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_log_that_lost_its_end_is_reported_as_behind_its_read_models() {
    let mut history = history();
    let read_models = history.read_models(15).await;
    history.decided.pop();
    let report = audited(history.log(), Some(read_models)).await;
    let ReadModels::NotCompared { why } = &report.read_models else {
        panic!("{:?}", report.read_models)
    };
    assert!(why.contains("partition 0 they reach offset 15 of stock-decisions, which ends at 14"));
}

#[tokio::test]
async fn one_product_can_be_audited_alone() {
    let mut history = history();
    order(&mut history, 3).quantity = 1;
    let only = |product: &str| Scope {
        product: Some(product.parse().unwrap()),
        ..Scope::default()
    };
    let read_models = history.read_models(15).await;
    let shoe = audited_within(history.log(), Some(read_models.clone()), only("shoe")).await;
    assert_eq!((shoe.violation, shoe.products), (None, 1));
    let ReadModels::Equal { rows } = &shoe.read_models else {
        panic!("{:?}", shoe.read_models)
    };
    assert_eq!((rows["sales"].count, rows["attempts"].count), (1, 3));
    let cap = audited_within(history.log(), Some(read_models), only("cap")).await;
    assert_eq!(cap.violation.unwrap().product, Some("cap".parse().unwrap()));
}

#[tokio::test]
async fn a_product_without_decisions_does_not_hold() {
    let within = async |history: &History, product: &str, store| {
        let scope = Scope {
            product: Some(product.parse().unwrap()),
            ..Scope::default()
        };
        audit(
            source_of(history.log(), store),
            scope,
            ProgressBar::hidden(),
        )
        .await
    };
    let mut history = history_with([(2_000, attempt("new", 13, "eve", 1))]);
    let read_models = history.read_models(16).await;
    for store in [None, Some(read_models)] {
        let error = within(&history, "typo", store.clone()).await.unwrap_err();
        let text = error.to_string();
        assert!(text.contains("product typo is unknown"), "{text}");
        // One that was ordered, though never on sale, has its refusal.
        let report = within(&history, "new", store).await.unwrap();
        assert_eq!(report.totals.refused["unknown_product"], 1);
    }
    let decision = history.decided.pop();
    let error = within(&history, "new", None).await.unwrap_err().to_string();
    assert!(
        error.contains("new has no decision yet: 1 records"),
        "{error}"
    );
    history.decided.extend(decision);
    // A violation in the partition counts more than an unknown product.
    history.decided.remove(3);
    let report = within(&history, "typo", None).await.unwrap();
    assert!(report.violation.is_some());
}
