//! One task for each partition that is assigned to this process.

use std::collections::{BTreeMap, BTreeSet};

use schemas::ids::Partition;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Runs `work` once for each assigned partition, for as long as it is assigned and `stop` is
/// not cancelled. Each gets a token of its own that says when it must end; this function waits
/// until it has.
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
        let gone = tasks.extract_if(.., |partition, _| !now.contains(partition));
        for (_, (stop, task)) in gone.collect::<Vec<_>>() {
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
            // When the assignment can change no more, only the end is left to wait for.
            changed = assigned.changed() => if changed.is_err() { stop.cancelled().await },
            () = stop.cancelled() => {}
        }
    }
    for (_, task) in tasks.into_values() {
        finish(task).await;
    }
}

/// A task that panicked shows in its health component's silence; here it has merely ended.
async fn finish(task: JoinHandle<()>) {
    if let Err(error) = task.await {
        tracing::error!(%error, "a partition's task ended abnormally");
    }
}
