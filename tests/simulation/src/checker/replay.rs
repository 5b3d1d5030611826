//! The domain decides `purchase-attempts` again, from the beginning and without faults. The
//! decisions that count in `stock-decisions` must be the same, whichever decider wrote them and
//! after any recovery.
//!
//! This is the one check that calls the domain. It does not prove that the domain is right, which
//! the account does. It proves that no fault changed a decision.

use std::collections::BTreeMap;

use domain::DecisionContext;
use domain::product::Product;
use schemas::codec::Codec;
use schemas::decision::{Decision, DecisionRecord};
use schemas::ids::{ChainHash, Offset, ProductId};

use super::LOGS;
use super::history::History;
use crate::world::EndState;

/// The decisions that count and differ from those decided again.
pub fn check(codec: &Codec, history: &History, end: &EndState) -> Vec<String> {
    let mut violations = Vec::new();
    for (partition, counting) in &history.decisions {
        let mut products = BTreeMap::<ProductId, Product>::new();
        let records = &end.records[&(LOGS.0, *partition)];
        for (record, (command, original)) in records
            .iter()
            .zip(history.commands[partition].iter().zip(counting))
        {
            let (Some(command), Some(original)) = (command, original) else {
                continue;
            };
            let context = DecisionContext {
                claim: original.claim,
                offset: record.offset,
                follows: Offset(record.offset.0 - 1),
                appended_at_ms: record.appended_at_ms,
            };
            let product = products.entry(command.product_id.clone()).or_default();
            let replayed = match domain::answer(product, command, context) {
                Ok(decision) => chained(codec, product, decision),
                Err(violation) => Err(violation.to_string()),
            };
            if replayed.as_ref().map(without_claim) != Ok(without_claim(original)) {
                let offset = record.offset;
                violations.push(format!(
                    "partition {partition}, offset {offset}: decided {original:?}, and on replay {replayed:?}"
                ));
                break;
            }
        }
    }
    violations
}

/// The decision as it is in the log, with the chain hash of its bytes.
fn chained(codec: &Codec, product: &mut Product, decision: Decision) -> Result<Decision, String> {
    let (bytes, chain) = codec.encode_chained(decision, product.head.chain);
    product.set_chain(chain);
    match codec
        .decode_decision(&bytes)
        .map_err(|error| error.to_string())?
    {
        DecisionRecord::Decision(decision) => Ok(decision),
        other => Err(format!("a decision was read back as {other:?}")),
    }
}

/// The decision without what depends on its decider.
fn without_claim(decision: &Decision) -> Decision {
    Decision {
        claim: Offset(0),
        chain: ChainHash::default(),
        ..decision.clone()
    }
}
