//! Prints how fast rows are applied, beside the same rows written by a bare loop over the
//! driver: one prepared insert a row, as many at once.
//!
//! ```text
//! cargo run --release -p store-scylla --example rates -- 127.0.0.1:9042 [attempts]
//! ```
//!
//! Every attempt is a row by its id and a row in a list, as in calls of 2,000 decisions, and
//! every call has the sale's row besides. The bare loop leaves out the sales, the eras and the
//! progress, which is in its favour.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures::stream::{self, StreamExt, TryStreamExt};
use ports::read_store::{AttemptRow, AttemptStatus, Progress, ReadStore, Row, SalePhase, SaleRow};
use schemas::command::SaleTerms;
use schemas::decision::RefusalReason;
use schemas::ids::{AttemptId, Money, Offset, Partition, Position};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::prepared::PreparedStatement;
use store_scylla::{Options, ScyllaStore};
use uuid::Uuid;

const AT_ONCE: usize = 256;
const DECISIONS: u32 = 2_000;

/// Which list an attempt of the workload is in.
#[derive(Clone, Copy, Debug)]
enum Workload {
    /// All accepted, each of a buyer of its own: the most partitions there can be.
    Accepted,
    /// All refused, of one product: the fewest.
    Refused,
    /// One in ten accepted.
    Mixed,
}

#[tokio::main]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let node = arguments.next().context("name a node, as host:port")?;
    let attempts = arguments.next().map_or(Ok(60_000), |n| n.parse())?;
    let keyspace = format!("rates_{}", Uuid::new_v4().simple());
    let store = ScyllaStore::open(Options {
        nodes: vec![node.clone()],
        keyspace: keyspace.clone(),
        datacenter: None,
        replication: 1,
        username: None,
        password: None,
        tls: None,
        max_in_flight: AT_ONCE,
    })?;
    store.ready(Duration::from_secs(30)).await?;
    let session = SessionBuilder::new().known_node(node).build().await?;
    session.use_keyspace(&keyspace, false).await?;
    let bare = Bare::prepare(session).await?;

    // The first round warms up the node. Both take turns, so that both meet the same one.
    for round in 0..4 {
        for workload in [Workload::Accepted, Workload::Refused, Workload::Mixed] {
            // Rows of its own for each, so that neither finds what the other wrote.
            let calls = |owner: &str| {
                let owner = format!("{workload:?}-{round}-{owner}");
                let calls = (0..attempts / DECISIONS).map(|call| rows(workload, &owner, call));
                calls.collect::<Vec<_>>().into_iter()
            };
            let (mut bare_time, mut store_time) = (Duration::ZERO, Duration::ZERO);
            for (call, (bare_rows, rows)) in calls("bare").zip(calls("store")).enumerate() {
                let began = Instant::now();
                bare.write(bare_rows).await?;
                bare_time += began.elapsed();

                let next = Offset((call as i64 + 1) * i64::from(DECISIONS));
                let progress = Progress {
                    next,
                    claim: Offset(0),
                    answered: next,
                };
                let began = Instant::now();
                store.apply(Partition(0), rows, progress).await?;
                store_time += began.elapsed();
            }
            let count = f64::from(attempts / DECISIONS * DECISIONS * 2);
            let (rate, bare_rate) = (
                count / store_time.as_secs_f64(),
                count / bare_time.as_secs_f64(),
            );
            println!(
                "round {round}, {workload:?}: apply {rate:>6.0} rows/s, \
                 bare loop {bare_rate:>6.0} rows/s; {:.0} %",
                rate / bare_rate * 100.0
            );
        }
    }
    let began = Instant::now();
    store.sales(None, 100).await?;
    println!("a page of sales: {:.1?}", began.elapsed());
    drop(store);
    bare.session
        .query_unpaged(format!("DROP KEYSPACE {keyspace}"), ())
        .await?;
    Ok(())
}

/// The bare loop.
struct Bare {
    session: Session,
    attempt: PreparedStatement,
    order: PreparedStatement,
    intent: PreparedStatement,
}

impl Bare {
    async fn prepare(session: Session) -> Result<Self> {
        let columns = "attempt_id, product_id, buyer_id, quantity, log_partition, log_offset, \
                       status, reason, decided_at_ms, hold_until_ms, version, trace_id";
        let (more, values) = (
            format!("{columns}, era"),
            "?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?",
        );
        let attempt =
            format!("INSERT INTO attempts ({columns}) VALUES ({values}) USING TIMESTAMP ?");
        let order = format!("INSERT INTO orders ({more}) VALUES ({values}, ?) USING TIMESTAMP ?");
        let intent = format!("INSERT INTO intents ({more}) VALUES ({values}, ?) USING TIMESTAMP ?");
        Ok(Self {
            attempt: session.prepare(attempt).await?,
            order: session.prepare(order).await?,
            intent: session.prepare(intent).await?,
            session,
        })
    }

    async fn write(&self, rows: Vec<Row>) -> Result<()> {
        let rows = stream::iter(rows).map(anyhow::Ok);
        rows.try_for_each_concurrent(AT_ONCE, |row| self.insert(row))
            .await
    }

    async fn insert(&self, row: Row) -> Result<()> {
        let (statement, row) = match row {
            Row::Attempt(row) => (&self.attempt, row),
            Row::Order(row) => (&self.order, row),
            Row::Intent(row) => (&self.intent, row),
            Row::Sale(_) => return Ok(()),
        };
        let (status, reason) = match row.status {
            AttemptStatus::Refused(reason) => ("refused", reason.as_str()),
            _ => ("sold", ""),
        };
        let Position { partition, offset } = row.position;
        let (id, version) = (
            Uuid::from_bytes(*row.attempt_id.as_bytes()),
            row.version as i64,
        );
        let (product, buyer) = (row.product_id.as_str(), row.buyer_id.as_str());
        let (partition, offset) = (i64::from(partition.0), offset.0);
        let (quantity, decided) = (i64::from(row.quantity), row.decided_at_ms);
        let (hold, trace) = (i64::MIN, &[][..] as &[u8]);
        let inserted = match statement.get_variable_col_specs().len() {
            13 => {
                let values = (
                    id, product, buyer, quantity, partition, offset, status, reason, decided, hold,
                    version, trace, version,
                );
                self.session.execute_unpaged(statement, values).await
            }
            _ => {
                let values = (
                    id,
                    product,
                    buyer,
                    quantity,
                    partition,
                    offset,
                    status,
                    reason,
                    decided,
                    hold,
                    version,
                    trace,
                    offset >> 16,
                    version,
                );
                self.session.execute_unpaged(statement, values).await
            }
        };
        inserted?;
        Ok(())
    }
}

/// What a call of 2,000 decisions writes.
fn rows(workload: Workload, owner: &str, call: u32) -> Vec<Row> {
    let mut rows = Vec::with_capacity(DECISIONS as usize * 2 + 1);
    let first = call * DECISIONS;
    for n in first..first + DECISIONS {
        let accepted = match workload {
            Workload::Accepted => true,
            Workload::Refused => false,
            Workload::Mixed => n % 10 == 0,
        };
        let attempt = AttemptRow {
            attempt_id: AttemptId::generate(),
            product_id: owner.parse().expect("is an id"),
            buyer_id: format!("{owner}-{n:06}").parse().expect("is an id"),
            quantity: 1,
            position: Position {
                partition: Partition(0),
                offset: Offset(n.into()),
            },
            status: match accepted {
                true => AttemptStatus::Sold,
                false => AttemptStatus::Refused(RefusalReason::SoldOut),
            },
            decided_at_ms: 1_790_000_000_000,
            hold_until_ms: None,
            version: u64::from(n) + 1,
            trace_id: None,
        };
        rows.push(Row::Attempt(attempt.clone()));
        rows.push(match accepted {
            true => Row::Order(attempt),
            false => Row::Intent(attempt),
        });
    }
    rows.push(Row::Sale(SaleRow {
        product_id: owner.parse().expect("is an id"),
        version: u64::from(first + DECISIONS),
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
