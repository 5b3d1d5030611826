//! A keyspace for a test, and rows to put into it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ports::read_store::{AttemptRow, AttemptStatus, Progress, ReadStore, Row, SalePhase, SaleRow};
use schemas::command::SaleTerms;
use schemas::ids::{AttemptId, Money, Offset, Partition, Position};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use store_scylla::{Options, ScyllaStore};

/// Long enough for a slow machine to create a keyspace and its tables.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A keyspace for one test, dropped when the test has passed.
pub struct Keyspace {
    pub name: String,
    pub session: Arc<Session>,
}

impl Keyspace {
    /// A unique name; the store creates the keyspace itself.
    pub async fn new() -> Self {
        static COUNT: AtomicU64 = AtomicU64::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let session = SessionBuilder::new().known_node(node()).build().await;
        Self {
            name: format!("store_{}_{count}_{:x}", std::process::id(), rand()),
            session: Arc::new(session.unwrap()),
        }
    }

    pub fn options(&self) -> Options {
        options(&node(), &self.name)
    }

    /// A store in this keyspace, ready.
    pub async fn store(&self) -> ScyllaStore {
        let store = ScyllaStore::open(self.options()).unwrap();
        store.ready(PATIENCE).await.unwrap();
        store
    }

    /// Runs a statement on the node, with tables named as `ks.table`.
    pub async fn cql(&self, cql: &str) -> scylla::response::query_result::QueryResult {
        let cql = cql.replace("ks.", &format!("{}.", self.name));
        self.session.query_unpaged(cql, ()).await.unwrap()
    }

    pub async fn drop(self) {
        self.cql(&format!("DROP KEYSPACE IF EXISTS {}", self.name))
            .await;
    }
}

pub fn node() -> String {
    engines::shared().cql_node()
}

pub fn options(node: &str, keyspace: &str) -> Options {
    Options {
        nodes: vec![node.to_owned()],
        keyspace: keyspace.to_owned(),
        datacenter: None,
        replication: 1,
        username: None,
        password: None,
        tls: None,
        max_in_flight: 64,
    }
}

fn rand() -> u32 {
    uuid::Uuid::new_v4().as_fields().0
}

pub async fn apply(store: &ScyllaStore, rows: &[Row], next: i64) {
    let applied = store.apply(Partition(0), rows.to_vec(), progress(next));
    assert_eq!(applied.await, Ok(()));
}

pub fn progress(next: i64) -> Progress {
    Progress {
        next: Offset(next),
        claim: Offset(0),
        answered: Offset(next - 1),
        log: None,
    }
}

pub fn attempt(partition: u32, offset: i64, version: u64) -> AttemptRow {
    let id = (u128::from(partition) << 64 | offset as u64 as u128).to_be_bytes();
    AttemptRow {
        attempt_id: AttemptId::from_bytes(id),
        product_id: "lamp".parse().unwrap(),
        buyer_id: "ann".parse().unwrap(),
        quantity: 1,
        position: Position {
            partition: Partition(partition),
            offset: Offset(offset),
        },
        status: AttemptStatus::Sold,
        decided_at_ms: version as i64,
        hold_until_ms: None,
        version,
        trace_id: None,
        price: None,
    }
}

pub fn sale(product: &str, version: u64) -> SaleRow {
    SaleRow {
        product_id: product.parse().unwrap(),
        version,
        round: 1,
        terms: SaleTerms {
            name: "A lamp".into(),
            price: Money {
                minor: 1999,
                currency: "GBP".into(),
            },
            stock: 100,
            limit_per_buyer: None,
            hold_ms: None,
            opens_at_ms: 0,
            closes_at_ms: None,
        },
        phase: SalePhase::Open,
        stock: Default::default(),
        tally: Default::default(),
        decided_at_ms: version as i64,
        sale_version: None,
    }
}
