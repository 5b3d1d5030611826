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
    /// The id of what the record is about, a product as a rule; may be empty.
    pub key: Bytes,
    /// The payload.
    pub value: Bytes,
    /// Names and values beside the payload, such as the trace that the record belongs to.
    pub headers: Vec<(String, Bytes)>,
}

impl NewRecord {
    /// The size of key, value and headers, in bytes.
    pub fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + self.header_bytes()
    }

    fn header_bytes(&self) -> usize {
        let bytes = |(name, value): &(String, Bytes)| name.len() + value.len();
        self.headers.iter().map(bytes).sum()
    }

    /// Checks the record against the bounds above.
    ///
    /// # Errors
    ///
    /// [`AppendError::TooLarge`] names the first part that is too large.
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
    /// The record's position in the partition. Offsets rise within a partition; there may be gaps.
    pub offset: Offset,
    /// When the log appended the record, in milliseconds since the Unix epoch. Times do not fall
    /// within a partition, unless the log moved to a machine whose clock is behind, or its clock was
    /// corrected ([`EventLog::correct_clock`]). The core lets no product's time fall before an operator
    /// corrects it.
    pub appended_at_ms: TimestampMs,
    /// As in [`NewRecord::key`].
    pub key: Bytes,
    /// As in [`NewRecord::value`].
    pub value: Bytes,
    /// As in [`NewRecord::headers`].
    pub headers: Vec<(String, Bytes)>,
}

/// A group of processes that share the partitions: the group assigns each partition to one member.
/// For a while two members may both believe that a partition is theirs, so correctness must not
/// depend on the assignment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Group {
    /// The processes that decide.
    Deciders,
    /// The processes that write the read models.
    Projectors,
}

/// Why records were not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue is full. Nothing was appended; the same call may succeed later.
    #[error("the append queue is full")]
    Full,
    /// A record, or the call, is larger than the log takes. Nothing was appended; a retry cannot
    /// help.
    #[error("{what} has {bytes} bytes; the log takes at most {max}")]
    TooLarge {
        /// Which part is too large.
        what: &'static str,
        /// Its size.
        bytes: usize,
        /// The largest size allowed.
        max: usize,
    },
    /// The log cannot be reached, or cannot take records for this partition at the moment. Nothing was
    /// appended; the same call may succeed later, without a restart.
    #[error("the log cannot be reached: {0}")]
    Unavailable(String),
    /// The log cannot tell whether the records were appended: all, some or none of them may be in
    /// the log now or later. A retry may append them a second time. An attempt may be sent again,
    /// since attempts with the same id count once.
    #[error("the log failed, and the records may have been appended or not: {0}")]
    Unknown(String),
    /// The log takes no records before a restart, or none for this partition. Nothing was appended; a
    /// retry cannot help.
    #[error("the log takes no records: {0}")]
    Stopped(String),
}

/// Why records could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// The log cannot serve the read now; the same call may succeed later.
    #[error("the log cannot be read at the moment: {0}")]
    Unavailable(String),
    /// The bytes read are not the bytes written. The caller must not skip them and continue.
    #[error("the log is damaged: {0}")]
    Damaged(String),
    /// The log was closed. A retry cannot help.
    #[error("the log is closed")]
    Closed,
    /// The partition ends before the offset to read from, which the log once had: it has lost its
    /// end, or it is another log. A retry cannot help; only an operator can mend it.
    #[error(
        "{topic}, partition {partition}, ends at offset {end}, but it has had offset {last}: the log \
         has lost its end, or it is another log; stop the services and restore the log that has this \
         record", last = .from.0 - 1
    )]
    BeyondEnd {
        /// The topic.
        topic: Topic,
        /// The partition.
        partition: Partition,
        /// The offset to read from.
        from: Offset,
        /// The partition's end.
        end: Offset,
    },
    /// The log is not the one that the caller knows. A retry cannot help; only an operator can mend
    /// it.
    #[error("{0}")]
    AnotherLog(String),
}

impl ReadError {
    /// Whether the log is not what the caller knows of it, so that only an operator can mend it.
    pub fn is_of_another_log(&self) -> bool {
        matches!(self, Self::BeyondEnd { .. } | Self::AnotherLog(_))
    }

    /// Fails if a partition of this end cannot have had the offset before `from`.
    pub fn check_end(
        topic: Topic,
        partition: Partition,
        from: Offset,
        end: Offset,
    ) -> Result<(), Self> {
        if from <= end {
            return Ok(());
        }
        Err(Self::BeyondEnd {
            topic,
            partition,
            from,
            end,
        })
    }
}

/// The event log: topics with a fixed number of partitions, each a sequence of records that are
/// appended and never changed.
///
/// ```text
///    records of one partition, by offset
///    +-----+-----+-----+-----+-----+-----+ - - + - - +
///    |     |     |  2  |  3  |  5  |  6  |  7  |  8  |
///    +-----+-----+-----+-----+-----+-----+ - - + - - +
///    forgotten   ^           ^     ^     ^
///                |           |     |     +-- end: the next record gets this offset or a higher one
///                |           |     +-- the last durable record
///                |           +-- read(from: 4) begins here, at the first record at `from` or later
///                +-- read(from: 0) begins here, after the forgotten records
/// ```
///
/// Offsets begin at 0 or later, rise, and may have gaps. All records below `end` are durable, and
/// only durable records are read.
///
/// # Retries
///
/// Reading changes nothing, so every call but [`EventLog::append`] may be retried at any time.
/// Whether an append may be retried depends on its error: see [`AppendError`].
///
/// # Partitions
///
/// Partitions are numbered from 0 to [`EventLog::partitions`] - 1. For any other one `append` fails
/// with [`AppendError::Stopped`], and `read`, `end` and `offset_at` fail with
/// [`ReadError::Unavailable`].
#[async_trait]
pub trait EventLog: Send + Sync {
    /// The number of partitions of every topic.
    fn partitions(&self) -> u32;

    /// Appends records to one partition, in their order, and returns the offset of the last one.
    /// `records` is not empty.
    ///
    /// ```text
    ///             before: end = 7          after append([a, b]) = Ok(8): end = 9
    ///    ... +-----+-----+                 ... +-----+-----+-----+-----+
    ///        |  5  |  6  |                     |  5  |  6  |  a  |  b  |
    ///    ... +-----+-----+                 ... +-----+-----+-----+-----+
    ///                                                         7     8
    /// ```
    ///
    /// Ok promises that all of the records are durable and that every reader will return them. Other
    /// records may stand between those of one call. When the second of two calls begins after the
    /// first was polled once, and both succeed, the first call's records come first. A call that is
    /// dropped before it returns may still append its records.
    ///
    /// # Errors
    ///
    /// The outcome of [`AppendError::Unknown`] is open; after every other error nothing was appended,
    /// and [`AppendError::Full`] and [`AppendError::Unavailable`] may be retried.
    async fn append(
        &self,
        topic: Topic,
        partition: Partition,
        records: Vec<NewRecord>,
    ) -> Result<Offset, AppendError>;

    /// Opens a reader that begins with the first record at `from` or later. `from` may be negative or
    /// forgotten. At the end, the reader waits for the next record.
    ///
    /// # Errors
    ///
    /// Who names an offset beyond the end knows a record that the log does not have. Such a call fails
    /// with [`ReadError::BeyondEnd`], since waiting would skip the records that come instead.
    async fn read(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, ReadError>;

    /// The partition's end: the next record gets this offset or a higher one, and all records below
    /// it are durable. A partition that never had a record ends at 0.
    ///
    /// Ok promises that the end covers every record that was acknowledged before the call.
    async fn end(&self, topic: Topic, partition: Partition) -> Result<Offset, ReadError>;

    /// The offset of the first record that was appended at `time` or later; the partition's end when
    /// there is none. Where times fall it may be any offset from there to the record after the last
    /// one that was appended before `time`.
    async fn offset_at(
        &self,
        topic: Topic,
        partition: Partition,
        time: TimestampMs,
    ) -> Result<Offset, ReadError>;

    /// Takes the clock that stamps records for right: after an operator has found that times were
    /// ahead, and has set the clock. Records that are appended after this call have its time, though
    /// records before them may have later ones; the first of them makes that durable. A log whose
    /// servers stamp the records needs no such call, and ignores it.
    fn correct_clock(&self);

    /// The partitions that the group assigns to this process, now and as that changes. The first
    /// call joins the group; closing the log leaves it.
    fn assignment(&self, group: Group) -> watch::Receiver<BTreeSet<Partition>>;

    /// Publishes how far the group's work on a partition is, for monitoring: up to `next`, an offset
    /// of [`Topic::PurchaseAttempts`] for deciders and of [`Topic::StockDecisions`] for projectors.
    /// Returns at once. Nothing depends on it, and it may be lost.
    fn note_progress(&self, group: Group, partition: Partition, next: Offset);

    /// Allows the log to drop a partition's records below `before`, which is at most the end. A log
    /// need not drop anything.
    ///
    /// ```text
    ///    +-----+-----+-----+-----+
    ///    |  0  |  1  |  2  |  3  |   forget(before: 2): 0 and 1 may go, 2 and 3 stay
    ///    +-----+-----+-----+-----+
    ///                ^ before    ^ end, which does not change
    /// ```
    async fn forget(
        &self,
        topic: Topic,
        partition: Partition,
        before: Offset,
    ) -> Result<(), ReadError>;
}

/// A reader of one partition.
///
/// ```text
///    +-----+-----+-----+-----+-----+
///    |  0  |  1  |  2  |  3  |  4  |
///    +-----+-----+-----+-----+-----+
///    returned    ^ the next call   ^ end: a reader that has come this far
///                  begins here       waits for the next record
/// ```
#[async_trait]
pub trait LogReader: Send {
    /// The next records, in order, at least one; waits until there is one.
    ///
    /// Ok promises that the records are durable, and that none is missing between those of the call
    /// before and these. A call that is dropped before it returns loses nothing: the next one returns
    /// the same records.
    ///
    /// # Errors
    ///
    /// After [`ReadError::Unavailable`] the same reader may be called again. It fails with that error
    /// for good when records were forgotten that it had yet to return; then open another reader. It
    /// fails with [`ReadError::BeyondEnd`] when the log no longer has records that it returned.
    async fn next(&mut self) -> Result<Vec<LogRecord>, ReadError>;

    /// As [`LogReader::next`], for who reads up to `end`, which is at most the partition's end. Returns
    /// no records when the log has none left below `end`, as when the last ones were deleted;
    /// [`LogReader::next`] would wait for those that are appended later. Provided for logs in which the
    /// last records below an end are never missing.
    async fn next_below(&mut self, _end: Offset) -> Result<Vec<LogRecord>, ReadError> {
        self.next().await
    }
}
