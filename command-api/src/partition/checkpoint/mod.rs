//! Checkpoints: the state of a core in a partition, as of one offset of its decisions.
//!
//! [`load`] finds the last complete one, [`write`] appends the next.

mod load;
mod write;

use ports::AppendError;
use schemas::fence::Fence;
use schemas::ids::{Offset, Partition, RecordHash};
use schemas::snapshot::SnapshotRecord;
use tracing::warn;

pub(crate) use self::load::{CheckpointReader, find_last};
pub(crate) use self::write::CheckpointWriter;

const NONE: Offset = Offset(-1);

/// What a checkpoint reaches; nothing before the first.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Checkpoint {
    /// It includes all decisions before this offset of their topic.
    pub(crate) covers: Offset,
    /// The fence there.
    pub(crate) fence: Fence,
    /// The record that completes it, or that completes the one before while it is being written;
    /// -1 when there is none.
    pub(crate) completed_at: Offset,
    /// The log that it is of; none when an older version wrote it.
    pub(crate) log: Option<RecordHash>,
}

impl Default for Checkpoint {
    fn default() -> Self {
        Self {
            covers: Offset(0),
            fence: Fence::default(),
            completed_at: NONE,
            log: None,
        }
    }
}

/// When a checkpoint is due: after this many decisions, and not before a quarter of what is
/// remembered has been decided anew, so that its cost stays in proportion.
#[derive(Debug, Clone, Copy)]
pub struct CheckpointPolicy {
    /// The fewest decisions between two checkpoints.
    pub min_decisions: u64,
}

impl Default for CheckpointPolicy {
    fn default() -> Self {
        Self {
            min_decisions: 100_000,
        }
    }
}

impl CheckpointPolicy {
    pub(super) fn is_due(self, since: u64, remembered: usize) -> bool {
        since >= self.min_decisions.max(remembered as u64 / 4)
    }
}

/// Where a checkpoint begins that the record at `offset` completes.
fn first_of(offset: Offset, last: &SnapshotRecord) -> Offset {
    match last.first {
        // The first record cannot name itself.
        NONE => offset,
        first => first,
    }
}

/// Logs that a checkpoint was not written. The next one will be.
pub(super) fn report_failure(partition: Partition, error: &AppendError) {
    warn!(%partition, %error, "a checkpoint was not written; the next recovery takes longer");
}
