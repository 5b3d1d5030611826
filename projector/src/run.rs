//! From log 2 to the read store, one task a partition.

use std::sync::Arc;
use std::time::Duration;

use ports::read_store::Progress;
use ports::{EventLog, Group, ReadStore};
use runtime::health::{Component, Health, REPORT_EVERY};
use runtime::metrics::{PROJECTOR_LAG, ROWS};
use runtime::partitions;
use schemas::codec::Codec;
use schemas::ids::Partition;
use schemas::topics::Topic;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use crate::projection::{ProjectError, Projection};

/// How long a failed partition rests before it is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The most decisions written in one go.
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
    /// Where its partitions report.
    pub health: Health,
}

/// Projects the partitions assigned to this process until `stop`.
pub async fn run(projector: Projector, stop: CancellationToken) {
    let assigned = projector.log.assignment(Group::Projectors);
    let work = |partition, stop| keep_projecting(projector.clone(), partition, stop);
    partitions::run_each(assigned, stop, work).await;
}

/// Projects one partition, and begins again from the stored progress whenever that fails.
async fn keep_projecting(projector: Projector, partition: Partition, stop: CancellationToken) {
    let component = projector.health.component(format!("projector {partition}"));
    loop {
        let failed = tokio::select! {
            result = project(&projector, partition, &component) => result.err(),
            () = stop.cancelled() => return,
        };
        if let Some(error) = failed {
            error!(%partition, %error, "projection failed; it goes on from its progress");
            component.failing(error.to_string());
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_AFTER) => {}
            () = stop.cancelled() => return,
        }
    }
}

async fn project(
    projector: &Projector,
    partition: Partition,
    component: &Component,
) -> Result<(), ProjectError> {
    let progress = projector.store.progress().await?.get(&partition).copied();
    let mut projection = Projection::new(partition, progress);
    let next = projection.progress().next;
    debug!(%partition, from = %next, "projecting");
    let mut reader = projector
        .log
        .read(Topic::StockDecisions, partition, next)
        .await?;
    let label = [("partition", partition.to_string())];
    loop {
        let Ok(records) = tokio::time::timeout(REPORT_EVERY, reader.next()).await else {
            // Nothing came. That is well only if there was nothing to come.
            if lag(projector, partition, projection.progress()).await? == 0 {
                component.working(0);
            }
            continue;
        };
        let records = records?;
        for batch in records.chunks(MAX_BATCH) {
            let (codec, store) = (&projector.codec, &*projector.store);
            let rows = projection.rows(codec, store, batch).await?;
            let count = rows.len() as u64;
            let progress = projection.progress();
            projector.store.apply(partition, rows, progress).await?;
            metrics::counter!(ROWS).increment(count);
            let lag = lag(projector, partition, progress).await?;
            metrics::gauge!(PROJECTOR_LAG, &label).set(lag as f64);
            component.working(lag);
        }
    }
}

/// How many records of log 2 are still to be projected.
async fn lag(
    projector: &Projector,
    partition: Partition,
    progress: Progress,
) -> Result<u64, ProjectError> {
    let end = projector.log.end(Topic::StockDecisions, partition).await?;
    Ok((end.0 - progress.next.0).max(0) as u64)
}
