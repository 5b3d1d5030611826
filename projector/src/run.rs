//! Writes the read models from `stock-decisions`, one task per partition.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering::Relaxed};

use ports::read_store::Progress;
use ports::{EventLog, Group, ReadError, ReadStore, log_mark};
use runtime::health::{Component, Health, REPORT_EVERY};
use runtime::metrics::{PROJECTOR_LAG, ROWS};
use runtime::{partitions, retry};
use schemas::codec::Codec;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use crate::projection::{ProjectError, Projection};

/// In place of the next offset before the store has given its progress.
const UNKNOWN: i64 = -1;
/// The most decisions projected at once.
const MAX_BATCH: usize = 2_000;

/// What a projector works with.
#[derive(Clone)]
pub struct Projector {
    /// The log to read.
    pub log: Arc<dyn EventLog>,
    /// The store to write.
    pub store: Arc<dyn ReadStore>,
    /// The records' codec.
    pub codec: Arc<Codec>,
    /// Where its partitions report their health.
    pub health: Health,
}

/// Projects the partitions assigned to this process until `stop`.
pub async fn run(projector: Projector, stop: CancellationToken) {
    let assigned = projector.log.assignment(Group::Projectors);
    let work = |partition, stop| keep_projecting(projector.clone(), partition, stop);
    partitions::run_each(assigned, stop, work).await;
}

/// Projects one partition, and begins again from the stored progress whenever that fails. Over
/// another log than the one that the rows were made from, it stops until the process ends.
async fn keep_projecting(projector: Projector, partition: Partition, stop: CancellationToken) {
    let health = &projector.health;
    let component = health.partition("projector", partition, Some(PROJECTOR_LAG));
    let next = AtomicI64::new(UNKNOWN);
    tokio::select! {
        () = project_until_stopped(&projector, partition, &component, &next, &stop) => {}
        never = measure_lag(&projector, partition, &component, &next) => match never {},
    }
}

async fn project_until_stopped(
    projector: &Projector,
    partition: Partition,
    component: &Component,
    next: &AtomicI64,
    stop: &CancellationToken,
) {
    let mut stands_at = None;
    loop {
        let projected = tokio::select! {
            result = project(projector, partition, stands_at, component, next) => result,
            () = stop.cancelled() => return,
        };
        let Err(error) = projected;
        if matches!(&error, ProjectError::Read(error) if error.is_of_another_log()) {
            component.broken(&error);
            return stop.cancelled().await;
        }
        component.failed(&error);
        if let ProjectError::Decode { offset, .. } = error {
            stands_at = Some(offset);
            // The other partitions are well, and stay ready.
            component.blocked(error.to_string(), 1);
        }
        if retry::pause_or_stop(stop).await {
            return;
        }
    }
}

/// Measures the lag beside the work, so that it shows whatever the work waits for, such as the store.
async fn measure_lag(
    projector: &Projector,
    partition: Partition,
    component: &Component,
    next: &AtomicI64,
) -> Infallible {
    loop {
        sleep(REPORT_EVERY).await;
        let next = Offset(next.load(Relaxed));
        if next == Offset(UNKNOWN) {
            continue;
        }
        if let Ok(behind) = lag(projector, partition, next).await {
            component.measured(next.0, behind);
        }
    }
}

/// Projects one partition. Records before `stands_at`, which could not be decoded before, are projected
/// by themselves.
async fn project(
    projector: &Projector,
    partition: Partition,
    stands_at: Option<Offset>,
    component: &Component,
    done: &AtomicI64,
) -> Result<Infallible, ProjectError> {
    let progress = checked_progress(projector, partition).await?;
    let mut projection = Projection::new(partition, progress);
    // The count of what this reader drops begins at zero.
    projection.count_dropped(0);
    let next = projection.progress().next;
    debug!(%partition, from = %next, "projecting");
    let mut reader = projector
        .log
        .read(Topic::StockDecisions, partition, next)
        .await?;
    done.store(next.0, Relaxed);
    let behind = lag(projector, partition, next).await?;
    report(projector, partition, next, behind, component);
    let mut reported: Option<Instant> = None;
    loop {
        let Ok(records) = timeout(REPORT_EVERY, reader.next()).await else {
            // Nothing came. The partition is healthy only if there is nothing left to project.
            let next = projection.progress().next;
            if lag(projector, partition, next).await? == 0 {
                report(projector, partition, next, 0, component);
            }
            continue;
        };
        let records = records?;
        let parts = records.chunk_by(|_, next| Some(next.offset) != stands_at);
        for batch in parts.flat_map(|part| part.chunks(MAX_BATCH)) {
            let (codec, store) = (&projector.codec, &*projector.store);
            let rows = projection.rows(codec, store, batch).await?;
            let count = rows.len() as u64;
            let progress = projection.progress();
            projector.store.apply(partition, rows, progress).await?;
            metrics::counter!(ROWS).increment(count);
            done.store(progress.next.0, Relaxed);
            if reported.is_none_or(|at| at.elapsed() >= REPORT_EVERY / 4) {
                let behind = lag(projector, partition, progress.next).await?;
                report(projector, partition, progress.next, behind, component);
                reported = Some(Instant::now());
            }
        }
    }
}

/// How far the store is. Fails if its rows were not made from this log.
async fn checked_progress(
    projector: &Projector,
    partition: Partition,
) -> Result<Option<Progress>, ProjectError> {
    let (log, store) = (&*projector.log, &*projector.store);
    let stored = store.progress().await?.get(&partition).copied();
    let claim = stored.map_or(Offset(-1), |stored| stored.claim);
    log_mark::check_partitions(log, &projector.codec, partition, claim).await?;
    let Some(stored) = stored else {
        return Ok(None);
    };
    let checked = stored.checked(log, partition).await?;
    if checked != stored {
        // An older version wrote the rows. From now on they name their log.
        store.apply(partition, Vec::new(), checked).await?;
    }
    Ok(Some(checked))
}

/// Reports a partition's progress to health and the log's consumer group.
fn report(
    projector: &Projector,
    partition: Partition,
    next: Offset,
    lag: u64,
    component: &Component,
) {
    component.progress(next.0, lag);
    projector
        .log
        .note_progress(Group::Projectors, partition, next);
}

/// How many records of `stock-decisions` are not yet projected.
async fn lag(projector: &Projector, partition: Partition, next: Offset) -> Result<u64, ReadError> {
    let topic = Topic::StockDecisions;
    let end = projector.log.end(topic, partition).await?;
    ReadError::check_end(topic, partition, next, end)?;
    Ok((end.0 - next.0).max(0) as u64)
}
