//! The tasks that feed the live answers: two tails per partition, and one that follows the
//! store's progress.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering, Ordering::Relaxed};
use std::time::Duration;

use ports::read_store::{MAX_PAGE, Progress};
use ports::{LogMark, LogRecord, ReadError, StoreError, log_mark};
use runtime::health::{Component, Health, PROBE_WITHIN, REPORT_EVERY};
use runtime::metrics::{DECISIONS_DROPPED, TAIL_LAG};
use runtime::retry::{self, RETRY_AFTER};
use schemas::codec::DecodeError;
use schemas::decision::DecisionRecord;
use schemas::fence::{Fence, Verdict};
use schemas::ids::{Offset, Partition, TimestampMs, TraceId};
use schemas::topics::Topic;
use schemas::trace::trace_of;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use super::Live;
use super::partition::pending;
use super::queue::Pending;
use super::undecided::Undecided;

/// How long a full queue waits for decisions before it checks again.
const ROOM_AFTER: Duration = Duration::from_millis(20);
/// How often the store's progress is read.
const STORE_EVERY: Duration = Duration::from_millis(25);
/// The most records taken at once, which bounds how long readers wait for a lock.
const MAX_BATCH: usize = 1_000;

/// Why a tail cannot continue. It tries again from the same offset: no record is skipped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum TailError {
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("record {offset} of {topic}, partition {partition}: {error}")]
    Decode {
        topic: Topic,
        partition: Partition,
        offset: Offset,
        error: DecodeError,
    },
}

/// Feeds the live answers until `stop`.
pub async fn run(live: Arc<Live>, health: Health, stop: CancellationToken) {
    let component = health.component("live store");
    let Some(progress) = stop.run_until_cancelled(begin(&live, &component)).await else {
        return;
    };
    let mut tasks = JoinSet::new();
    for partition in (0..live.log.partitions()).map(Partition) {
        let at = progress.get(&partition).copied().unwrap_or(NOTHING_STORED);
        let tail = |topic, component, from| Tail {
            live: live.clone(),
            topic,
            partition,
            stored: at,
            next: from,
            component,
            stop: stop.clone(),
        };
        let component = health.partition("tail", partition, Some(TAIL_LAG));
        let decisions = tail(Topic::StockDecisions, component, at.next);
        let component = health.partition("queue", partition, None);
        let attempts = tail(Topic::PurchaseAttempts, component, at.answered.next());
        let undecided = Undecided::new(live.clone(), partition, health.stalled_after());
        tasks.spawn(follow_decisions(decisions, at));
        tasks.spawn(follow_attempts(attempts, undecided));
    }
    let following = live.clone();
    tasks.spawn(async move {
        stop.run_until_cancelled(follow_store(&following, &component))
            .await;
    });
    live.started.store(true, Ordering::Release);
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            // Its health component reports nothing from here on, and becomes unready.
            error!(%error, "a task of the live answers ended abnormally");
        }
    }
}

/// The progress of a partition of which the store has nothing.
const NOTHING_STORED: Progress = Progress {
    next: Offset(0),
    claim: Offset(-1),
    answered: Offset(-1),
    log: None,
};

/// Loads what the store has. The progress is read first, so that the sales are at least as new;
/// decisions that a sale already includes are skipped by version.
async fn begin(live: &Live, component: &Component) -> BTreeMap<Partition, Progress> {
    let progress = retry::until_ok(component, RETRY_AFTER, || load(live)).await;
    component.working();
    info!(sales = live.sales.len(), "live answers begin");
    progress
}

async fn load(live: &Live) -> Result<BTreeMap<Partition, Progress>, StoreError> {
    let progress = live.store.progress().await?;
    for (partition, at) in (0..).map(Partition).zip(&live.partitions) {
        let stored = progress.get(&partition).copied().unwrap_or(NOTHING_STORED);
        at.start_from(stored);
    }
    let mut after = None;
    loop {
        let page = live.store.sales(after.as_ref(), MAX_PAGE).await?;
        let Some(last) = page.last() else {
            return Ok(progress);
        };
        after = Some(last.product_id.clone());
        live.sales.load(page);
    }
}

/// Follows the store's progress, so that memory can evict what the store has.
async fn follow_store(live: &Live, component: &Component) {
    loop {
        let answer = timeout(PROBE_WITHIN, live.store.progress()).await;
        live.store_answers
            .store(matches!(answer, Ok(Ok(_))), Ordering::Relaxed);
        match answer {
            Ok(Ok(progress)) => {
                for (partition, live) in (0..).map(Partition).zip(&live.partitions) {
                    let at = progress.get(&partition).copied();
                    live.take_stored(at.unwrap_or(NOTHING_STORED));
                }
                component.working();
            }
            // Only what is older than memory has no answer meanwhile.
            Ok(Err(error)) => component.degraded(error.to_string()),
            Err(_) => component.degraded("the read store does not answer"),
        }
        sleep(STORE_EVERY).await;
    }
}

/// A record of `stock-decisions`, the trace of the request that it answers, and its time.
type TimedRecord = (Option<DecisionRecord>, Option<TraceId>, TimestampMs);

/// Tails `stock-decisions`. Only decisions that pass the fence reach the answers.
async fn follow_decisions(tail: Tail, from: Progress) {
    let (live, partition) = (tail.live.clone(), tail.partition);
    let at = &live.partitions[partition.0 as usize];
    let dropped = metrics::counter!(
        DECISIONS_DROPPED,
        "reader" => "query-api", "partition" => partition.to_string()
    );
    let mut fence = Fence {
        claim: from.claim,
        answered: from.answered,
    };
    let decode = |record: &LogRecord| {
        let decoded = live.codec.decode_for_fence(&record.value)?;
        Ok((decoded, trace_of(&record.headers), record.appended_at_ms))
    };
    // The end that the topic had at the start.
    let first_end = AtomicI64::new(i64::MAX);
    let take = |records: Vec<(Offset, TimedRecord)>| {
        let next = records.last().map_or(Offset(0), |(last, _)| last.next());
        let mut accepted = Vec::with_capacity(records.len());
        let mut commands = Vec::new();
        for (offset, (record, trace, at_ms)) in records {
            let Some(record) = record else {
                dropped.increment(1);
                continue;
            };
            match (fence.pass(offset, &record), record) {
                (Verdict::Counts, DecisionRecord::Decision(decision)) => {
                    let command = views::command_row(partition, &decision, trace);
                    commands.extend(command.map(|row| (offset, row)));
                    accepted.push((offset, decision, trace));
                }
                (Verdict::Counts, DecisionRecord::Skipped(skipped)) => {
                    let row = views::skipped_row(partition, &skipped, at_ms, trace);
                    commands.push((offset, row));
                }
                (Verdict::Dropped, _) => dropped.increment(1),
                _ => {}
            }
        }
        at.take_decisions(partition, &accepted, commands, fence.answered);
        live.sales
            .fold(accepted.iter().map(|(_, decision, _)| decision));
        at.answered.advance(fence.answered);
        if next.0 >= first_end.load(Relaxed) {
            at.completeness.caught_up(fence.answered);
        }
    };
    let report = |component: &Component, next: Offset, end: Offset| {
        if next.0 >= end.0.min(first_end.fetch_min(end.0, Relaxed)) {
            at.completeness.caught_up(at.answered.at());
        }
        component.progress(next.0, records_between(next, end));
    };
    tail.follow(decode, || true, report, take).await;
}

/// Tails `purchase-attempts` for the undecided records. A full queue reads on only as its records
/// are decided.
async fn follow_attempts(tail: Tail, mut undecided: Undecided) {
    let live = tail.live.clone();
    let at = &live.partitions[tail.partition.0 as usize];
    let room = (live.settings.max_undecided / live.partitions.len()).max(1);
    // What cannot be decoded does not hide the records behind it. Garbage is no attempt that anybody could
    // look up. Both are queued until they are decided or skipped.
    let decode = |record: &LogRecord| match live.codec.decode_command(&record.value) {
        Ok(command) => Ok(pending(command)),
        Err(error) if error.is_garbage() => Ok(None),
        Err(_) => Ok(Some(Pending::Unreadable)),
    };
    let has_room = || at.queue_len() < room;
    let take = |records: Vec<(Offset, Option<Pending>)>| {
        let Some(next) = records.last().map(|(offset, _)| offset.next()) else {
            return;
        };
        at.take_commands(records);
        at.queued.advance(next);
    };
    let report = |component: &Component, next: Offset, end: Offset| {
        let lag = records_between(next, end);
        match has_room() {
            true => {
                let works = component.progress(next.0, lag);
                if let (Some(waits), true) = (undecided.measure(end), works) {
                    component.degraded(waits);
                }
            }
            false => {
                undecided.measure(end);
                component.blocked(
                    "the queue of undecided attempts is full; is a decider running?",
                    lag,
                );
            }
        }
    };
    tail.follow(decode, has_room, report, take).await;
}

/// One partition of one topic, read from an offset on.
struct Tail {
    live: Arc<Live>,
    topic: Topic,
    partition: Partition,
    /// The store's progress when the answers began. The rows must have been made from this log.
    stored: Progress,
    next: Offset,
    component: Component,
    stop: CancellationToken,
}

impl Tail {
    /// Passes on every record, in order and once, until it is stopped. A failure is reported, and
    /// reading starts again from the same offset; but not over another log than the one that the store
    /// and the records so far are from.
    async fn follow<R>(
        mut self,
        decode: impl Fn(&LogRecord) -> Result<R, DecodeError>,
        has_room: impl Fn() -> bool,
        mut report: impl FnMut(&Component, Offset, Offset),
        mut take: impl FnMut(Vec<(Offset, R)>),
    ) {
        let stop = self.stop.clone();
        let following = async {
            loop {
                let Err(error) = self
                    .read_on(&decode, &has_room, &mut report, &mut take)
                    .await;
                if let TailError::Read(error) = &error
                    && error.is_of_another_log()
                {
                    self.component.broken(error);
                    let at = &self.live.partitions[self.partition.0 as usize];
                    // The other tail may have been first.
                    let _ = at.another_log.set(error.clone());
                    return std::future::pending().await;
                }
                self.component.failed(&error);
                if matches!(error, TailError::Decode { .. }) {
                    // The other partitions are well, and their answers stay ready.
                    self.component.blocked(error.to_string(), 1);
                }
                if self.topic == Topic::StockDecisions {
                    let partition = &self.live.partitions[self.partition.0 as usize];
                    partition.completeness.tail_failed();
                }
                sleep(RETRY_AFTER).await;
            }
        };
        stop.run_until_cancelled(following).await;
    }

    async fn read_on<R>(
        &mut self,
        decode: &impl Fn(&LogRecord) -> Result<R, DecodeError>,
        has_room: &impl Fn() -> bool,
        report: &mut impl FnMut(&Component, Offset, Offset),
        take: &mut impl FnMut(Vec<(Offset, R)>),
    ) -> Result<Infallible, TailError> {
        let (topic, partition, log) = (self.topic, self.partition, &*self.live.log);
        log_mark::check_partitions(log, &self.live.codec, partition, self.stored.claim).await?;
        self.stored = self.stored.checked(log, partition).await?;
        let mut reader = log.read(topic, partition, self.next).await?;
        let mut reported: Option<Instant> = None;
        loop {
            if reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY / 4) {
                let end = self.live.log.end(topic, partition).await?;
                ReadError::check_end(topic, partition, self.next, end)?;
                report(&self.component, self.next, end);
                reported = Some(Instant::now());
            }
            if !has_room() {
                sleep(ROOM_AFTER).await;
                continue;
            }
            let Ok(records) = timeout(REPORT_EVERY / 2, reader.next()).await else {
                continue;
            };
            for batch in records?.chunks(MAX_BATCH) {
                let mut decoded = Vec::with_capacity(batch.len());
                let mut failed = None;
                for record in batch {
                    let offset = record.offset;
                    match decode(record) {
                        Ok(record) => decoded.push((offset, record)),
                        Err(error) => {
                            failed = Some(TailError::Decode {
                                topic,
                                partition,
                                offset,
                                error,
                            });
                            break;
                        }
                    }
                }
                // The records before a damaged one are good.
                if let Some((last, _)) = decoded.last() {
                    self.next = last.next();
                    let read = batch.partition_point(|record| record.offset <= *last);
                    self.remember(&batch[..read]);
                }
                take(decoded);
                if let Some(error) = failed {
                    return Err(error);
                }
            }
        }
    }

    /// Remembers the last record of `stock-decisions` as one that the log has.
    fn remember(&mut self, read: &[LogRecord]) {
        if let (Topic::StockDecisions, [first, ..], Some(last)) = (self.topic, read, read.last()) {
            // A tail without a mark begins with the log's first record.
            let log = self
                .stored
                .log
                .map_or_else(|| first.hash(), |mark| mark.log);
            self.stored.log = Some(LogMark::new(log, last));
        }
    }
}

/// How many records lie between the next offset to read and the end.
fn records_between(next: Offset, end: Offset) -> u64 {
    (end.0 - next.0).max(0) as u64
}
