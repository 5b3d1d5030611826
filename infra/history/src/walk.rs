//! Both topics of a partition side by side.

use ports::{EventLog, LogRecord, ReadError};
use schemas::codec::{Codec, DecodeError};
use schemas::command::Command;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

use crate::{Decisions, FencedRecord, HistoryError, Records};

/// Where both topics of a partition ended when a walk began.
#[derive(Debug, Clone, Copy)]
pub struct PartitionEnd {
    /// The end of `stock-decisions`.
    pub decisions: Offset,
    /// The end of `purchase-attempts`.
    pub attempts: Offset,
}

/// A walk over a partition from its beginning.
pub struct History<'a> {
    codec: &'a Codec,
    decisions: Decisions<'a>,
    attempts: Records,
    /// The next record of `purchase-attempts`, if it was read already.
    read_ahead: Option<CommandRecord>,
}

/// A record of `stock-decisions` and what stands beside it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The record of `stock-decisions`.
    pub fenced: FencedRecord,
    /// Beside a decision that counts, the first record of `purchase-attempts` that no earlier
    /// decision answers; in a sound history this is the record at the offset that the decision
    /// answers. Beside a skipped record that counts the same, unless it is a later one: the record
    /// that was skipped may have been deleted since. `None` at the end of the topic, and beside any
    /// other record.
    pub command: Option<CommandRecord>,
}

/// A record of `purchase-attempts`.
#[derive(Debug, Clone)]
pub struct CommandRecord {
    /// The record as the log has it.
    pub record: LogRecord,
    /// The command in it, or why it cannot be decoded.
    pub command: Result<Command, DecodeError>,
}

impl PartitionEnd {
    /// The ends as they are now. `stock-decisions` is asked first, so that every record that a
    /// decision before its end answers stands before the end of `purchase-attempts`.
    pub async fn find(log: &dyn EventLog, partition: Partition) -> Result<Self, ReadError> {
        Ok(Self {
            decisions: log.end(Topic::StockDecisions, partition).await?,
            attempts: log.end(Topic::PurchaseAttempts, partition).await?,
        })
    }
}

impl<'a> History<'a> {
    /// Walks the partition up to `end`.
    pub async fn open(
        log: &dyn EventLog,
        codec: &'a Codec,
        partition: Partition,
        end: PartitionEnd,
    ) -> Result<Self, ReadError> {
        let attempts = Records::open(log, Topic::PurchaseAttempts, partition, end.attempts);
        Ok(Self {
            codec,
            decisions: Decisions::open(log, codec, partition, end.decisions).await?,
            attempts: attempts.await?,
            read_ahead: None,
        })
    }

    /// The next record of `stock-decisions`; `None` at the end.
    pub async fn next(&mut self) -> Result<Option<Entry>, HistoryError> {
        let Some(fenced) = self.decisions.next().await? else {
            return Ok(None);
        };
        let mut command = None;
        if fenced.counting().is_some() {
            command = self.next_command().await?;
        } else if let Some(skipped) = fenced.skipped() {
            match self.next_command().await? {
                Some(next) if next.record.offset > skipped.answers => self.read_ahead = Some(next),
                next => command = next,
            }
        }
        Ok(Some(Entry { fenced, command }))
    }

    /// The next record of `purchase-attempts` that no decision so far answers; `None` at the
    /// end. After the last entry these are the records that are not decided yet.
    pub async fn next_command(&mut self) -> Result<Option<CommandRecord>, ReadError> {
        if let Some(next) = self.read_ahead.take() {
            return Ok(Some(next));
        }
        let record = self.attempts.next().await?;
        Ok(record.map(|record| CommandRecord {
            command: self.codec.decode_command(&record.value),
            record,
        }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use kit::MemoryLog;
    use ports::NewRecord;
    use ports::clock::SystemClock;
    use schemas::command::CommandBody;
    use schemas::decision::{Claim, Decision, DecisionRecord, Skipped, Stock, Tally};
    use schemas::fence::Verdict;
    use schemas::ids::ChainHash;

    use super::*;

    const PARTITION: Partition = Partition(0);

    fn append(log: &MemoryLog, topic: Topic, value: Vec<u8>) {
        let record = NewRecord {
            value: value.into(),
            ..NewRecord::default()
        };
        log.put(topic, PARTITION, vec![record]);
    }

    fn decision(claim: i64, follows: i64, answers: i64) -> DecisionRecord {
        DecisionRecord::Decision(Decision {
            claim: Offset(claim),
            answers: Offset(answers),
            follows: Offset(follows),
            product_id: "p".parse().unwrap(),
            version: 1,
            decided_at_ms: 0,
            events: vec![],
            stock: Stock::default(),
            tally: Tally::default(),
            command: None,
            chain: ChainHash::default(),
        })
    }

    /// A log with these decisions and three commands.
    fn log(codec: &Codec, decisions: &[DecisionRecord]) -> MemoryLog {
        let log = MemoryLog::new(1, Arc::new(SystemClock));
        for product in ["a", "b", "c"] {
            let command = Command {
                product_id: product.parse().unwrap(),
                body: CommandBody::TimeAdvanced,
                if_version: None,
            };
            append(&log, Topic::PurchaseAttempts, codec.encode_command(command));
        }
        for decision in decisions {
            let value = codec.encode_decision(decision.clone());
            append(&log, Topic::StockDecisions, value);
        }
        log
    }

    fn claim() -> DecisionRecord {
        DecisionRecord::Claim(Claim {
            decider: "test".into(),
            partitions: None,
        })
    }

    #[tokio::test]
    async fn each_decision_that_counts_stands_beside_its_command() {
        let codec = Codec::embedded();
        let decisions = [
            claim(),
            decision(0, -1, 0),
            decision(0, -1, 0), // The same write arrived twice.
            decision(0, 0, 1),
        ];
        let log = log(&codec, &decisions);
        let end = PartitionEnd::find(&log, PARTITION).await.unwrap();
        // What comes after the walk began is not part of it.
        let late = codec.encode_decision(decision(0, 1, 2));
        append(&log, Topic::StockDecisions, late);

        let mut history = History::open(&log, &codec, PARTITION, end).await.unwrap();
        let mut walked = Vec::new();
        while let Some(entry) = history.next().await.unwrap() {
            let command = entry.command.map(|it| it.command.unwrap().product_id);
            walked.push((entry.fenced.verdict, command));
        }
        let product = |id: &str| Some(id.parse().unwrap());
        let expected = [
            (Verdict::Claimed, None),
            (Verdict::Counts, product("a")),
            (Verdict::Dropped, None),
            (Verdict::Counts, product("b")),
        ];
        assert_eq!(walked, expected);
        let undecided = history.next_command().await.unwrap().unwrap();
        assert_eq!(undecided.record.offset, Offset(2));
        assert!(history.next_command().await.unwrap().is_none());
    }

    fn skipped(follows: i64, answers: i64) -> DecisionRecord {
        DecisionRecord::Skipped(Skipped {
            claim: Offset(0),
            answers: Offset(answers),
            follows: Offset(follows),
            reason: "garbage".into(),
            by: None,
        })
    }

    #[tokio::test]
    async fn a_skipped_record_stands_beside_its_command_which_may_be_deleted() {
        let codec = Codec::embedded();
        let decisions = [claim(), skipped(-1, 0), skipped(0, 1), decision(0, 1, 2)];
        let log = log(&codec, &decisions);
        append(&log, Topic::StockDecisions, b"garbage".to_vec());
        for deleted in [None, Some(0), Some(1)] {
            if let Some(deleted) = deleted {
                log.delete(Topic::PurchaseAttempts, PARTITION, Offset(deleted));
            }
            let end = PartitionEnd::find(&log, PARTITION).await.unwrap();
            let mut history = History::open(&log, &codec, PARTITION, end).await.unwrap();
            let mut walked = Vec::new();
            while let Some(entry) = history.next().await.unwrap() {
                let command = entry.command.map(|it| it.record.offset.0);
                walked.push((entry.fenced.verdict, command));
            }
            let beside = |offset| Some(offset).filter(|_| deleted.is_none_or(|it| it < offset));
            let expected = [
                (Verdict::Claimed, None),
                (Verdict::Counts, beside(0)),
                (Verdict::Counts, beside(1)),
                (Verdict::Counts, Some(2)),
                (Verdict::Dropped, None),
            ];
            assert_eq!(walked, expected, "deleted {deleted:?}");
            assert!(history.next_command().await.unwrap().is_none());
        }
    }

    /// No record comes after them, for which a reader could wait.
    #[tokio::test]
    async fn a_walk_ends_also_when_the_last_records_were_deleted() {
        let codec = Codec::embedded();
        let decisions = [
            claim(),
            decision(0, -1, 0),
            decision(0, 0, 1),
            decision(0, 1, 2),
        ];
        let log = log(&codec, &decisions);
        for deleted in [2, 1, 0] {
            log.delete(Topic::PurchaseAttempts, PARTITION, Offset(deleted));
            let end = PartitionEnd::find(&log, PARTITION).await.unwrap();
            let mut history = History::open(&log, &codec, PARTITION, end).await.unwrap();
            let mut beside = Vec::new();
            while let Some(entry) = history.next().await.unwrap() {
                beside.push(entry.command.map(|it| it.record.offset.0));
            }
            let expected = [0, 1, 2].map(|offset| Some(offset).filter(|it| *it < deleted));
            assert_eq!(beside[1..], expected);
            assert!(history.next_command().await.unwrap().is_none());
        }
    }

    #[tokio::test]
    async fn a_record_of_a_newer_version_is_named() {
        let codec = Codec::embedded();
        let log = log(&codec, &[claim()]);
        let newer = Bytes::from_static(&[0, 0, 0, 0, 99, 1]);
        append(&log, Topic::StockDecisions, newer.into());
        let end = PartitionEnd::find(&log, PARTITION).await.unwrap();
        let mut history = History::open(&log, &codec, PARTITION, end).await.unwrap();
        assert!(history.next().await.unwrap().is_some());
        let error = history.next().await.unwrap_err().to_string();
        assert!(
            error.starts_with("stock-decisions, partition 0, offset 1: schema 99"),
            "{error}"
        );
    }
}
