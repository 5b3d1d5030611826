//! Whether the log is the one that a partition's checkpoint, and the work of this process so far, are
//! of. It is checked before the claim: a claim in another log would only add to it.

use ports::ReadError;
use ports::log_mark::{REPLACED, check_identity, check_partitions, identity};
use schemas::ids::{Offset, RecordHash};

use super::checkpoint::Checkpoint;
use super::{PartitionError, PartitionLog};

/// What to do when a checkpoint is of another log.
const REMEDY: &str = "stop the services; then restore the topics that belong together, or delete the \
                      records of product-snapshots, so that the state is made from all decisions";

/// Checks the log before a claim, and returns its identity; none as long as it has no decisions.
/// `known` is the log in which this process decided before.
pub(crate) async fn check(
    log: &PartitionLog,
    known: Option<RecordHash>,
    checkpoint: Option<Checkpoint>,
) -> Result<Option<RecordHash>, PartitionError> {
    let (engine, partition) = (&*log.log, log.partition);
    let found = identity(engine, partition).await?;
    if let Some(known) = known {
        check_identity(
            partition,
            "the work of this decider is",
            known,
            found,
            REPLACED,
        )?;
    }
    let claim = checkpoint.map_or(Offset(-1), |checkpoint| checkpoint.fence.claim);
    check_partitions(engine, &log.codec, partition, claim).await?;
    if let Some(checkpoint) = checkpoint {
        if let Some(its_log) = checkpoint.log {
            check_identity(partition, "the checkpoint is", its_log, found, REMEDY)?;
        }
        for (topic, from) in [
            (log.topics.decisions, checkpoint.covers),
            (log.topics.commands, checkpoint.fence.answered.next()),
        ] {
            let end = engine.end(topic, partition).await?;
            ReadError::check_end(topic, partition, from, end)?;
        }
    }
    Ok(found)
}

/// The identity of the log, once it has this decider's claim.
pub(crate) async fn identity_after_claim(log: &PartitionLog) -> Result<RecordHash, PartitionError> {
    let missing = || ReadError::Unavailable("the claim cannot be read yet".to_owned());
    let found = identity(&*log.log, log.partition).await?;
    Ok(found.ok_or_else(missing)?)
}
