//! Projectors that are killed, and projectors that write the same partition at once.

use futures::future::join_all;
use ports::{EventLog, ReadStore};
use projector::projection::Projection;
use runtime::settings::Service::{CommandApi, Decider, Projector, QueryApi};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

use crate::cluster::{CROWD, Cluster, PARTITIONS, Process, eventually, share};

const ROWS: &str = "doorbuster_projector_rows_total";
/// How many decisions the late projector writes at once: few, so that writes interleave.
const LATE_BATCH: usize = 50;

#[tokio::test(flavor = "multi_thread")]
async fn read_models_catch_up_after_the_projector_was_killed() {
    let cluster = Cluster::new().await;
    let [command_api, query_api, _decider, mut projector] = cluster
        .ready([CommandApi, QueryApi, Decider, Projector])
        .await;
    let mut rehearsal = cluster.rehearse(&command_api, &query_api, &CROWD);
    writes(&projector).await;
    projector.kill();
    assert!(rehearsal.goes_on(), "the load was over before the kill");
    projector.start_again();
    projector.becomes_ready().await;
    rehearsal.passes().await;
    cluster.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn overlapping_projectors_write_the_same_rows_as_one() {
    let cluster = Cluster::new().await;
    let [command_api, query_api, _decider, first, second] = cluster
        .ready([CommandApi, QueryApi, Decider, Projector, Projector])
        .await;
    share(&first, &second).await;
    let mut rehearsal = cluster.rehearse(&command_api, &query_api, &CROWD);
    writes(&first).await;
    first.pause();
    eventually("the second has all partitions", async || {
        (second.partitions().await.len() == PARTITIONS as usize).then_some(())
    })
    .await;
    first.resume();
    let mut rows = 0;
    while rehearsal.goes_on() {
        rows += write_all_again(&cluster).await;
    }
    println!("{rows} rows were written too late");
    assert!(rows > 0);
    share(&first, &second).await;
    rehearsal.passes().await;
    cluster.audit().await;
}

/// Writes all rows from the first decision on, like a projector that was paused since then and
/// does not know yet that it has lost its partitions. Returns their number.
async fn write_all_again(cluster: &Cluster) -> usize {
    let (log, store, codec) = (
        cluster.log().await,
        cluster.store().await,
        cluster.codec().await,
    );
    let partitions = (0..PARTITIONS).map(Partition).map(|partition| {
        let (log, store, codec) = (&log, &store, &codec);
        async move {
            let topic = Topic::StockDecisions;
            let end = log.end(topic, partition).await.unwrap();
            let mut reader = log.read(topic, partition, Offset(0)).await.unwrap();
            let mut projection = Projection::new(partition, None);
            let mut written = 0;
            while projection.progress().next < end {
                for batch in reader.next().await.unwrap().chunks(LATE_BATCH) {
                    let rows = projection.rows(codec, store, batch).await.unwrap();
                    written += rows.len();
                    store
                        .apply(partition, rows, projection.progress())
                        .await
                        .unwrap();
                }
            }
            written
        }
    });
    let written = join_all(partitions).await.iter().sum();
    log.close().await;
    written
}

/// Waits until the projector has written rows of the rehearsal.
async fn writes(projector: &Process) {
    let before = projector.metric(ROWS).await;
    eventually("it writes rows", async || {
        (projector.metric(ROWS).await > before + 500.0).then_some(())
    })
    .await;
}
