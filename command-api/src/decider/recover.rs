//! Claiming a partition and rebuilding its products.

use std::sync::Arc;
use std::time::Instant;

use runtime::health::Component;
use schemas::ids::RecordHash;
use tracing::{info, warn};

use super::products::Products;
use crate::partition::checkpoint::{self, Checkpoint, CheckpointReader};
use crate::partition::recovery::Recovery;
use crate::partition::{PartitionError, PartitionLog, claim, log_check};

/// Claims a partition and rebuilds its products as they are at the claim. Fails before the claim if
/// the log is not `known`, in which this process decided before, or not the one of the checkpoint.
pub(super) async fn recover(
    log: &PartitionLog,
    decider: &Arc<str>,
    known: Option<RecordHash>,
    component: &Component,
) -> Result<(Recovery, Products), PartitionError> {
    let began = Instant::now();
    let last = usable(log, checkpoint::find_last(log).await)?.flatten();
    let reached = last.as_ref().map(CheckpointReader::checkpoint);
    let identity = log_check::check(log, known, reached).await?;
    let claim = claim::append(log, decider).await?;
    let identity = match identity {
        Some(identity) => identity,
        None => log_check::identity_after_claim(log).await?,
    };
    let restored = match last {
        Some(last) => usable(log, restore(log, last).await)?,
        None => None,
    };
    let (checkpoint, mut products) = restored.unwrap_or_default();
    let mut recovery = Recovery::start(log, claim, identity, checkpoint).await?;
    while let Some((offset, decision)) = recovery.next(component).await? {
        let absorbed = products.absorb(&decision);
        absorbed.map_err(PartitionError::violation(log.topics.decisions, offset))?;
    }
    recovery.report(began.elapsed());
    Ok((recovery, products))
}

/// A checkpoint that this version cannot read, or that lacks a part, is skipped with a warning: the
/// log has all decisions, folding them only takes longer.
fn usable<T>(
    log: &PartitionLog,
    found: Result<T, PartitionError>,
) -> Result<Option<T>, PartitionError> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(error @ (PartitionError::Decode { .. } | PartitionError::Violation { .. })) => {
            let partition = log.partition;
            warn!(%partition, %error, "the checkpoint cannot be used; folding all decisions");
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The products of a checkpoint.
async fn restore(
    log: &PartitionLog,
    mut reader: CheckpointReader<'_>,
) -> Result<(Checkpoint, Products), PartitionError> {
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
    Ok((checkpoint, products))
}
