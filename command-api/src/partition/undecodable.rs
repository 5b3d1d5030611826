//! Records of the commands that cannot be decoded: those that were skipped, and one at which the
//! partition stands.

use std::time::Duration;

use ports::LogRecord;
use runtime::health::Component;
use runtime::metrics::RECORDS_SKIPPED;
use schemas::codec::DecodeError;
use schemas::decision::{DecisionRecord, MAX_SKIP_REASON_BYTES, Skipped};
use schemas::fence::DecisionLink;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use tokio::time::Instant;
use tracing::{error, warn};

/// The pause before a record that a newer version may have written is decoded again; twice as long
/// each further time.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The longest such pause. Nothing is appended for a retry.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(10);

/// What a partition's decider did with records that it cannot decode.
#[derive(Default)]
pub(super) struct Undecodable {
    skipped: u64,
    /// The last record that was skipped, and why.
    last: String,
    held: Option<Held>,
}

/// A record that must not be skipped, and those after it.
struct Held {
    records: Vec<LogRecord>,
    why: String,
    pause: Duration,
    retry_at: Instant,
}

impl Undecodable {
    /// The answer to a record that no version of the program can decode.
    pub(super) fn skip(
        &mut self,
        topic: Topic,
        partition: Partition,
        link: DecisionLink,
        error: &DecodeError,
    ) -> DecisionRecord {
        metrics::counter!(RECORDS_SKIPPED, "partition" => partition.to_string()).increment(1);
        let offset = link.answers;
        // One line, however many follow: the metric has their number, and the log each of them.
        if self.skipped == 0 {
            warn!(%partition, %offset, %topic, %error, "skipped a record that cannot be decoded; further ones are only counted");
        }
        self.skipped += 1;
        self.last = format!("record {offset} of {topic}, partition {partition}: {error}");
        DecisionRecord::Skipped(Skipped {
            claim: link.claim,
            answers: link.answers,
            follows: link.follows,
            reason: limited(error.to_string()).into(),
            by: None,
        })
    }

    /// Keeps records, the first of which cannot be decoded now and must not be skipped.
    pub(super) fn hold(
        &mut self,
        topic: Topic,
        partition: Partition,
        records: Vec<LogRecord>,
        error: &DecodeError,
    ) {
        let offset = records.first().map_or(Offset(-1), |record| record.offset);
        let why = stands_at(topic, partition, offset, error);
        let before = self.held.take().filter(|held| held.why == why);
        let pause = match before {
            Some(held) => (2 * held.pause).min(MAX_RETRY_AFTER),
            None => {
                error!(%partition, %offset, "{why}");
                RETRY_AFTER
            }
        };
        self.held = Some(Held {
            records,
            why,
            pause,
            retry_at: Instant::now() + pause,
        });
    }

    /// The record at which the partition stands, unless it is being decoded again.
    fn standing(&self) -> Option<&Held> {
        self.held.as_ref().filter(|held| !held.records.is_empty())
    }

    /// Whether the partition stands at a record.
    pub(super) fn holds(&self) -> bool {
        self.standing().is_some()
    }

    /// When the records kept are to be decoded again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.standing().map(|held| held.retry_at)
    }

    /// The records to decode again. They are held again if that fails.
    pub(super) fn take(&mut self) -> Vec<LogRecord> {
        let held = self.held.as_mut();
        held.map_or(vec![], |held| std::mem::take(&mut held.records))
    }

    /// Reports to health what could not be decoded, if anything. `lag` is how many records are not
    /// decided.
    pub(super) fn report(&self, component: &Component, lag: u64) {
        if let Some(held) = self.standing() {
            component.blocked(held.why.clone(), lag);
        } else if self.skipped > 0 {
            let (skipped, last) = (self.skipped, &self.last);
            component.degraded(format!(
                "skipped {skipped} records that cannot be decoded, the last of them {last}"
            ));
        }
    }
}

/// What health and log show while a partition stands at a record, and how it is got past.
pub(crate) fn stands_at(
    topic: Topic,
    partition: Partition,
    offset: Offset,
    why: &dyn std::fmt::Display,
) -> String {
    let way_out = match topic {
        Topic::PurchaseAttempts => format!(
            ". If the record is to be given up: doorbuster skip --partition {partition} --offset \
             {offset} --reason TEXT"
        ),
        _ => String::new(),
    };
    format!(
        "the partition stands at record {offset} of {topic}, partition {partition}, and other \
         partitions continue: {why}{way_out}"
    )
}

/// The text, cut to what a skipped record takes.
fn limited(mut text: String) -> String {
    if text.len() > MAX_SKIP_REASON_BYTES {
        text.truncate(text.floor_char_boundary(MAX_SKIP_REASON_BYTES));
    }
    text
}
