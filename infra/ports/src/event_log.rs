//! The event log: partitioned topics of records that are appended and never changed.

use std::collections::BTreeSet;

use async_trait::async_trait;
use bytes::Bytes;
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tokio::sync::watch;

/// The largest value of one record, in bytes.
pub const MAX_VALUE_BYTES: usize = 900_000;
/// The largest key of one record, in bytes.
pub const MAX_KEY_BYTES: usize = 256;
/// The most headers of one record.
pub const MAX_HEADERS: usize = 8;
/// The largest name or value of a header, in bytes.
pub const MAX_HEADER_BYTES: usize = 256;

/// A record to append.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewRecord {
    /// What the record is about; may be empty.
    pub key: Bytes,
    /// The record itself.
    pub value: Bytes,
    /// What travels beside it, such as the trace it belongs to.
    pub headers: Vec<(String, Bytes)>,
}

impl NewRecord {
    /// Bytes of key, value and headers.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + self.header_bytes()
    }

    fn header_bytes(&self) -> usize {
        let bytes = |(name, value): &(String, Bytes)| name.len() + value.len();
        self.headers.iter().map(bytes).sum()
    }

    /// Whether a log takes the record: [`AppendError::TooLarge`] if not.
    pub fn check_bounds(&self) -> Result<(), AppendError> {
        let check = |what, bytes, max| match bytes > max {
            true => Err(AppendError::TooLarge { what, bytes, max }),
            false => Ok(()),
        };
        check("the value", self.value.len(), MAX_VALUE_BYTES)?;
        check("the key", self.key.len(), MAX_KEY_BYTES)?;
        if self.headers.len() > MAX_HEADERS {
            return Err(AppendError::TooLarge {
                what: "the list of headers",
                bytes: self.header_bytes(),
                max: MAX_HEADERS * MAX_HEADER_BYTES,
            });
        }
        for (name, value) in &self.headers {
            check("a header's name", name.len(), MAX_HEADER_BYTES)?;
            check("a header's value", value.len(), MAX_HEADER_BYTES)?;
        }
        Ok(())
    }
}

/// A record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// Its place in the partition. Within a partition offsets rise; they need not be gapless.
    pub offset: Offset,
    /// When the log took it. Within a partition it does not fall, unless the log moved to a
    /// machine whose clock is behind; the core lets no product's time fall.
    pub appended_at_ms: TimestampMs,
    /// What the record is about.
    pub key: Bytes,
    /// The record itself.
    pub value: Bytes,
    /// What travels beside it.
    pub headers: Vec<(String, Bytes)>,
}

/// Who shares partitions among themselves: each partition is one member's at a time, as far
/// as the group knows. A partition may for a while be held by two; the log's readers must not
/// depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// Those who decide.
    Deciders,
    /// Those who write the read models.
    Projectors,
}

/// Why records were not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue is full. Nothing was appended; try again later.
    #[error("the append queue is full")]
    Full,
    /// A record is larger than the log takes. Nothing was appended; trying again cannot help.
    #[error("{what} has {bytes} bytes; the log takes at most {max}")]
    TooLarge {
        /// Key, value or header.
        what: &'static str,
        /// Bytes found.
        bytes: usize,
        /// Bytes allowed.
        max: usize,
    },
    /// The log cannot say whether the records were appended: all, some or none may be there
    /// now or later. An attempt may be sent again, since its id makes it one attempt.
    #[error("the log failed: {0}")]
    Unknown(String),
    /// The log has stopped taking records and will not again before a restart.
    #[error("the log has stopped: {0}")]
    Stopped(String),
}

/// Why records could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The log cannot be reached; the same read may succeed later.
    #[error("the log cannot be read at the moment: {0}")]
    Unavailable(String),
    /// What was read is not what was written. It must not be passed over.
    #[error("the log is damaged: {0}")]
    Damaged(String),
    /// The log has been closed.
    #[error("the log is closed")]
    Closed,
}

/// The event log.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// How many partitions every topic has.
    fn partitions(&self) -> u32;

    /// Appends records to one partition, in their order, and returns the offset of the last.
    ///
    /// Ok promises that all of them are durable and that every reader will see them. Records
    /// of two calls keep the order of the calls when the second begins after the first was
    /// polled once. `records` is not empty.
    async fn append(
        &self,
        topic: Topic,
        partition: Partition,
        records: Vec<NewRecord>,
    ) -> Result<Offset, AppendError>;

    /// Reads a partition from an offset on; from the first record when the offset is lower.
    async fn read(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, ReadError>;

    /// The offset that the next record of a partition will have at least. All records before
    /// it are durable.
    async fn end(&self, topic: Topic, partition: Partition) -> Result<Offset, ReadError>;

    /// The first offset whose record was appended at this time or later; the partition's end
    /// when there is none.
    async fn offset_at(
        &self,
        topic: Topic,
        partition: Partition,
        time: TimestampMs,
    ) -> Result<Offset, ReadError>;

    /// The partitions of which this process is the group's member, now and as that changes.
    /// The process joins the group with the first call, and leaves it when the log is closed.
    fn assignment(&self, group: Group) -> watch::Receiver<BTreeSet<Partition>>;

    /// Tells those who watch the log from outside that the group's work on a partition has come
    /// to `next`: of [`Topic::PurchaseAttempts`] for deciders, [`Topic::StockDecisions`] for
    /// projectors. Returns at once; nothing depends on it, and it may be lost.
    fn note_progress(&self, group: Group, partition: Partition, next: Offset);

    /// Lets the log drop a partition's records before an offset, if it can and likes.
    async fn forget(
        &self,
        topic: Topic,
        partition: Partition,
        before: Offset,
    ) -> Result<(), ReadError>;
}

/// A place in a partition that moves on as it is read.
#[async_trait]
pub trait LogReader: Send {
    /// The next records, in order, at least one; waits until there is one. Only durable
    /// records are returned. A call given up before it returns loses nothing.
    async fn next(&mut self) -> Result<Vec<LogRecord>, ReadError>;
}
