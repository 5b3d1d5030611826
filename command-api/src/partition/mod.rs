//! The shell around a core, for one partition: everything that a decider does besides deciding.
//!
//! The shell keeps no state of a core and never calls one. A core's decider checks that the log is the
//! one that it knows ([`log_check`]), claims the partition ([`claim`]), restores its state from the last
//! checkpoint ([`checkpoint`]) and the decisions after it ([`recovery`]), and then asks
//! [`owned_partition`] for the next step: a batch of commands, a due checkpoint, a passed deadline. It computes the answer from its state and hands it back.
//! Appending ([`appending`]), reading back ([`read_back`]) and reporting ([`progress`]) happen
//! between two steps. The core sets its timers in [`deadlines`]. Records that cannot be decoded are
//! skipped, or stop the partition ([`undecodable`]).

pub(crate) mod claim;
pub(crate) mod log_check;

pub(crate) mod checkpoint;
pub(crate) mod recovery;

pub(crate) mod owned_partition;

mod appending;
mod log_time;
pub(crate) mod progress;
mod read_back;
pub(crate) mod undecodable;

pub(crate) mod deadlines;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use domain::invariants::Violation;
use futures::future::BoxFuture;
use ports::{AppendError, EventLog, Group, LogReader, LogRecord, NewRecord, ReadError};
use schemas::codec::{Codec, DecodeError};
use schemas::decision::DecisionRecord;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

use self::appending::append_when_there_is_room;

/// The topics of a core, and the group of its deciders.
#[derive(Debug, Clone, Copy)]
pub(crate) struct CoreTopics {
    /// The commands that the core answers.
    pub(crate) commands: Topic,
    /// Its decisions, and the claims of its deciders.
    pub(crate) decisions: Topic,
    /// The checkpoints of its state.
    pub(crate) snapshots: Topic,
    /// The group that shares its partitions.
    pub(crate) group: Group,
}

/// One partition of a core's topics.
#[derive(Clone)]
pub(crate) struct PartitionLog {
    pub(crate) log: Arc<dyn EventLog>,
    pub(crate) codec: Arc<Codec>,
    pub(crate) topics: CoreTopics,
    pub(crate) partition: Partition,
    /// Whether appends wait until the log takes records.
    pub(crate) waiting: WaitingAppends,
}

/// How many appends of a partition's decider wait until the log takes records. Clones count the same
/// appends.
#[derive(Clone, Default)]
pub(crate) struct WaitingAppends(Arc<AtomicUsize>);

impl WaitingAppends {
    /// Counts an append until the returned value is dropped.
    fn begin(&self) -> WaitingAppend {
        self.0.fetch_add(1, Relaxed);
        WaitingAppend(self.0.clone())
    }

    fn any(&self) -> bool {
        self.0.load(Relaxed) > 0
    }
}

/// An append that waits.
struct WaitingAppend(Arc<AtomicUsize>);

impl Drop for WaitingAppend {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl PartitionLog {
    async fn read(&self, topic: Topic, from: Offset) -> Result<Box<dyn LogReader>, ReadError> {
        self.log.read(topic, self.partition, from).await
    }

    /// Appends records when it is first polled, and waits while the log takes none.
    fn append(
        &self,
        topic: Topic,
        records: Vec<NewRecord>,
    ) -> BoxFuture<'static, Result<Offset, AppendError>> {
        let log = self.clone();
        Box::pin(async move { append_when_there_is_room(&log, topic, records).await })
    }

    /// The decision, skipped record or claim in a record; none if it is garbage, which does not count.
    fn decode_decision(
        &self,
        record: &LogRecord,
    ) -> Result<Option<DecisionRecord>, PartitionError> {
        let decoded = self.codec.decode_for_fence(&record.value);
        decoded.map_err(PartitionError::decode(self.topics.decisions, record.offset))
    }
}

/// Why a decider stopped its work on a partition.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartitionError {
    /// Another decider claimed the partition.
    #[error("another decider has claimed the partition with claim {0}")]
    Superseded(Offset),
    /// The fence drops a decision of this decider, so its state is not what the log has.
    #[error("the fence dropped this decider's own decision at offset {0} of stock-decisions")]
    Dropped(Offset),
    /// A record could not be appended.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A record could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record could not be decoded.
    #[error("record {offset} of {topic}: {error}")]
    Decode {
        /// Its topic.
        topic: Topic,
        /// Its offset.
        offset: Offset,
        /// What is wrong with it.
        error: DecodeError,
    },
    /// An invariant does not hold; nothing was appended.
    #[error("record {offset} of {topic}: {violation}")]
    Violation {
        /// The topic of the record that shows it.
        topic: Topic,
        /// Its offset.
        offset: Offset,
        /// The invariant.
        violation: Violation,
    },
}

impl PartitionError {
    /// Whether the log takes or gives no more records before this process is started again.
    pub(crate) fn needs_restart(&self) -> bool {
        matches!(
            self,
            Self::Append(AppendError::Stopped(_)) | Self::Read(ReadError::Closed)
        )
    }

    /// The record at which the partition stands until another program or an operator gets it past that,
    /// if this is such an error.
    pub(crate) fn stands_at(&self) -> Option<(Topic, Offset)> {
        match self {
            Self::Decode { topic, offset, .. } | Self::Violation { topic, offset, .. } => {
                Some((*topic, *offset))
            }
            _ => None,
        }
    }

    /// Names the record that could not be decoded.
    pub(crate) fn decode(topic: Topic, offset: Offset) -> impl FnOnce(DecodeError) -> Self {
        move |error| PartitionError::Decode {
            topic,
            offset,
            error,
        }
    }

    /// Names the record at which an invariant does not hold.
    pub(crate) fn violation(topic: Topic, offset: Offset) -> impl FnOnce(Violation) -> Self {
        move |violation| PartitionError::Violation {
            topic,
            offset,
            violation,
        }
    }
}
