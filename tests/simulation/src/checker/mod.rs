//! What must hold of a run, asked of the records, the rows and what clients were told.
//!
//! Nothing of the services or the core is called to find out, with one exception that says so
//! ([`again`]). The rules are written down here anew, as plainly as they can be: what counts in
//! log 2 ([`history`]), what each decision may say ([`account`]), what people may be told
//! ([`told`]).

mod account;
mod again;
mod history;
mod told;

use schemas::codec::Codec;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use sha2::{Digest, Sha256};

use self::history::History;
use crate::shoppers::Told;
use crate::world::{EndState, Ms};

/// Everything that does not hold.
pub fn check(end: &EndState, told: &[(Ms, Told)]) -> Vec<String> {
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
    match History::read(&codec, end) {
        Ok(history) => {
            violations.extend(history.violations.iter().cloned());
            violations.extend(idle(&history, end));
            violations.extend(told::check(&history, end, told));
            violations.extend(again::check(&codec, &history, end));
        }
        Err(why) => violations.push(why),
    }
    violations
}

/// SHA-256 of everything that was appended, stored and told, in its order.
pub fn digest(end: &EndState, told: &[(Ms, Told)]) -> String {
    let mut hash = Sha256::new();
    for ((topic, partition), records) in &end.records {
        // What is the log's own business, checkpoints, is part of it, too.
        hash.update(format!("{topic} {partition}"));
        for record in records {
            hash.update(record.appended_at_ms.to_be_bytes());
            hash.update(&record.key);
            hash.update(&record.value);
        }
    }
    hash.update(format!("{:?} {:?} {told:?}", end.rows, end.progress));
    let digest = hash.finalize();
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// Units that lie idle in the end: their hold ran out, and time does not let them go.
fn idle(history: &History, end: &EndState) -> Vec<String> {
    const LATE_MS: i64 = 2_500;
    let products = history.products.iter().filter(|_| !end.settled.is_empty());
    let idle = products.filter_map(|(product, account)| {
        let late_ms = end.log_now_ms - account.idle_since()?;
        let text = format!("a hold of {product} ran out {late_ms} ms before the end, and stands");
        (late_ms > LATE_MS).then_some(text)
    });
    idle.collect()
}

impl EndState {
    /// Whether a decision was there when people began to ask for the last time.
    fn has_settled(&self, partition: u32, at: Offset) -> bool {
        self.settled
            .get(&(LOGS.1, Partition(partition)))
            .is_some_and(|end| at < *end)
    }
}

/// The topics that the history is in.
const LOGS: (Topic, Topic) = (Topic::PurchaseAttempts, Topic::StockDecisions);
