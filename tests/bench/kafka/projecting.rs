//! Rows a second through the projector, with many decisions waiting, against a bare loop over
//! the driver that inserts the same rows.

use std::time::{Duration, Instant};

use kit::MemoryStore;
use ports::read_store::{Progress, ReadStore, Row};
use ports::{EventLog, LogRecord};
use projector::Projection;
use runtime::settings::Service;
use schemas::ids::Offset;
use schemas::topics::Topic;
use tokio::time::sleep;

use super::bare_rows::BareRows;
use super::site::{PARTITION, Site};
use crate::server::{PATIENCE, eventually};

/// How many decisions are projected.
const DECISIONS: usize = 40_000;
const ROUNDS: usize = 3;

/// Runs the comparison on decisions that refuse and on ones that accept, and prints it.
pub async fn run(sold_out: &Site, all_held: &Site) -> anyhow::Result<()> {
    println!("projecting {DECISIONS} decisions of one partition that wait");
    println!(
        "{:>9} {:>6} {:>10} {:>10} {:>7}",
        "", "round", "rows/s", "bare/s", "ratio"
    );
    for (what, site) in [("refused", sold_out), ("accepted", all_held)] {
        let rows = rows(site).await?;
        // The first one warms up the node.
        insert(site, &rows).await?;
        let mut ratios = Vec::new();
        for round in 1..=ROUNDS {
            let (bare, full) = if round % 2 == 1 {
                (insert(site, &rows).await?, project(site).await?)
            } else {
                let full = project(site).await?;
                (insert(site, &rows).await?, full)
            };
            let ratio = full / bare;
            println!("{what:>9} {round:>6} {full:>10.0} {bare:>10.0} {ratio:>7.2}");
            ratios.push(ratio);
        }
        ratios.sort_by(f64::total_cmp);
        let median = ratios[ROUNDS / 2];
        println!("{what:>9} median ratio {median:.2} (goal: 0.60 or more)");
    }
    Ok(())
}

/// The rows of the first decisions but those of the sale, which are few.
async fn rows(site: &Site) -> anyhow::Result<Vec<Row>> {
    let (log, codec) = (site.log().await?, site.codec().await?);
    let mut reader = log
        .read(Topic::StockDecisions, PARTITION, Offset(0))
        .await?;
    let mut records: Vec<LogRecord> = Vec::new();
    while records.len() < DECISIONS {
        records.extend(tokio::time::timeout(PATIENCE, reader.next()).await??);
    }
    log.close().await;
    records.truncate(DECISIONS);
    let mut projection = Projection::new(PARTITION, None);
    let store = MemoryStore::default();
    let mut rows = projection.rows(&codec, &store, &records).await?;
    rows.retain(|row| !matches!(row, Row::Sale(_) | Row::Command(_)));
    Ok(rows)
}

/// Rows a second of a projector on an empty keyspace. Time starts with its first progress, when it
/// is running.
async fn project(site: &Site) -> anyhow::Result<f64> {
    let site = site.with_new_keyspace();
    let store = site.store().await?;
    let projector = site.start(Service::Projector).await?;
    let at = async || anyhow::Ok(store.progress().await?.get(&PARTITION).copied());
    let first: Progress = eventually("a projector begins", at).await?;
    let began = Instant::now();
    let last = loop {
        sleep(Duration::from_millis(5)).await;
        if let Some(now) = at().await?.filter(|now| now.next.0 >= DECISIONS as i64) {
            break now;
        }
        anyhow::ensure!(
            began.elapsed() < PATIENCE,
            "the projector makes no progress"
        );
    };
    let took = began.elapsed();
    projector.stop().await?;
    // Each decision makes a row by the attempt's id and one in a list.
    let rows = 2 * (last.next.0 - first.next.0);
    Ok(rows as f64 / took.as_secs_f64())
}

/// Rows a second of the bare loop, on an empty keyspace too.
async fn insert(site: &Site, rows: &[Row]) -> anyhow::Result<f64> {
    let site = site.with_new_keyspace();
    drop(site.store().await?);
    let bare = BareRows::connect(&site.cql_node, &site.keyspace).await?;
    let began = Instant::now();
    bare.insert_all(rows).await?;
    Ok(rows.len() as f64 / began.elapsed().as_secs_f64())
}
