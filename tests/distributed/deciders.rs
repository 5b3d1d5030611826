//! Deciders that are killed, paused, and come back.

use runtime::settings::Service::{CommandApi, Decider, Projector, QueryApi};

use crate::cluster::{CROWD, Cluster, PARTITIONS, Process, eventually, share};
use crate::history::{Claimed, History, now_ms};

const DECISIONS: &str = "doorbuster_decisions_total";
const DROPPED: &str = "doorbuster_decisions_dropped_total";

/// How often a decider is paused until one of its decisions must have come too late.
const ROUNDS: usize = 4;

#[tokio::test(flavor = "multi_thread")]
async fn another_decider_takes_over_from_one_that_is_killed() {
    let cluster = Cluster::new().await;
    let [command_api, query_api, _projector, mut first, second] = cluster
        .ready([CommandApi, QueryApi, Projector, Decider, Decider])
        .await;
    share(&first, &second).await;
    let history = History::open(&cluster).await;
    let rehearsal = cluster.rehearse(&command_api, &query_api, &CROWD);
    decides(&first).await;
    let lost = first.partitions().await;
    let at_ms = now_ms();
    first.kill();
    rehearsal.passes().await;

    println!("the decider of partitions {lost:?} was killed");
    let current = history.current().await;
    assert_eq!(current.len(), PARTITIONS as usize);
    for claimed in current {
        assert!(claimed.is_of(&second), "{claimed:?}");
        if lost.contains(&claimed.partition) {
            assert!(claimed.counting > 0, "{claimed:?}");
            print_takeover(&claimed, at_ms);
        }
    }
    cluster.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_of_a_paused_decider_are_dropped_and_it_steps_down() {
    let cluster = Cluster::new().await;
    let [command_api, query_api, projector, first, second] = cluster
        .ready([CommandApi, QueryApi, Projector, Decider, Decider])
        .await;
    share(&first, &second).await;
    let history = History::open(&cluster).await;
    for round in 1.. {
        let seed = round.to_string();
        let how = [&CROWD[..], &["--seed", &seed]].concat();
        let rehearsal = cluster.rehearse(&command_api, &query_api, &how);
        decides(&first).await;
        let lost = first.partitions().await;
        let before = times_stepped_down(&first);
        first.pause();
        eventually("the second holds all partitions", async || {
            let current = history.current().await;
            let all = current.iter().all(|claimed| claimed.is_of(&second));
            let decided = |c: &&Claimed| lost.contains(&c.partition) && c.counting > 0;
            let deciding = current.iter().filter(decided).count() == lost.len();
            (all && deciding).then_some(())
        })
        .await;
        first.resume();
        eventually("the first steps down", async || {
            (times_stepped_down(&first) > before).then_some(())
        })
        .await;
        // It can take partitions again.
        share(&first, &second).await;
        rehearsal.passes().await;

        let claims = history.claims().await;
        let its = claims.iter().filter(|claimed| claimed.is_of(&first));
        let too_late: usize = its.map(|claimed| claimed.superseded).sum();
        println!("round {round}: {too_late} decisions came behind the claim of another");
        if too_late > 0 {
            break;
        }
        assert!(round < ROUNDS, "it never wrote too late");
    }

    eventually(
        "each works on the partitions that it has claimed",
        async || {
            let (firsts, seconds) = (first.partitions().await, second.partitions().await);
            let holds = |claimed: &Claimed| match claimed.is_of(&first) {
                true => firsts.contains(&claimed.partition),
                false => seconds.contains(&claimed.partition),
            };
            history.current().await.iter().all(holds).then_some(())
        },
    )
    .await;
    let claims = history.claims().await;
    let dropped: usize = claims.iter().map(|claimed| claimed.dropped).sum();
    for reader in [&query_api, &projector] {
        eventually("the readers drop what came too late", async || {
            (reader.metric(DROPPED).await >= dropped as f64).then_some(())
        })
        .await;
    }
    assert_eq!(query_api.metric(DROPPED).await, dropped as f64);
    cluster.audit().await;
}

/// A session so long that only leaving the group hands the partitions over.
const NO_TIMEOUT_MS: &str = "300000";

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_terminated_hands_over_at_once() {
    let mut cluster = Cluster::new().await;
    cluster.set("KAFKA_SESSION_TIMEOUT_MS", NO_TIMEOUT_MS);
    let [
        mut command_api,
        mut query_api,
        mut projector,
        mut heir,
        mut first,
        mut second,
    ] = cluster
        .ready([CommandApi, QueryApi, Projector, Projector, Decider, Decider])
        .await;
    share(&first, &second).await;
    share(&projector, &heir).await;
    let history = History::open(&cluster).await;
    let rehearsal = cluster.rehearse(&command_api, &query_api, &CROWD);
    decides(&first).await;
    let left = first.partitions().await;
    let at_ms = now_ms();
    assert_ends_well(&mut first).await;
    eventually("the second decides on all partitions", async || {
        let current = history.current().await;
        let decided = |c: &Claimed| c.is_of(&second) && c.counting > 0;
        current.iter().all(decided).then_some(())
    })
    .await;
    println!("the decider of partitions {left:?} was terminated");
    let taken = history.current().await;
    let taken = taken.iter().filter(|c| left.contains(&c.partition));
    taken.for_each(|claimed| print_takeover(claimed, at_ms));

    assert_ends_well(&mut projector).await;
    eventually("the other projector has all partitions", async || {
        (heir.partitions().await.len() == PARTITIONS as usize).then_some(())
    })
    .await;
    assert_ends_well(&mut command_api).await;
    command_api.start_again();
    assert_ends_well(&mut query_api).await;
    query_api.start_again();
    rehearsal.passes().await;
    cluster.audit().await;
    for process in [&mut command_api, &mut query_api, &mut heir, &mut second] {
        assert_ends_well(process).await;
    }
}

/// Waits until the decider has decided on the rehearsal's attempts.
async fn decides(decider: &Process) {
    let before = decider.metric(DECISIONS).await;
    eventually("it decides", async || {
        (decider.metric(DECISIONS).await > before + 300.0).then_some(())
    })
    .await;
}

/// A decider learns from the log or from the group that another has its partition.
fn times_stepped_down(decider: &Process) -> usize {
    let output = decider.output();
    ["stepped down", "partitions were taken back"]
        .map(|words| output.matches(words).count())
        .iter()
        .sum()
}

async fn assert_ends_well(process: &mut Process) {
    let status = process.terminate().await;
    assert_eq!(status.code(), Some(0), "{}", process.output());
}

fn print_takeover(claimed: &Claimed, since_ms: i64) {
    let after = |at_ms: i64| format!("{} ms", at_ms - since_ms);
    println!(
        "partition {}: claimed anew after {}, first new decision after {}",
        claimed.partition,
        after(claimed.claimed_at_ms),
        claimed
            .first_decision_at_ms
            .map_or("none".to_owned(), after),
    );
}
