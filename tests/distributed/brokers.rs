//! Brokers that are killed and come back.

use runtime::settings::Service::{CommandApi, Decider, Projector, QueryApi};
use tokio::task::block_in_place;

use crate::cluster::{CROWD, Cluster, Process, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn one_broker_of_three_may_fail_and_then_all_of_them() {
    let cluster = Cluster::new().await;
    let kafka = cluster.engines.kafka();
    let processes = cluster
        .ready([CommandApi, QueryApi, Projector, Decider])
        .await;
    let [command_api, query_api, _, decider] = &processes;
    let rehearsal = cluster.rehearse(command_api, query_api, &CROWD);
    decides_on(decider).await;
    block_in_place(|| kafka.kill(1)).unwrap();
    // The other brokers have all acknowledged records, and work without it.
    decides_on(decider).await;
    all_ready(&processes).await;
    block_in_place(|| kafka.start(1)).unwrap();
    rehearsal.passes().await;

    let how = [&CROWD[..], &["--seed", "2"]].concat();
    let mut rehearsal = cluster.rehearse(command_api, query_api, &how);
    decides_on(decider).await;
    for number in 1..=3 {
        block_in_place(|| kafka.kill(number)).unwrap();
    }
    for process in &processes {
        eventually("readiness reports that the brokers are away", async || {
            let (status, health) = process.health().await?;
            let mut components = health["components"].as_array()?.iter();
            let kafka = components.find(|component| component["name"] == "kafka")?;
            (status == 503 && kafka["ready"] == false).then_some(())
        })
        .await;
    }
    assert!(rehearsal.goes_on(), "nobody can have answered all of it");
    block_in_place(|| kafka.restart_all()).unwrap();
    all_ready(&processes).await;
    rehearsal.passes().await;
    cluster.audit().await;
}

/// Waits until the decider has decided on more of the rehearsal's attempts.
async fn decides_on(decider: &Process) {
    let decisions = async || decider.metric("doorbuster_decisions_total").await;
    let before = decisions().await;
    eventually("it continues to decide", async || {
        (decisions().await > before + 300.0).then_some(())
    })
    .await;
}

async fn all_ready(processes: &[Process]) {
    for process in processes {
        process.becomes_ready().await;
    }
}
