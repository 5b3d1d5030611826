//! The values of records of all topics; the schema id in them tells the topic.
//!
//! A decoded record is encoded and decoded again as the same. A decoded command is decided, and the
//! decision keeps every invariant, also when it is read back. A decoded decision goes to all
//! readers of decisions, and a piece of a checkpoint into a product. Those may refuse it, but not
//! fail otherwise.

use std::sync::LazyLock;

use domain::product::Product;
use domain::{DecisionContext, absorb, answer, snapshot};
use schemas::codec::{Codec, DecodeError, chain_hash};
use schemas::command::{Command, CommandBody, SaleTerms};
use schemas::decision::{Decision, DecisionRecord, Skipped};
use schemas::fence::{Fence, Verdict};
use schemas::ids::{ChainHash, Money, Offset, Partition};
use schemas::snapshot::SnapshotRecord;

static CODEC: LazyLock<Codec> = LazyLock::new(Codec::embedded);
const NOW: i64 = 1_795_248_000_000;

pub(crate) fn run(input: &[u8]) {
    let codec = &*CODEC;
    match codec.decode_command(input) {
        Ok(_) => {}
        // A decider answers garbage as skipped, and that is an answer like any other.
        Err(error) if error.is_garbage() => skip(codec, &error),
        // Only an unknown id can be a newer version's, and only a small one.
        Err(error) => assert!(
            matches!(error, DecodeError::UnknownSchema { id, .. } if id <= 1_000),
            "{error}"
        ),
    }
    if let Ok(command) = codec.decode_command(input) {
        let bytes = codec.encode_command(command.clone());
        assert_eq!(codec.decode_command(&bytes), Ok(command.clone()));
        decide_twice(codec, &command);
    }
    if let Ok(record) = codec.decode_decision(input) {
        let bytes = codec.encode_decision(record.clone());
        assert_eq!(codec.decode_decision(&bytes), Ok(record.clone()));
        if let DecisionRecord::Decision(decision) = record {
            chain_hash(input, ChainHash::default());
            read_by_all(&decision);
        }
    }
    if let Ok(record) = codec.decode_snapshot(input) {
        let bytes = codec.encode_snapshot(&record);
        assert_eq!(codec.decode_snapshot(&bytes), Ok(record.clone()));
        restore(record);
    }
}

/// Answers a record as skipped, as a decider does.
fn skip(codec: &Codec, error: &DecodeError) {
    let record = DecisionRecord::Skipped(Skipped {
        claim: Offset(0),
        answers: Offset(0),
        follows: Offset(-1),
        reason: error.to_string().into(),
        by: None,
    });
    let bytes = codec.encode_decision(record.clone());
    assert_eq!(codec.decode_decision(&bytes), Ok(record.clone()));
    let mut fence = Fence {
        claim: Offset(0),
        ..Fence::default()
    };
    assert_eq!(fence.pass(Offset(1), &record), Verdict::Counts);
}

/// Decides a command on a product without a sale, and on one with an open sale; twice on each,
/// because the second time is another case. Each record is a minute earlier than the one before it, as
/// after a clock that was ahead, so that a correction of the time has something to correct.
fn decide_twice(codec: &Codec, command: &Command) {
    let open = Command {
        product_id: command.product_id.clone(),
        body: CommandBody::PutSale(terms()),
        if_version: None,
    };
    for commands in [&[command, command][..], &[&open, command, command]] {
        let (mut product, mut shadow) = (Product::default(), Product::default());
        for (offset, command) in (0..).zip(commands) {
            let context = DecisionContext {
                claim: Offset(0),
                offset: Offset(offset),
                follows: Offset(offset - 1),
                appended_at_ms: NOW - 60_000 * offset,
            };
            let decision = answer(&mut product, command, context).expect("invariants hold");
            let (bytes, chain) = codec.encode_chained(decision, product.head.chain);
            product.set_chain(chain);
            let Ok(DecisionRecord::Decision(decision)) = codec.decode_decision(&bytes) else {
                panic!("a decision does not read back as one")
            };
            assert_eq!(chain_hash(&bytes, shadow.head.chain), decision.chain);
            absorb(&mut shadow, &decision).expect("a decision can be applied");
            assert_eq!(shadow, product);
            read_by_all(&decision);
        }
    }
}

/// What every reader of `stock-decisions` does with a decision that counts.
fn read_by_all(decision: &Decision) {
    let mut fence = Fence {
        claim: decision.claim,
        answered: decision.follows,
    };
    let record = DecisionRecord::Decision(decision.clone());
    let verdict = fence.pass(Offset(i64::MAX), &record);
    assert_ne!(verdict, Verdict::Claimed);
    // A violation is a valid result: the reader stops there.
    let _ = absorb(&mut Product::default(), decision);
    let sale = views::next_sale(None, decision);
    assert_eq!(views::next_sale(sale.as_ref(), decision), sale);
    let rows = views::attempt_rows(Partition(0), decision, None);
    assert!(rows.len() <= 3 * decision.events.len());
}

fn restore(record: SnapshotRecord) {
    let Some(part) = record.part else {
        return;
    };
    let id = part.product_id.clone();
    let mut product = Product::default();
    snapshot::restore(&mut product, part.clone());
    let once = product.clone();
    snapshot::restore(&mut product, part);
    assert_eq!(product, once, "the same piece again changes nothing");
    let mut again = Product::default();
    for part in snapshot::parts(&id, &product) {
        snapshot::restore(&mut again, part);
    }
    assert_eq!(again, product);
    // The reader checks whether the checkpoint is complete.
    let _ = snapshot::check(&product);
}

fn terms() -> SaleTerms {
    SaleTerms {
        name: "x".into(),
        price: Money {
            minor: 1999,
            currency: "EUR".into(),
        },
        stock: 10,
        limit_per_buyer: Some(4),
        hold_ms: Some(1_000),
        opens_at_ms: NOW,
        closes_at_ms: None,
    }
}
