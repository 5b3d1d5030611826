//! Deciders that vanish, stand still, and come back.

use std::time::Duration;

use ports::{EventLog, LogRecord};
use runtime::settings::Service::{CommandApi, Decider, Projector, QueryApi};
use schemas::codec::Codec;
use schemas::decision::DecisionRecord;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

use crate::cluster::{Cluster, PARTITIONS, eventually};

/// A crowd that comes for long enough to lose a decider in its midst.
const LOAD: [&str; 8] = ["--buyers", "8000", "--over", "20", "--products", "12", "--stock", "150"];

#[tokio::test(flavor = "multi_thread")]
async fn another_decider_takes_over_from_one_that_is_killed() {
    let cluster = Cluster::new().await;
    let [door, questions, _projector, mut first] = cluster
        .ready([CommandApi, QueryApi, Projector, Decider])
        .await;
    let [_second] = cluster.ready([Decider]).await;
    let rehearsal = cluster.rehearse(&door, &questions, &LOAD);
    eventually("the first decides", async || {
        (first.metric("doorbuster_decisions_total").await > 500.0).then_some(())
    })
    .await;
    first.kill();
    rehearsal.passes().await;
    cluster.audit().await;
}
