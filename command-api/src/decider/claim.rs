//! Taking a partition: append the claim, then learn from log 2 what is true up to it.

use std::time::Instant;

use bytes::Bytes;
use ports::{LogReader, NewRecord};
use runtime::health::Component;
use runtime::metrics::{CLAIMS, DECISIONS_DROPPED, RECOVERY_SECONDS};
use schemas::decision::{Claim, DecisionRecord};
use schemas::fence::{Fence, Verdict};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use tracing::{debug, info};

use super::checkpoint::{self, Checkpoint};
use super::products::Products;
use super::{Decider, DeciderError};

/// A partition that was taken.
pub(crate) struct Held {
    pub(crate) partition: Partition,
    /// The number of the claim it is held under.
    pub(crate) claim: Offset,
    /// What counted up to the claim, and from then on what is read back.
    pub(crate) fence: Fence,
    pub(crate) products: Products,
    /// Reads log 2 after the claim.
    pub(crate) decisions: Box<dyn LogReader>,
    /// The completing record of the last checkpoint; -1 when there is none.
    pub(crate) checkpoint: Offset,
    /// Decisions since then.
    pub(crate) since_checkpoint: u64,
}

/// Takes a partition.
pub(crate) async fn take(
    decider: &Decider,
    partition: Partition,
    component: &Component,
) -> Result<Held, DeciderError> {
    let began = Instant::now();
    let claim = DecisionRecord::Claim(Claim {
        decider: decider.name.clone(),
    });
    let value = Bytes::from(decider.codec.encode_decision(claim));
    let record = NewRecord {
        value,
        ..NewRecord::default()
    };
    let claim = decider
        .log
        .append(Topic::StockDecisions, partition, vec![record])
        .await?;
    let held = recover(decider, partition, claim, component).await?;
    let label = [("partition", partition.to_string())];
    metrics::counter!(CLAIMS, &label).increment(1);
    metrics::histogram!(RECOVERY_SECONDS, &label).record(began.elapsed().as_secs_f64());
    let took_ms = began.elapsed().as_millis() as u64;
    let (answered, folded) = (held.fence.answered, held.since_checkpoint);
    if answered.0 < 0 {
        debug!(%partition, %claim, took_ms, "took a new partition");
    } else {
        info!(%partition, %claim, %answered, folded, took_ms, "took the partition");
    }
    Ok(held)
}

/// Folds log 2 from the last checkpoint up to the claim.
async fn recover(
    decider: &Decider,
    partition: Partition,
    claim: Offset,
    component: &Component,
) -> Result<Held, DeciderError> {
    let Checkpoint {
        covers,
        fence,
        products,
        completed_at,
    } = checkpoint::load(decider, partition).await?;
    let decisions = decider
        .log
        .read(Topic::StockDecisions, partition, covers)
        .await?;
    let mut held = Held {
        partition,
        claim,
        fence,
        products,
        decisions,
        checkpoint: completed_at,
        since_checkpoint: 0,
    };
    while held.fence.claim < claim {
        for record in held.decisions.next().await? {
            let offset = record.offset;
            let decoded = decider.decision(&record)?;
            match (held.fence.pass(offset, &decoded), decoded) {
                (Verdict::Counts, DecisionRecord::Decision(decision)) => {
                    held.products.absorb(&decision).map_err(|violation| {
                        DeciderError::Violation {
                            topic: Topic::StockDecisions,
                            offset,
                            violation,
                        }
                    })?;
                    held.since_checkpoint += 1;
                }
                (Verdict::Claimed, _) if offset > claim => {
                    return Err(DeciderError::Superseded(offset));
                }
                (Verdict::Dropped, _) => {
                    let labels = [
                        ("reader", "decider".into()),
                        ("partition", partition.to_string()),
                    ];
                    metrics::counter!(DECISIONS_DROPPED, &labels).increment(1);
                }
                _ => {}
            }
        }
        component.working((claim.0 - held.fence.answered.0).max(1) as u64);
    }
    Ok(held)
}
