//! Records that nobody can decode, and records that only others can decode.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use doorbuster::skip::Skip;
use ports::NewRecord;
use schemas::codec::Codec;
use schemas::decision::{Claim, DecisionRecord};
use schemas::fence::{Fence, Verdict};
use schemas::ids::Offset;
use schemas::topics::Topic;
use tokio::time::sleep;

use crate::support::{Bench, PARTITION, attempt, sale};

/// What nobody can decode: a tombstone, noise, a record of another topic, one that does not follow its
/// schema, and one of another product's schema.
fn garbage() -> [Vec<u8>; 5] {
    let claim = DecisionRecord::Claim(Claim {
        decider: "d".into(),
        partitions: None,
    });
    [
        vec![],
        b"garbage".to_vec(),
        Codec::embedded().encode_decision(claim),
        b"\0\0\0\0\x04junk".to_vec(),
        b"\0\x00\x01\x00\x00foreign".to_vec(),
    ]
}

fn put(bench: &Bench, topic: Topic, value: Vec<u8>) -> Offset {
    let record = NewRecord {
        key: Bytes::from(vec![b'k'; 200]),
        value: value.into(),
        headers: vec![],
    };
    bench.log.put(topic, PARTITION, vec![record])
}

/// The answers that count: what each answers, and the reason if it is a skipped record.
fn answers(bench: &Bench) -> Vec<(i64, Option<Arc<str>>)> {
    let mut fence = Fence::default();
    let mut answers = vec![];
    for record in bench.log.records(Topic::StockDecisions, PARTITION) {
        let Ok(decoded) = bench.codec.decode_decision(&record.value) else {
            continue;
        };
        match (fence.pass(record.offset, &decoded), decoded) {
            (Verdict::Counts, DecisionRecord::Decision(decision)) => {
                answers.push((decision.answers.0, None));
            }
            (Verdict::Counts, DecisionRecord::Skipped(skipped)) => {
                assert_eq!(skipped.by, None, "the decider skips by itself");
                answers.push((skipped.answers.0, Some(skipped.reason)));
            }
            _ => {}
        }
    }
    answers
}

async fn until(what: &str, reached: impl Fn() -> bool) {
    for _ in 0..4_000 {
        if reached() {
            return;
        }
        sleep(Duration::from_millis(50)).await;
    }
    panic!("{what}");
}

#[tokio::test(start_paused = true)]
async fn garbage_is_answered_as_skipped_and_stops_nothing() {
    let bench = Bench::new();
    bench.put(sale("cap", 2, None));
    for value in garbage() {
        put(&bench, Topic::PurchaseAttempts, value.clone());
        bench.put(attempt("cap", "ann"));
        // Nobody counts it here, either, unless it belongs here.
        if bench.codec.decode_decision(&value).is_err() {
            put(&bench, Topic::StockDecisions, value);
        }
    }
    let decider = bench.start("d-1", bench.log.clone(), 4);
    until("everything is answered", || answers(&bench).len() == 11).await;
    for (offset, reason) in answers(&bench) {
        let is_garbage = offset % 2 == 1;
        assert_eq!(reason.is_some(), is_garbage, "{offset}: {reason:?}");
    }
    assert_eq!(bench.claims(), 1, "no second claim was needed");
    sleep(Duration::from_secs(3)).await;
    let health = bench.health.report().remove(0);
    assert!(health.ready && health.degraded, "{health:?}");
    assert!(health.detail.contains("skipped 5 records"), "{health:?}");
    assert!(
        health
            .detail
            .contains("record 9 of purchase-attempts, partition 0"),
        "{health:?}"
    );
    decider.stop().await;

    // The next decider folds them: with a checkpoint before them, and without.
    let before = answers(&bench);
    let decider = bench.start("d-2", bench.log.clone(), 1_000);
    bench.put(attempt("cap", "bob"));
    until("it continues after them", || answers(&bench).len() == 12).await;
    assert_eq!(answers(&bench)[..11], before);
    decider.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_newer_versions_record_stops_the_partition_until_an_operator_skips_it() {
    let bench = Bench::new();
    bench.put(sale("cap", 2, Some(1_000)));
    bench.put(attempt("cap", "ann"));
    let newer = put(
        &bench,
        Topic::PurchaseAttempts,
        b"\0\0\0\0\x63newer".to_vec(),
    );
    bench.put(attempt("cap", "bob"));
    let decider = bench.start("d-1", bench.log.clone(), 1_000);
    until("what is before it is decided", || {
        answers(&bench).len() == 2
    })
    .await;
    sleep(Duration::from_secs(120)).await;
    assert_eq!(answers(&bench).len(), 2, "nothing behind it is decided");
    assert_eq!(bench.claims(), 1, "nothing is claimed while it stands");
    let attempts = bench.log.records(Topic::PurchaseAttempts, PARTITION).len();
    assert_eq!(attempts, 4, "no deadline is appended behind it");
    let health = bench.health.report().remove(0);
    assert!(health.ready && health.degraded, "{health:?}");
    for part in ["record 2 of purchase-attempts", "schema 99", "--offset 2"] {
        assert!(health.detail.contains(part), "{health:?}");
    }

    let skip = |offset| Skip {
        partition: PARTITION,
        offset,
        reason: "a test".into(),
        by: "carol".into(),
    };
    for wrong in [Offset(1), Offset(3), Offset(9)] {
        let refused = skip(wrong).carry_out(&*bench.log, &bench.codec).await;
        assert!(refused.is_err(), "{wrong}");
    }
    let records = bench.log.records(Topic::StockDecisions, PARTITION).len();
    assert_eq!(records, 3, "what is refused leaves nothing");
    let skipped = skip(newer).carry_out(&*bench.log, &bench.codec).await;
    assert!(skipped.unwrap().contains("skipped record 2"));
    let last = || bench.counting().last().map(|decision| decision.answers.0);
    until("it goes on", || last() >= Some(3)).await;
    decider.stop().await;
}

fn put_claim(bench: &Bench) -> Offset {
    let claim = DecisionRecord::Claim(Claim {
        decider: "operator carol".into(),
        partitions: Some(1),
    });
    let value = bench.codec.encode_decision(claim);
    put(bench, Topic::StockDecisions, value)
}

/// A record that violates an invariant is a defect of ours. What is before it is decided, and the
/// partition is claimed ever more rarely.
#[tokio::test(start_paused = true)]
async fn a_partition_that_cannot_go_on_is_claimed_ever_more_rarely() {
    let bench = Bench::new();
    bench.put(sale("cap", 2, None));
    // Only a newer version can fold its own decision, so no decider here can recover.
    put_claim(&bench);
    put(&bench, Topic::StockDecisions, b"\0\0\0\0\x63newer".to_vec());
    let decider = bench.start("d-1", bench.log.clone(), 1_000);
    sleep(Duration::from_secs(600)).await;
    let claims = bench.claims();
    assert!((5..30).contains(&claims), "{claims} claims in ten minutes");
    let health = bench.health.report().remove(0);
    assert!(health.ready && health.degraded, "{health:?}");
    assert!(health.detail.contains("schema 99"), "{health:?}");
    decider.stop().await;
}
