//! Projectors that vanish, and projectors that write the same partition at once.

use runtime::settings::Service::{CommandApi, Decider, Projector, QueryApi};

use crate::cluster::{Cluster, PARTITIONS, Process, eventually, share};

const ROWS: &str = "doorbuster_projector_rows_total";

const LOAD: [&str; 8] = [
    "--buyers",
    "6000",
    "--over",
    "18",
    "--products",
    "12",
    "--stock",
    "150",
];
/// How often a projector is made to stand still before it must have written too late.
const ROUNDS: usize = 5;

#[tokio::test(flavor = "multi_thread")]
async fn read_models_catch_up_after_the_projector_was_killed() {
    let cluster = Cluster::new().await;
    let [door, questions, _decider, mut projector] = cluster
        .ready([CommandApi, QueryApi, Decider, Projector])
        .await;
    let mut rehearsal = cluster.rehearse(&door, &questions, &LOAD);
    writes(&projector).await;
    projector.kill();
    assert!(rehearsal.goes_on(), "the load was over before the kill");
    projector.start_again();
    projector.becomes_ready().await;
    rehearsal.passes().await;
    cluster.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_projectors_that_overlap_leave_the_same_rows_as_one() {
    let cluster = Cluster::new().await;
    let [door, questions, _decider, first, second] = cluster
        .ready([CommandApi, QueryApi, Decider, Projector, Projector])
        .await;
    for round in 1.. {
        share(&first, &second).await;
        // It stands still with nothing to do, so that all it writes later is written too late:
        // another projector has its partitions then, and decisions of a crowd to write.
        cluster.read_models_catch_up().await;
        let before = first.metric(ROWS).await;
        first.pause();
        let seed = round.to_string();
        let how = [&LOAD[..], &["--seed", &seed]].concat();
        let rehearsal = cluster.rehearse(&door, &questions, &how);
        eventually("the second has all partitions", async || {
            (second.partitions().await.len() == PARTITIONS as usize).then_some(())
        })
        .await;
        writes(&second).await;
        let losses = times_lost(&first);
        first.resume();
        eventually(
            "the first learns that its partitions are lost",
            async || (times_lost(&first) > losses).then_some(()),
        )
        .await;
        let too_late = first.metric(ROWS).await - before;
        rehearsal.passes().await;
        println!("round {round}: {too_late} rows were written too late");
        if too_late > 0.0 {
            break;
        }
        assert!(round < ROUNDS, "it never wrote too late");
    }
    cluster.audit().await;
}

/// Waits until it has written rows of what the crowd brings.
async fn writes(projector: &Process) {
    let before = projector.metric(ROWS).await;
    eventually("it writes rows", async || {
        (projector.metric(ROWS).await > before + 500.0).then_some(())
    })
    .await;
}

fn times_lost(projector: &Process) -> usize {
    projector
        .output()
        .matches("partitions were taken back")
        .count()
}
