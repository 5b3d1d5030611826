//! Claiming a partition and rebuilding its products.

use std::sync::Arc;
use std::time::Instant;

use runtime::health::Component;
use tracing::{info, warn};

use super::products::Products;
use crate::partition::checkpoint::{self, Checkpoint};
use crate::partition::recovery::Recovery;
use crate::partition::{PartitionError, PartitionLog, claim};

/// Claims a partition and rebuilds its products as they are at the claim.
pub(super) async fn recover(
    log: &PartitionLog,
    decider: &Arc<str>,
    component: &Component,
) -> Result<(Recovery, Products), PartitionError> {
    let began = Instant::now();
    let claim = claim::append(log, decider).await?;
    let (checkpoint, mut products) = restore(log).await?;
    let mut recovery = Recovery::start(log, claim, checkpoint).await?;
    while let Some((offset, decision)) = recovery.next(component).await? {
        let absorbed = products.absorb(&decision);
        absorbed.map_err(PartitionError::violation(log.topics.decisions, offset))?;
    }
    recovery.report(began.elapsed());
    Ok((recovery, products))
}

/// The products of the last complete checkpoint. A checkpoint that this version cannot read, or
/// that lacks a part, is skipped with a warning: the log has all decisions, folding them only
/// takes longer.
async fn restore(log: &PartitionLog) -> Result<(Checkpoint, Products), PartitionError> {
    match restore_last(log).await {
        Ok(Some(restored)) => return Ok(restored),
        Ok(None) => {}
        Err(error @ (PartitionError::Decode { .. } | PartitionError::Violation { .. })) => {
            let partition = log.partition;
            warn!(%partition, %error, "the checkpoint cannot be used; folding all decisions");
        }
        Err(error) => return Err(error),
    }
    Ok((Checkpoint::default(), Products::default()))
}

async fn restore_last(
    log: &PartitionLog,
) -> Result<Option<(Checkpoint, Products)>, PartitionError> {
    let Some(mut reader) = checkpoint::find_last(log).await? else {
        return Ok(None);
    };
    let checkpoint = reader.checkpoint();
    let mut products = Products::default();
    while let Some(part) = reader.next_part().await? {
        products.restore(part);
    }
    let (topic, completed_at) = (log.topics.snapshots, checkpoint.completed_at);
    products
        .check()
        .map_err(PartitionError::violation(topic, completed_at))?;
    let (partition, covers) = (log.partition, checkpoint.covers);
    info!(%partition, %covers, remembered = products.remembered(), "restored a checkpoint");
    Ok(Some((checkpoint, products)))
}
