//! Checks a run: its records, its rows and the responses that clients got.
//!
//! The checker calls no code of the services or the domain, with one exception ([`replay`]). It
//! states the rules again, as plainly as possible: which decisions count in `stock-decisions`
//! ([`history`]), what each decision may contain ([`account`]), and which responses are right
//! ([`observations`]).

mod account;
mod history;
mod log_change;
mod observations;
mod replay;

use schemas::codec::Codec;
use schemas::decision::DecisionRecord;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use sha2::{Digest, Sha256};

use self::history::History;
pub use self::log_change::after_log_change;
use crate::plan::GARBAGE;
use crate::shoppers::Observation;
use crate::world::{BEGIN_MS, EndState, Ms};

/// Every violation of the rules.
pub fn check(end: &EndState, observations: &[(Ms, Observation)]) -> Vec<String> {
    let codec = Codec::embedded();
    let mut violations = Vec::new();
    for (topic, partition, last, value) in &end.acknowledged {
        let there = end.records[&(*topic, *partition)].get(last.0 as usize);
        if there.is_none_or(|record| record.value != *value) {
            violations.push(format!(
                "an append to {topic}, partition {partition}, was acknowledged with offset {last}, \
                 which does not hold it"
            ));
        }
    }
    violations.extend(damaged(&codec, end));
    match History::read(&codec, end) {
        Ok(history) => {
            violations.extend(history.violations.iter().cloned());
            violations.extend(idle(&history, end));
            violations.extend(observations::check(&history, end, observations));
            violations.extend(replay::check(&codec, &history, end));
        }
        Err(why) => violations.push(why),
    }
    violations
}

/// The records that cannot be decoded, though the plan has not appended them.
fn damaged(codec: &Codec, end: &EndState) -> Vec<String> {
    let mut violations = Vec::new();
    for ((topic, partition), records) in &end.records {
        let is_damaged = |record: &&ports::LogRecord| {
            let value = &record.value;
            let cannot_be_decoded = match topic {
                Topic::PurchaseAttempts => codec.decode_command(value).is_err(),
                Topic::StockDecisions => codec.decode_decision(value).is_err(),
                Topic::ProductSnapshots => codec.decode_snapshot(value).is_err(),
            };
            cannot_be_decoded && !GARBAGE.contains(&&**value)
        };
        let damaged = records.iter().filter(is_damaged);
        violations.extend(damaged.map(|record| {
            let offset = record.offset;
            format!(
                "record {offset} of {topic}, partition {partition}, cannot be decoded, and nobody has \
                 sent it like that"
            )
        }));
    }
    violations
}

/// The partitions that were claimed more than once, in a run that gives no reason for that.
pub fn claimed_twice(end: &EndState) -> Vec<String> {
    let codec = Codec::embedded();
    let is_claim = |record: &&ports::LogRecord| {
        let decoded = codec.decode_decision(&record.value);
        matches!(decoded, Ok(DecisionRecord::Claim(_)))
    };
    let claims = (0..end.partitions).map(|partition| {
        let records = &end.records[&(LOGS.1, Partition(partition))];
        (partition, records.iter().filter(is_claim).count())
    });
    let claimed_twice = claims.filter(|(_, claims)| *claims > 1);
    claimed_twice
        .map(|(partition, claims)| {
            format!(
                "partition {partition} was claimed {claims} times, though nothing failed, and only \
                 append queues were full or records could not be decoded"
            )
        })
        .collect()
}

/// The records of an embedded log that were stamped by a clock that had jumped. Runs take minutes, and
/// small steps of the clock add up to less than one, so that any other time is a jump's.
pub fn stamped_jumps(end: &EndState) -> Vec<String> {
    const LONGEST_RUN_MS: i64 = 5 * 60_000;
    let right = BEGIN_MS - 60_000..BEGIN_MS + LONGEST_RUN_MS;
    let mut violations = Vec::new();
    for ((topic, partition), records) in &end.records {
        let jumped = |record: &&ports::LogRecord| !right.contains(&record.appended_at_ms);
        if let Some(record) = records.iter().find(jumped) {
            let (offset, ms) = (record.offset, record.appended_at_ms - BEGIN_MS);
            violations.push(format!(
                "record {offset} of {topic}, partition {partition}, was stamped {ms} ms after the \
                 begin, by a clock that had jumped"
            ));
        }
    }
    violations
}

/// SHA-256 of every record, row and response, in their order.
pub fn digest(end: &EndState, observations: &[(Ms, Observation)]) -> String {
    let mut hash = Sha256::new();
    for ((topic, partition), records) in &end.records {
        // Topics that only the services read, such as checkpoints, are part of it.
        hash.update(format!("{topic} {partition}"));
        for record in records {
            hash.update(record.appended_at_ms.to_be_bytes());
            hash.update(&record.key);
            hash.update(&record.value);
        }
    }
    hash.update(format!(
        "{:?} {:?} {observations:?}",
        end.rows, end.progress
    ));
    let digest = hash.finalize();
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Units that are idle at the end: their hold has expired, and no decision releases them.
fn idle(history: &History, end: &EndState) -> Vec<String> {
    const LATE_MS: i64 = 2_500;
    let products = history.products.iter().filter(|_| !end.settled.is_empty());
    let idle = products.filter_map(|(product, account)| {
        let late_ms = end.log_now_ms - account.idle_since()?;
        let text = format!(
            "a hold of {product} expired {late_ms} ms before the end, and was not released"
        );
        (late_ms > LATE_MS).then_some(text)
    });
    idle.collect()
}

impl EndState {
    /// Whether the store has rows of decisions that the partition no longer has.
    pub(crate) fn lacks_projected(&self, partition: Partition) -> bool {
        let end = Offset(self.records[&(LOGS.1, partition)].len() as i64);
        let progress = self.progress.get(&partition);
        progress.is_some_and(|progress| progress.next > end)
    }

    /// Whether a decision was in the log when the last reads started.
    fn is_settled(&self, partition: u32, at: Offset) -> bool {
        self.settled
            .get(&(LOGS.1, Partition(partition)))
            .is_some_and(|end| at < *end)
    }
}

/// The topics that the history is read from: commands and decisions.
const LOGS: (Topic, Topic) = (Topic::PurchaseAttempts, Topic::StockDecisions);
