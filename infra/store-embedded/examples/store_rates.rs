//! Prints how fast rows are applied, and how long single calls take meanwhile:
//!
//! ```text
//! cargo run --release -p store-embedded --example store_rates [attempts]
//! ```
//!
//! Every attempt is an attempt row under a random key and an order row, and every batch has
//! the sale's row besides. The last lines show the other way the store could have been built:
//! one redb transaction a batch without durability and a durable one every second.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use ports::read_store::{AttemptRow, AttemptStatus, Progress, ReadStore, Row, SalePhase, SaleRow};
use redb::{Database, Durability, TableDefinition};
use schemas::command::SaleTerms;
use schemas::ids::{AttemptId, Money, Offset, Partition, Position};
use store_embedded::EmbeddedStore;

const PARTITIONS: u32 = 4;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let attempts: u32 = std::env::args().nth(1).map_or(Ok(500_000), |n| n.parse())?;
    for batch in [25, 100, 500] {
        applied(attempts, batch, None).await?;
    }
    applied(attempts, 25, Some(50_000)).await?;
    for batch in [25, 100, 500] {
        transactions(attempts, batch)?;
    }
    Ok(())
}

/// Applies all attempts from as many tasks as there are partitions, reading all the while; as
/// fast as it goes, or so many attempts a second.
async fn applied(attempts: u32, batch: u32, rate: Option<u32>) -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("read.redb");
    let store = Arc::new(EmbeddedStore::open(&path)?);
    let start = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let reader = tokio::spawn(read_all_the_while(store.clone(), stop.clone()));
    let mut appliers = tokio::task::JoinSet::new();
    for partition in 0..PARTITIONS {
        let store = store.clone();
        appliers.spawn(async move {
            let mut times = Vec::new();
            for first in (0..attempts / PARTITIONS).step_by(batch as usize) {
                if let Some(rate) = rate {
                    let due = f64::from(first * PARTITIONS) / f64::from(rate);
                    tokio::time::sleep_until((start + Duration::from_secs_f64(due)).into()).await;
                }
                let rows = rows(partition, first, batch);
                let call = Instant::now();
                let next = Offset(i64::from(first + batch));
                let progress = Progress {
                    next,
                    claim: Offset(0),
                    answered: next,
                };
                store.apply(Partition(partition), rows, progress).await?;
                times.push(call.elapsed());
            }
            Ok::<_, ports::StoreError>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(applier) = appliers.join_next().await {
        times.extend(applier??);
    }
    let applied_in = start.elapsed();
    stop.store(true, Relaxed);
    let reads = reader.await?;
    let closing = Instant::now();
    store.close()?;
    let closed_in = closing.elapsed();
    drop(store);
    let opening = Instant::now();
    drop(EmbeddedStore::open(&path)?);
    let per_row = f64::from(attempts) * (2.0 + 1.0 / f64::from(batch));
    println!(
        "apply, batches of {batch:>3} attempts: {:>7.0} rows/s, with closing {:>7.0} rows/s; call {}; \
         read {}; close {closed_in:.0?}; {} MiB, opened and checked in {:.0?}",
        per_row / applied_in.as_secs_f64(),
        per_row / (applied_in + closed_in).as_secs_f64(),
        spread(times),
        spread(reads),
        std::fs::metadata(&path)?.len() >> 20,
        opening.elapsed(),
    );
    Ok(())
}

/// A buyer's orders every millisecond, until told to stop.
async fn read_all_the_while(store: Arc<EmbeddedStore>, stop: Arc<AtomicBool>) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut buyer = 0;
    while !stop.load(Relaxed) {
        buyer = (buyer + 7919) % 1_000_000;
        let buyer = format!("buyer-{buyer:06}").parse().expect("is an id");
        let call = Instant::now();
        store.orders(&buyer, None, 20).await.expect("reads");
        times.push(call.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    times
}

/// The same rows, each batch in a transaction of its own.
fn transactions(attempts: u32, batch: u32) -> Result<(), Box<dyn Error>> {
    const BY_ID: TableDefinition<&[u8], &[u8]> = TableDefinition::new("attempts");
    const BY_BUYER: TableDefinition<&[u8], &[u8]> = TableDefinition::new("orders");
    let directory = tempfile::tempdir()?;
    let file = Database::create(directory.path().join("read.redb"))?;
    let start = Instant::now();
    let mut durable_at = Instant::now();
    let mut times = Vec::new();
    let value = [7; 70];
    for first in (0..attempts).step_by(batch as usize) {
        let call = Instant::now();
        let mut transaction = file.begin_write()?;
        if durable_at.elapsed() > Duration::from_secs(1) {
            durable_at = Instant::now();
        } else {
            transaction.set_durability(Durability::None)?;
        }
        let mut by_id = transaction.open_table(BY_ID)?;
        let mut by_buyer = transaction.open_table(BY_BUYER)?;
        for n in first..first + batch {
            by_id.insert(
                AttemptId::generate().as_bytes().as_slice(),
                value.as_slice(),
            )?;
            let buyer = format!(
                "buyer-{:06}\0{n:012}",
                n.wrapping_mul(2_654_435_761) % 1_000_000
            );
            by_buyer.insert(buyer.as_bytes(), value.as_slice())?;
        }
        drop((by_id, by_buyer));
        transaction.commit()?;
        times.push(call.elapsed());
    }
    println!(
        "transactions of {batch:>3} attempts: {:>7.0} rows/s; call {}",
        f64::from(attempts) * 2.0 / start.elapsed().as_secs_f64(),
        spread(times),
    );
    Ok(())
}

fn rows(partition: u32, first: u32, count: u32) -> Vec<Row> {
    let product: schemas::ids::ProductId =
        format!("product-{partition}").parse().expect("is an id");
    let mut rows = Vec::with_capacity(count as usize * 2 + 1);
    for n in first..first + count {
        let buyer = n.wrapping_mul(2_654_435_761) % 1_000_000;
        let attempt = AttemptRow {
            attempt_id: AttemptId::generate(),
            product_id: product.clone(),
            buyer_id: format!("buyer-{buyer:06}").parse().expect("is an id"),
            quantity: 1,
            position: Position {
                partition: Partition(partition),
                offset: Offset(n.into()),
            },
            status: AttemptStatus::Sold,
            decided_at_ms: 1_790_000_000_000,
            hold_until_ms: None,
            version: u64::from(n) + 1,
            trace_id: None,
        };
        rows.push(Row::Order(attempt.clone()));
        rows.push(Row::Attempt(attempt));
    }
    rows.push(Row::Sale(SaleRow {
        product_id: product,
        version: u64::from(first + count),
        round: 1,
        terms: SaleTerms {
            name: "A lamp".into(),
            price: Money {
                minor: 1999,
                currency: "GBP".into(),
            },
            stock: 1_000_000,
            limit_per_buyer: None,
            hold_ms: None,
            opens_at_ms: 0,
            closes_at_ms: None,
        },
        phase: SalePhase::Open,
        stock: Default::default(),
        tally: Default::default(),
        decided_at_ms: 1_790_000_000_000,
    }));
    rows
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
    format!(
        "p50 {:.0?} p99 {:.0?} max {:.0?}",
        at(0.5),
        at(0.99),
        at(1.0)
    )
}
