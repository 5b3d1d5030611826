//! How far behind a partition is, for health, metrics and those who watch the group's offsets.

use std::convert::Infallible;

use futures::future::BoxFuture;
use ports::ReadError;
use runtime::health::{Component, REPORT_EVERY};
use schemas::ids::Offset;
use tokio::time::Interval;

use super::PartitionLog;

/// What health shows while appends wait.
const APPENDS_WAIT: &str = "waiting until the log takes records: its append queue is full, or it cannot \
                            be reached; decisions are delayed";

/// Reports a partition's lag at intervals.
pub(super) struct Progress {
    pub(super) interval: Interval,
    /// The request for the end of the commands' topic. Deciding neither waits for it nor depends
    /// on it.
    pub(super) measuring: Option<BoxFuture<'static, Result<Offset, ReadError>>>,
}

impl Progress {
    pub(super) fn new() -> Self {
        Self {
            interval: tokio::time::interval(REPORT_EVERY),
            measuring: None,
        }
    }

    /// Requests the end of the commands' topic.
    pub(super) fn measure(&mut self, log: &PartitionLog) {
        let (log, topic, partition) = (log.log.clone(), log.topics.commands, log.partition);
        self.measuring = Some(Box::pin(async move { log.end(topic, partition).await }));
    }

    /// Reports how many records lie between the last answered one and the end, and returns that if
    /// the log tells. Fails if the log no longer has the last answered one. A complaint about the
    /// log's time is reported with it.
    pub(super) fn report(
        &self,
        log: &PartitionLog,
        component: &Component,
        answered: Offset,
        end: Result<Offset, ReadError>,
        complaint: Option<String>,
    ) -> Result<Option<u64>, ReadError> {
        let lag = match end {
            Ok(end) => {
                let commands = log.topics.commands;
                ReadError::check_end(commands, log.partition, answered.next(), end)?;
                let lag = (end.0 - answered.next().0).max(0) as u64;
                let works = component.progress(answered.0, lag);
                if works && log.waiting.any() {
                    component.degraded(APPENDS_WAIT);
                } else if let (true, Some(complaint)) = (works, complaint) {
                    component.degraded(complaint);
                }
                Some(lag)
            }
            Err(error) => {
                component.failing(error.to_string());
                None
            }
        };
        note(log, answered);
        Ok(lag)
    }
}

/// Reports, for as long as it is polled, that the partition's claim waits until the log takes it.
pub(crate) async fn report_waiting(log: &PartitionLog, component: &Component) -> Infallible {
    let mut interval = tokio::time::interval(REPORT_EVERY);
    loop {
        interval.tick().await;
        if log.waiting.any() {
            component.failing(APPENDS_WAIT);
        }
    }
}

/// Notes the group's progress with the log.
pub(super) fn note(log: &PartitionLog, answered: Offset) {
    log.log
        .note_progress(log.topics.group, log.partition, answered.next());
}
