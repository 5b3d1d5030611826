//! How a log is run.

use schemas::topics::Topic;

use crate::error::OpenError;
use crate::format;
use crate::segment::FIRST;

/// How a log is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Partitions of every topic, 1 to 1,024; fixed when the directory is created.
    pub partitions: u32,
    /// Bytes of the segment files created from now on, at most 1 GiB. Two are created in advance.
    pub segment_bytes: u64,
    /// The most records in the queue. One call may have more if the queue is empty.
    pub queue_records: usize,
    /// The most bytes in the queue, and in one call. As many bytes again may be on their way to the
    /// disk.
    pub queue_bytes: usize,
    /// The most bytes of the latest records that are cached in memory, for each topic's partition.
    pub recent_bytes: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            partitions: 8,
            segment_bytes: 64 << 20,
            queue_records: 65_536,
            queue_bytes: 8 << 20,
            recent_bytes: 4 << 20,
        }
    }
}

impl Options {
    /// Checks that every option is within its bounds.
    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let refuse = |what: String| Err(OpenError::Options(what));
        if !(1..=format::MAX_PARTITIONS).contains(&self.partitions) {
            return refuse(format!(
                "partitions is {}, but must be 1 to {}",
                self.partitions,
                format::MAX_PARTITIONS
            ));
        }
        if self.queue_records == 0 {
            return refuse("queue_records must be at least 1".to_owned());
        }
        let slots = Topic::ALL.len() * self.partitions as usize;
        let least = FIRST + format::batch_bytes(slots, self.queue_bytes) as u64;
        if !(least..=1 << 30).contains(&self.segment_bytes) {
            let found = self.segment_bytes;
            return refuse(format!(
                "segment_bytes is {found}, but must be at least {least}, so that a full queue \
                 fits in, and at most 1 GiB"
            ));
        }
        Ok(())
    }
}
