//! The loss when server and engine are killed under load.

use std::time::{Duration, Instant};

use anyhow::Context;
use futures::future::try_join_all;
use tokio::task::JoinSet;

use super::record::Loss;
use super::systems::{Place, System};
use super::workloads::Workload;
use crate::load::{Connection, Endpoints, open_sale};
use crate::server::eventually;

const CONNECTIONS: u64 = 64;
/// How many of the last attempts of each connection are read afterwards.
const ASKED: usize = 300;

/// Kills the system after a while of load, starts it again, and reads what it acknowledged.
pub async fn measure(place: &Place<'_>, system: System, after: Duration) -> anyhow::Result<Loss> {
    let running = place.start().await?;
    Workload::Hot.open(running.endpoints(), "lost").await?;
    let endpoints = running.endpoints();
    let mut clients = JoinSet::new();
    for number in 0..CONNECTIONS {
        clients.spawn(order_until_it_dies(endpoints, number));
    }
    tokio::time::sleep(after).await;
    running.kill().await?;
    let acknowledged = clients.join_all().await;

    let began = Instant::now();
    let running = place.start().await?;
    let endpoints = running.endpoints();
    first_answer(endpoints).await.context("after the restart")?;
    let back_after = began.elapsed();
    let asked: Vec<&[String]> = acknowledged
        .iter()
        .map(|attempts| &attempts[attempts.len().saturating_sub(ASKED)..])
        .collect();
    let gone = try_join_all(asked.iter().map(|attempts| unknown(endpoints, attempts))).await?;
    running.stop().await?;
    Ok(Loss {
        system,
        acknowledged: acknowledged
            .iter()
            .map(|attempts| attempts.len() as u64)
            .sum(),
        asked: asked.iter().map(|attempts| attempts.len() as u64).sum(),
        gone: gone.iter().sum(),
        back_after_seconds: back_after.as_secs_f64(),
    })
}

/// The attempts that were acknowledged, in their order.
async fn order_until_it_dies(endpoints: Endpoints, client: u64) -> Vec<String> {
    let mut acknowledged = Vec::new();
    let Ok(mut connection) = Connection::open(endpoints.orders).await else {
        return acknowledged;
    };
    let mut number = client;
    while let Ok(attempt) = connection.order("hot-lost-0", number).await {
        acknowledged.push(attempt);
        number += CONNECTIONS;
    }
    acknowledged
}

/// Sells something again, under another name.
async fn first_answer(endpoints: Endpoints) -> anyhow::Result<()> {
    open_sale(endpoints.orders, "again", r#""stock":1"#).await?;
    let attempt = Connection::open(endpoints.orders)
        .await?
        .order("again", 0)
        .await?;
    let mut connection = Connection::open(endpoints.reads).await?;
    known(&mut connection, &attempt).await?;
    Ok(())
}

/// How many of these attempts are unknown.
async fn unknown(endpoints: Endpoints, attempts: &[String]) -> anyhow::Result<u64> {
    let mut connection = Connection::open(endpoints.reads).await?;
    let mut unknown = 0;
    for attempt in attempts {
        if !known(&mut connection, attempt).await? {
            unknown += 1;
        }
    }
    Ok(unknown)
}

/// Whether an attempt is known and decided. An interrupted one may take a while.
async fn known(connection: &mut Connection, attempt: &str) -> anyhow::Result<bool> {
    eventually("an attempt is decided", async || {
        Ok(connection.known_outcome(attempt).await.ok())
    })
    .await
}
