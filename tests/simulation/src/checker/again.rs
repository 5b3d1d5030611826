//! Replay: the core decides log 1 again, from the beginning and undisturbed. What counts in
//! log 2 must be that, whoever decided it and after whatever recovery.
//!
//! This is the one check that calls the core. It does not say that the core is right, which the
//! books do; it says that no fault changed what it decides.

use std::collections::BTreeMap;

use domain::DecisionContext;
use domain::product::Product;
use schemas::codec::Codec;
use schemas::decision::{Decision, DecisionRecord};
use schemas::ids::{ChainHash, Offset, ProductId};

use super::LOGS;
use super::history::History;
use crate::world::EndState;

/// Where the decisions that count are not what is decided again.
pub fn check(codec: &Codec, history: &History, end: &EndState) -> Vec<String> {
    let mut violations = Vec::new();
    for (partition, counting) in &history.decisions {
        let mut products = BTreeMap::<ProductId, Product>::new();
        let records = &end.records[&(LOGS.0, *partition)];
        for (record, (command, live)) in records
            .iter()
            .zip(history.commands[partition].iter().zip(counting))
        {
            let context = DecisionContext {
                claim: live.claim,
                offset: record.offset,
                follows: Offset(record.offset.0 - 1),
                appended_at_ms: record.appended_at_ms,
            };
            let product = products.entry(command.product_id.clone()).or_default();
            let again = match domain::answer(product, command, context) {
                Ok(decision) => chained(codec, product, decision),
                Err(violation) => Err(violation.to_string()),
            };
            if again.as_ref().map(unclaimed) != Ok(unclaimed(live)) {
                let offset = record.offset;
                violations.push(format!(
                    "partition {partition}, offset {offset}: decided {live:?}, and again {again:?}"
                ));
                break;
            }
        }
    }
    violations
}

/// The decision as it stands in the log: its chain hash is made with its bytes.
fn chained(codec: &Codec, product: &mut Product, decision: Decision) -> Result<Decision, String> {
    let (bytes, chain) = codec.encode_chained(decision, product.head.chain);
    product.head.chain = chain;
    match codec
        .decode_decision(&bytes)
        .map_err(|error| error.to_string())?
    {
        DecisionRecord::Decision(decision) => Ok(decision),
        DecisionRecord::Claim(_) => Err("a decision was read back as a claim".into()),
    }
}

/// The decision without what depends on who made it.
fn unclaimed(decision: &Decision) -> Decision {
    Decision {
        claim: Offset(0),
        chain: ChainHash::default(),
        ..decision.clone()
    }
}
