//! Catching up on one hot partition: attempts are waiting when a decider starts.
//!
//! The bare loop consumes as many attempts and produces as many records, which are real
//! decisions' bytes. Both are timed from when their first record, the decider's claim, is in the
//! log until the last one is. The decider also reads back what it wrote; the loop does not.

use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use domain::product::Product;
use domain::{DecisionContext, answer};
use engines::Engines;
use log_kafka::topic_name;
use runtime::settings::Service;
use schemas::codec::Codec;
use schemas::command::Command;
use schemas::fence::Fence;
use schemas::ids::Offset;
use schemas::topics::Topic;

use super::bare_loop;
use super::site::{Site, attempt, decided, fill, read_back, sale};

const ATTEMPTS: u32 = 300_000;
const STOCK: u32 = 1_000;
const ROUNDS: usize = 3;
/// How many different decisions are produced in turn. In total they are larger than the window of
/// the compression.
const DECISIONS: u32 = 4_096;

/// Runs the comparison and prints it; returns topics with all the attempts decided.
pub async fn run(engines: &Engines) -> anyhow::Result<Site> {
    println!("catching up on {ATTEMPTS} attempts that wait in one partition, {STOCK} units");
    println!(
        "{:>6} {:>14} {:>14} {:>7}",
        "round", "attempts/s", "bare/s", "ratio"
    );
    let (mut rounds, mut last) = (Vec::new(), None);
    for round in 1..=ROUNDS {
        let (bare, (full, site)) = if round % 2 == 1 {
            let bare = produce(engines).await?;
            (bare, decide(engines).await?)
        } else {
            let full = decide(engines).await?;
            (produce(engines).await?, full)
        };
        let rate = |took: Duration| f64::from(ATTEMPTS) / took.as_secs_f64();
        let (full, bare) = (rate(full), rate(bare));
        println!("{round:>6} {full:>14.0} {bare:>14.0} {:>7.2}", full / bare);
        rounds.push(full / bare);
        last = Some(site);
    }
    rounds.sort_by(f64::total_cmp);
    println!(
        "median ratio {:.2} (goal: 0.60 or more)",
        rounds[ROUNDS / 2]
    );
    Ok(last.expect("there is at least one round"))
}

/// How long a decider takes, from its claim to its last decision; all of them must count.
async fn decide(engines: &Engines) -> anyhow::Result<(Duration, Site)> {
    let site = Site::new(engines, 1);
    let (log, codec) = (site.log().await?, site.codec().await?);
    fill(&log, &codec, sale(STOCK, None), ATTEMPTS).await?;
    let decider = site.start(Service::Decider).await?;
    // The claim, and a decision on the sale and on each attempt.
    decided(&log, i64::from(ATTEMPTS) + 2).await?;
    decider.stop().await?;
    let decided = read_back(&log, &codec, Offset(0), Fence::default()).await?;
    log.close().await;
    ensure!(
        decided.count == u64::from(ATTEMPTS) + 1,
        "{} decisions count",
        decided.count
    );
    Ok((decided.last, site))
}

/// How long the bare loop takes over topics filled in the same way.
async fn produce(engines: &Engines) -> anyhow::Result<Duration> {
    let site = Site::new(engines, 1);
    let (log, codec) = (site.log().await?, site.codec().await?);
    fill(&log, &codec, sale(STOCK, None), ATTEMPTS).await?;
    log.close().await;
    let values = decisions(&codec)?;
    let [from, to] = [Topic::PurchaseAttempts, Topic::StockDecisions]
        .map(|topic| topic_name(&site.topic_prefix, topic));
    let run = move || bare_loop::run(&site.brokers, &from, &to, ATTEMPTS as usize + 1, &values);
    tokio::task::spawn_blocking(run).await?
}

/// The bytes of a decider's decisions on such attempts.
fn decisions(codec: &Codec) -> anyhow::Result<Vec<Bytes>> {
    let mut product = Product::default();
    let mut decide = |command: Command, offset| {
        let context = DecisionContext {
            claim: Offset(0),
            offset: Offset(offset),
            follows: Offset(offset - 1),
            appended_at_ms: 1_790_000_000_000,
        };
        let decision = answer(&mut product, &command, context)?;
        let (bytes, chain) = codec.encode_chained(decision, product.head.chain);
        product.head.chain = chain;
        anyhow::Ok(Bytes::from(bytes))
    };
    // As in the whole run, few of them get units.
    decide(sale(STOCK * DECISIONS / ATTEMPTS, None), 0)?;
    let numbers = 0..DECISIONS;
    numbers
        .map(|number| decide(attempt(number), i64::from(number) + 1))
        .collect()
}
