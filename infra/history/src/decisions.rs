//! The records of `stock-decisions`, each with the fence's verdict.

use ports::{EventLog, LogRecord, ReadError};
use schemas::codec::Codec;
use schemas::decision::{Decision, DecisionRecord, Skipped};
use schemas::fence::{Fence, Verdict};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

use crate::{HistoryError, Records};

/// Reads a partition of `stock-decisions` from its beginning and passes every record through
/// the fence.
pub struct Decisions<'a> {
    codec: &'a Codec,
    partition: Partition,
    records: Records,
    fence: Fence,
}

/// A record of `stock-decisions`, decoded.
#[derive(Debug, Clone)]
pub struct FencedRecord {
    /// The record as the log has it.
    pub record: LogRecord,
    /// The claim, decision or skipped record in it; none if it is garbage, which never counts.
    pub content: Option<DecisionRecord>,
    /// What the fence makes of it.
    pub verdict: Verdict,
}

impl<'a> Decisions<'a> {
    /// Reads up to but not including `end`, which must not be beyond the topic's own end.
    pub async fn open(
        log: &dyn EventLog,
        codec: &'a Codec,
        partition: Partition,
        end: Offset,
    ) -> Result<Self, ReadError> {
        Ok(Self {
            codec,
            partition,
            records: Records::open(log, Topic::StockDecisions, partition, end).await?,
            fence: Fence::default(),
        })
    }

    /// The fence after the records read so far.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// The next record; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<FencedRecord>, HistoryError> {
        let Some(record) = self.records.next().await? else {
            return Ok(None);
        };
        let content = self
            .codec
            .decode_for_fence(&record.value)
            .map_err(|error| HistoryError::Undecodable {
                partition: self.partition,
                offset: record.offset,
                error,
            })?;
        let verdict = content.as_ref().map_or(Verdict::Dropped, |content| {
            self.fence.pass(record.offset, content)
        });
        Ok(Some(FencedRecord {
            record,
            content,
            verdict,
        }))
    }
}

impl FencedRecord {
    /// The decision, if the record is one that counts.
    pub fn counting(&self) -> Option<&Decision> {
        match (&self.content, self.verdict) {
            (Some(DecisionRecord::Decision(decision)), Verdict::Counts) => Some(decision),
            _ => None,
        }
    }

    /// The skipped record, if it is one that counts.
    pub fn skipped(&self) -> Option<&Skipped> {
        match (&self.content, self.verdict) {
            (Some(DecisionRecord::Skipped(skipped)), Verdict::Counts) => Some(skipped),
            _ => None,
        }
    }
}
