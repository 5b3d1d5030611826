//! Which log something was made from, and whether a log is that one.
//!
//! A log has no name of its own that could not be copied, restored or given again. Its records have
//! their append times, so no two logs have a record in common: the hash of a record shows which log
//! has it. The hash of the first record of `stock-decisions` is the identity of a partition; it is
//! the same on every engine, and the record is never dropped. The hash of a later record shows that
//! the log has not been restored to an earlier state and continued differently since.

use schemas::codec::Codec;
use schemas::decision::DecisionRecord;
use schemas::ids::{Offset, Partition, RecordHash};
use schemas::topics::Topic;
use serde::{Deserialize, Serialize};

use crate::{EventLog, LogRecord, ReadError};

/// What to do about a log that is another one than this process has worked with.
pub const REPLACED: &str =
    "it was replaced while the service ran; stop the services and restore the log";

/// Names the log that something was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogMark {
    /// The identity of the partition: the hash of the first record of `stock-decisions`.
    pub log: RecordHash,
    /// The offset of the last record of `stock-decisions` that it was made from.
    pub offset: Offset,
    /// The hash of that record.
    pub record: RecordHash,
}

impl LogMark {
    /// The mark of what was made from the records up to `last`, in the log of this identity.
    pub fn new(log: RecordHash, last: &LogRecord) -> Self {
        Self {
            log,
            offset: last.offset,
            record: last.hash(),
        }
    }
}

impl LogRecord {
    /// The record's hash.
    pub fn hash(&self) -> RecordHash {
        RecordHash::of(self.offset, self.appended_at_ms, &self.value)
    }
}

/// The identity of a partition; none as long as it has no decisions.
pub async fn identity(
    log: &dyn EventLog,
    partition: Partition,
) -> Result<Option<RecordHash>, ReadError> {
    let first = first_record(log, partition).await?;
    Ok(first.map(|first| first.hash()))
}

/// The first record of `stock-decisions` in a partition; none as long as there is none.
pub async fn first_record(
    log: &dyn EventLog,
    partition: Partition,
) -> Result<Option<LogRecord>, ReadError> {
    record_at(log, partition, Offset(0)).await
}

/// The first record of `stock-decisions` at this offset or later; none when there is none yet.
pub(crate) async fn record_at(
    log: &dyn EventLog,
    partition: Partition,
    offset: Offset,
) -> Result<Option<LogRecord>, ReadError> {
    let topic = Topic::StockDecisions;
    let end = log.end(topic, partition).await?;
    if end <= offset {
        return Ok(None);
    }
    let mut reader = log.read(topic, partition, offset).await?;
    Ok(reader.next_below(end).await?.into_iter().next())
}

/// Compares a log with the identity that a partition is known to have; `found` is none if the
/// partition has no records.
///
/// # Errors
///
/// [`ReadError::AnotherLog`] names both logs; `what` says what is of the known one, `remedy` is what an operator
/// can do.
pub fn check_identity(
    partition: Partition,
    what: &str,
    known: RecordHash,
    found: Option<RecordHash>,
    remedy: &str,
) -> Result<(), ReadError> {
    if found == Some(known) {
        return Ok(());
    }
    let found = match found {
        Some(found) => format!("this is log {found:.16}"),
        None => "this log is empty".to_owned(),
    };
    Err(ReadError::AnotherLog(format!(
        "partition {partition}: {what} of log {known:.16}, but {found}; {remedy}"
    )))
}

/// Checks that the log's topics have as many partitions as when the log began, since the number
/// determines each product's partition. The claims of deciders have it: the first one of this
/// partition and of partition 0, which a partition that was added later does not have, and the one
/// at `claim`, since the first claims of an older log are without it.
///
/// # Errors
///
/// [`ReadError::AnotherLog`] if a claim has another number.
pub async fn check_partitions(
    log: &dyn EventLog,
    codec: &Codec,
    partition: Partition,
    claim: Offset,
) -> Result<(), ReadError> {
    let count = log.partitions();
    for (of, at) in [
        (Partition(0), Offset(0)),
        (partition, Offset(0)),
        (partition, claim.max(Offset(0))),
    ] {
        let Some(record) = record_at(log, of, at).await? else {
            continue;
        };
        // A record that cannot be decoded is reported by who reads all of them.
        if let Ok(DecisionRecord::Claim(claim)) = codec.decode_decision(&record.value)
            && let Some(begun) = claim.partitions
            && begun != count
        {
            return Err(ReadError::AnotherLog(format!(
                "the log was begun with {begun} partitions, as record {} of {}, partition {of}, \
                 shows, but its topics have {count} now. The number determines each product's \
                 partition, so a product would be sold a second time in another one; stop the \
                 services and restore topics with {begun} partitions",
                record.offset,
                Topic::StockDecisions
            )));
        }
    }
    Ok(())
}
