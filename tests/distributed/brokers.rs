//! Brokers that vanish and come back.

use runtime::settings::Service::{CommandApi, Decider, Projector, QueryApi};

use crate::cluster::{Cluster, Process, eventually};

const LOAD: [&str; 8] = [
    "--buyers",
    "8000",
    "--over",
    "25",
    "--products",
    "12",
    "--stock",
    "200",
];

#[tokio::test(flavor = "multi_thread")]
async fn one_broker_of_three_may_go_and_then_all_of_them() {
    let cluster = Cluster::new().await;
    let processes = cluster
        .ready([CommandApi, QueryApi, Projector, Decider])
        .await;
    let [door, questions, _, decider] = &processes;
    let mut rehearsal = cluster.rehearse(door, questions, &LOAD);
    decides_on(decider).await;

    let kafka = cluster.engines.kafka();
    tokio::task::block_in_place(|| kafka.kill(1)).unwrap();
    // The others have all that was acknowledged, and go on; nothing is left to wait for.
    decides_on(decider).await;
    all_ready(&processes).await;
    tokio::task::block_in_place(|| kafka.start(1)).unwrap();
    decides_on(decider).await;
    assert!(
        rehearsal.goes_on(),
        "the load was over before all brokers went"
    );

    for number in 1..=3 {
        tokio::task::block_in_place(|| kafka.kill(number)).unwrap();
    }
    for process in &processes {
        eventually("readiness tells that the brokers are away", async || {
            let (status, health) = process.health().await?;
            let mut components = health["components"].as_array()?.iter();
            let kafka = components.find(|component| component["name"] == "kafka")?;
            (status == 503 && kafka["ready"] == false).then_some(())
        })
        .await;
    }
    assert!(
        rehearsal.goes_on(),
        "the load was over though it cannot have been answered"
    );
    tokio::task::block_in_place(|| kafka.restart_all()).unwrap();
    all_ready(&processes).await;
    rehearsal.passes().await;
    cluster.audit().await;
}

/// Waits until it has decided on more of what the crowd asks for.
async fn decides_on(decider: &Process) {
    let decisions = async || decider.metric("doorbuster_decisions_total").await;
    let before = decisions().await;
    eventually("it goes on deciding", async || {
        (decisions().await > before + 300.0).then_some(())
    })
    .await;
}

async fn all_ready(processes: &[Process]) {
    for process in processes {
        process.becomes_ready().await;
    }
}
