//! The history of a partition: every record of `stock-decisions` with the fence's verdict, and
//! beside each decision that counts the command of `purchase-attempts` that it answers.
//!
//! All tools that read whole logs use these readers, so that all of them agree on what counts:
//!
//! - [`Records`] reads one topic of a partition up to an end;
//! - [`Decisions`] reads `stock-decisions` and passes every record through the fence;
//! - [`History`] reads both topics side by side.

mod walk;

mod decisions;

mod records;

use ports::ReadError;
use schemas::codec::DecodeError;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

pub use self::decisions::{Decisions, FencedRecord};
pub use self::records::Records;
pub use self::walk::{CommandRecord, Entry, History, PartitionEnd};

/// Why a walk cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A newer version may have written a record of `stock-decisions`.
    #[error("{topic}, partition {partition}, offset {offset}: {error}", topic = Topic::StockDecisions)]
    Undecodable {
        /// The record's partition.
        partition: Partition,
        /// The record's offset.
        offset: Offset,
        /// What is wrong with it.
        error: DecodeError,
    },
}
