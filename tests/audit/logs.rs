//! Whole logs: one that is as it was written, with superseded, skipped and undecided records; one that
//! lacks its end; and the part of a log that is about one product.

use std::collections::BTreeMap;
use std::sync::Arc;

use audit::report::{LogPosition, ReadModels};
use audit::{Scope, Source, audit};
use bytes::Bytes;
use indicatif::ProgressBar;
use ports::NewRecord;
use schemas::codec::Codec;
use schemas::decision::{DecisionRecord, Skipped};
use schemas::ids::Offset;
use schemas::topics::Topic;

use crate::forge::{
    History, PARTITION, attempt, audited, audited_within, history, history_with, source_of,
};

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
            put(Topic::PurchaseAttempts, record);
        }
        put(Topic::StockDecisions, b"garbage");
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
    log.delete(Topic::PurchaseAttempts, PARTITION, Offset(12));
    let violation = audited(log, None).await.violation.unwrap();
    let expected = LogPosition {
        topic: Topic::StockDecisions.name(),
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
    let offset = log.put(Topic::PurchaseAttempts, PARTITION, vec![garbage]);
    log.delete(Topic::PurchaseAttempts, PARTITION, offset);
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
    history.order(3).quantity = 1;
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
