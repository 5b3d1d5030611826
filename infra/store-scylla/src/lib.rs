//! The read store on ScyllaDB or Apache Cassandra.
//!
//! Each question has a table that answers it from one partition of bounded size, or a few:
//!
//! | question | table | partition |
//! |---|---|---|
//! | how does an attempt stand? | `attempts` | an attempt |
//! | what is on sale? | `sales` | one of 64 buckets |
//! | which orders has a buyer? | `orders` | buyer, log partition, era |
//! | who wanted a product and did not get it? | `intents` | product, log partition, era |
//! | in which eras are they? | `order_eras`, `intent_eras` | buyer; product |
//! | how far are the read models? | `progress` | all in one, a row a log partition |
//!
//! An era is 65,536 offsets of a log partition. `migrations/` has the tables, column by column.
//!
//! Every row is written with its product's version as the time of the write, so the nodes
//! themselves keep the newest, whatever comes late or twice. There is nothing to read before
//! a write, and no counter, no lightweight transaction, no batch across partitions. Whatever is
//! written or read is settled by a quorum, so what [`ReadStore::apply`] has answered is seen by
//! every later read.
//!
//! The store connects in the background and reconnects by itself; until then, and in between,
//! every call fails and says what it waits for.

mod options;

mod cluster;
mod connect;
mod migrate;

mod eras;
mod rows;
mod statements;

mod read;
mod together;
mod write;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::read_store::{AttemptRow, Progress, ReadStore, Row, SaleRow, StoreError};
use schemas::ids::{AttemptId, BuyerId, Partition, Position, ProductId};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use connect::NotReady;
pub use options::{OpenError, Options, Tls};

use crate::cluster::Cluster;
use crate::connect::State;

/// The read store in a keyspace of ScyllaDB or Apache Cassandra.
///
/// Dropping it closes its connections.
pub struct ScyllaStore {
    state: watch::Receiver<State>,
    connecting: JoinHandle<()>,
}

impl ScyllaStore {
    /// Begins to connect in the background, and returns at once with only the options checked.
    ///
    /// The keyspace and its tables are created when they are missing. As long as the nodes
    /// cannot be reached, or their schema is none that this version can use, that is tried
    /// again every few seconds.
    ///
    /// # Panics
    ///
    /// When called outside a Tokio runtime.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        let driver = options.driver()?;
        let (sender, state) = watch::channel(State::beginning(&options));
        let connecting = tokio::spawn(connect::keep_trying(options, driver, sender));
        Ok(Self { state, connecting })
    }

    /// Waits until the store is connected and its tables are there; at most `timeout`.
    ///
    /// Fails at once when somebody has to mend something first: wrong credentials, a schema of
    /// another version. Services need not call this, since every call says the same.
    pub async fn ready(&self, timeout: Duration) -> Result<(), NotReady> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, State::Waiting(_)));
        let settled = tokio::time::timeout(timeout, settled).await.is_ok();
        match &*self.state.borrow() {
            State::Connected(_) => Ok(()),
            State::Refused(why) => Err(NotReady::Refused(why.clone())),
            State::Waiting(_) if settled => Err(NotReady::Refused("connecting panicked".into())),
            State::Waiting(why) => Err(NotReady::Timeout {
                timeout,
                why: why.clone(),
            }),
        }
    }

    fn cluster(&self) -> Result<Arc<Cluster>, StoreError> {
        match &*self.state.borrow() {
            State::Connected(cluster) => Ok(cluster.clone()),
            State::Waiting(why) | State::Refused(why) => Err(StoreError(why.clone())),
        }
    }
}

impl Drop for ScyllaStore {
    fn drop(&mut self) {
        self.connecting.abort();
    }
}

#[async_trait]
impl ReadStore for ScyllaStore {
    async fn apply(
        &self,
        partition: Partition,
        rows: Vec<Row>,
        progress: Progress,
    ) -> Result<(), StoreError> {
        self.cluster()?.apply(partition, &rows, progress).await
    }

    async fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError> {
        self.cluster()?.progress().await
    }

    async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        self.cluster()?.attempt(id).await
    }

    async fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError> {
        self.cluster()?.sale(product).await
    }

    async fn sales(
        &self,
        after: Option<&ProductId>,
        limit: usize,
    ) -> Result<Vec<SaleRow>, StoreError> {
        self.cluster()?.sales(after, limit).await
    }

    async fn orders(
        &self,
        buyer: &BuyerId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let cluster = self.cluster()?;
        let orders = &cluster.statements.orders;
        cluster.list(orders, buyer.as_str(), after, limit).await
    }

    async fn intents(
        &self,
        product: &ProductId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let cluster = self.cluster()?;
        let intents = &cluster.statements.intents;
        cluster.list(intents, product.as_str(), after, limit).await
    }

    async fn visit(&self, visit: Box<dyn FnMut(Row) -> bool + Send>) -> Result<(), StoreError> {
        self.cluster()?.visit(visit).await
    }
}
