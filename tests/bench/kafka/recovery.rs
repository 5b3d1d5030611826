//! Recovery of a product with a million live holds from its checkpoint.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use command_api::decider::{self, CheckpointPolicy, Decider};
use engines::Engines;
use log_kafka::KafkaLog;
use ports::EventLog;
use ports::clock::SystemClock;
use runtime::health::Health;
use runtime::settings::Service;
use schemas::codec::Codec;
use schemas::fence::Fence;
use schemas::ids::Offset;
use schemas::topics::Topic;
use tokio_util::sync::CancellationToken;

use super::site::{PARTITION, Site, attempt, decided, fill, read_back, record, sale, visit};
use crate::server::eventually;

const HOLDS: u32 = 1_000_000;
/// The product has some more units, for the attempts that show that it continues.
const STOCK: u32 = HOLDS + 1_000;
const HOLD_MS: i64 = 3_600_000;
const ROUNDS: u32 = 3;

/// Makes the holds and their checkpoint, then times deciders that start from it; returns the
/// topics.
pub async fn run(engines: &Engines) -> anyhow::Result<Site> {
    println!("recovery of a product with {HOLDS} live holds from its checkpoint");
    let site = Site::new(engines, 1);
    let (log, codec) = (Arc::new(site.log().await?), site.codec().await?);
    fill(&log, &codec, sale(STOCK, Some(HOLD_MS)), HOLDS).await?;
    hold(log, codec.clone()).await?;

    let log = site.log().await?;
    let (mut records, mut bytes, mut orders) = (0, 0, 0);
    visit(&log, Topic::ProductSnapshots, Offset(0), |record| {
        records += 1;
        bytes += record.value.len();
        let part = codec.decode_snapshot(&record.value)?.part;
        orders += part.map_or(0, |part| part.orders.len());
        Ok(())
    })
    .await?;
    ensure!(
        orders == HOLDS as usize,
        "the checkpoint has {orders} orders"
    );
    let megabytes = bytes as f64 / 1e6;
    println!("the checkpoint has {records} records of {megabytes:.1} MB in all");

    let mut took = Vec::new();
    for round in 0..ROUNDS {
        let from = log.end(Topic::StockDecisions, PARTITION).await?;
        // All of `purchase-attempts` is answered: the sale, the holds, and the attempts of earlier
        // rounds.
        let answered = Offset(i64::from(HOLDS + round));
        let record = record(&codec, attempt(HOLDS + round));
        log.append(Topic::PurchaseAttempts, PARTITION, vec![record])
            .await?;
        let decider = site.start(Service::Decider).await?;
        decided(&log, from.0 + 2).await?;
        decider.stop().await?;
        let before = Fence {
            claim: Offset(0),
            answered,
        };
        let decided = read_back(&log, &codec, from, before).await?;
        println!(
            "round {}: {:.2} s from the claim to the first decision",
            round + 1,
            decided.first.as_secs_f64()
        );
        took.push(decided.first);
    }
    log.close().await;
    took.sort_unstable();
    let median = took[took.len() / 2].as_secs_f64();
    println!("median {median:.2} s (goal: 2 s)");
    Ok(site)
}

/// Decides on everything, in this process, up to a checkpoint of all of it.
async fn hold(log: Arc<KafkaLog>, codec: Arc<Codec>) -> anyhow::Result<()> {
    let decider = Decider {
        log: log.clone(),
        codec: codec.clone(),
        clock: Arc::new(SystemClock),
        health: Health::default(),
        name: "benchmark".into(),
        checkpoints: CheckpointPolicy {
            min_decisions: u64::from(HOLDS) + 1,
        },
    };
    let stop = CancellationToken::new();
    let deciding = tokio::spawn(decider::run(decider, stop.clone()));
    decided(&log, i64::from(HOLDS) + 2).await?;
    eventually("a checkpoint is complete", async || {
        let end = log.end(Topic::ProductSnapshots, PARTITION).await?;
        if end.0 == 0 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            return Ok(None);
        }
        let last = Offset(end.0 - 1);
        let mut reader = log.read(Topic::ProductSnapshots, PARTITION, last).await?;
        let records = reader.next().await?;
        let record = records.last().context("a reader returned nothing")?;
        let complete = codec.decode_snapshot(&record.value)?.part.is_none();
        Ok(complete.then_some(()))
    })
    .await?;
    stop.cancel();
    deciding.await?;
    log.close().await;
    Ok(())
}
