//! The claim: a record of the decisions' topic whose offset fences off every decider before.

use std::sync::Arc;

use bytes::Bytes;
use ports::NewRecord;
use schemas::decision::{Claim, DecisionRecord};
use schemas::ids::Offset;

use super::{PartitionError, PartitionLog};

/// Claims a partition for the decider of this name; returns the number of the claim. From this
/// offset on no decision under an earlier claim counts.
pub(crate) async fn append(
    log: &PartitionLog,
    decider: &Arc<str>,
) -> Result<Offset, PartitionError> {
    let claim = DecisionRecord::Claim(Claim {
        decider: decider.clone(),
        partitions: Some(log.log.partitions()),
    });
    let record = NewRecord {
        value: Bytes::from(log.codec.encode_decision(claim)),
        ..NewRecord::default()
    };
    Ok(log.append(log.topics.decisions, vec![record]).await?)
}
