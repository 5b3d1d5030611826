//! One task for each partition that is assigned to this process.

use std::collections::{BTreeMap, BTreeSet};

use schemas::ids::Partition;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::error;

/// Runs one task of `work` for each assigned partition. A task gets a token of its own, which is
/// cancelled when its partition is no longer assigned or `stop` is cancelled. Returns after
/// `stop` is cancelled and all tasks have ended.
pub async fn run_each<F>(
    mut assigned: watch::Receiver<BTreeSet<Partition>>,
    stop: CancellationToken,
    work: impl Fn(Partition, CancellationToken) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let mut tasks: BTreeMap<Partition, (CancellationToken, JoinHandle<()>)> = BTreeMap::new();
    while !stop.is_cancelled() {
        let now = assigned.borrow_and_update().clone();
        let revoked = tasks.extract_if(.., |partition, _| !now.contains(partition));
        for (_, (stop, task)) in revoked.collect::<Vec<_>>() {
            stop.cancel();
            finish(task).await;
        }
        for partition in now {
            tasks.entry(partition).or_insert_with(|| {
                let stop = stop.child_token();
                (stop.clone(), tokio::spawn(work(partition, stop)))
            });
        }
        tokio::select! {
            // An assignment that can no longer change stays as it is until the stop.
            changed = assigned.changed() => if changed.is_err() { stop.cancelled().await },
            () = stop.cancelled() => {}
        }
    }
    for (_, task) in tasks.into_values() {
        finish(task).await;
    }
}

/// Waits for a task. If it panicked, its health component falls silent and shows that.
async fn finish(task: JoinHandle<()>) {
    if let Err(error) = task.await {
        error!(%error, "a partition's task ended abnormally");
    }
}
