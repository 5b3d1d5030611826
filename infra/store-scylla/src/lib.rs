//! The read store on ScyllaDB or Apache Cassandra.
//!
//! Each query has a table that answers it from one partition of bounded size, or a few:
//!
//! | query | table | partition |
//! |---|---|---|
//! | the status of an attempt | `attempts` | an attempt |
//! | the sales | `sales` | one of 64 buckets |
//! | a buyer's orders | `orders` | buyer, log partition, era |
//! | a product's intents | `intents` | product, log partition, era |
//! | the eras that have orders, intents | `order_eras`, `intent_eras` | buyer; product |
//! | the progress of the read models | `progress` | one, with a row for each log partition |
//! | the log that they were made from | `log_marks` | one, with a row for each log partition |
//!
//! An era is 65,536 offsets of a log partition. `migrations/` documents the tables, column by column.
//!
//! Every row is written with its product's version as the write time, so the nodes themselves keep
//! the newest version, whatever arrives late or twice. There is no read before a write, no counter,
//! no lightweight transaction, and no logged batch. Reads and writes use a quorum, so every read that
//! begins after [`ReadStore::apply`] returned Ok finds the rows.
//!
//! The store connects in the background and reconnects by itself. While it is not connected, every
//! call fails with the reason.

mod options;

mod eras;
mod rows;
mod statements;

mod cluster;

mod batching;
mod read;
mod write;

mod connect;
mod counts;
mod failure;
mod migrate;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::read_store::{AttemptRow, CommandRow, Progress, ReadStore, Row, SaleRow, StoreError};
use schemas::ids::{AttemptId, BuyerId, Partition, Position, ProductId};
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use connect::NotReady;
pub use counts::ERROR_KINDS;
pub use options::{OpenError, Options, Tls};

use crate::cluster::Cluster;
use crate::connect::{Access, State};
use crate::counts::Counts;

/// The read store in a keyspace of ScyllaDB or Apache Cassandra.
///
/// Dropping it closes its connections.
pub struct ScyllaStore {
    access: Access,
    counts: Arc<Counts>,
    state: watch::Receiver<State>,
    connecting: JoinHandle<()>,
}

impl ScyllaStore {
    /// Checks the options, begins to connect in the background, and returns at once.
    ///
    /// Creates the keyspace and its tables if they are missing. Tries again every few seconds while
    /// the nodes cannot be reached, or have a schema that this version cannot use.
    ///
    /// # Panics
    ///
    /// When called outside tokio's runtime.
    pub fn open(options: Options) -> Result<Self, OpenError> {
        Self::open_with(options, Access::Full)
    }

    /// Like [`ScyllaStore::open`], for reading only: creates nothing, and refuses to write rows. A
    /// keyspace or tables that are missing are named by every call.
    pub fn open_to_read(options: Options) -> Result<Self, OpenError> {
        Self::open_with(options, Access::ReadOnly)
    }

    fn open_with(options: Options, access: Access) -> Result<Self, OpenError> {
        let counts = Arc::<Counts>::default();
        let driver = options.driver(counts.clone())?;
        let (sender, state) = watch::channel(State::beginning(&options));
        let trying = connect::keep_trying(options, driver, access, counts.clone(), sender);
        let connecting = tokio::spawn(trying);
        Ok(Self {
            access,
            counts,
            state,
            connecting,
        })
    }

    /// Waits until the store is connected and has its tables, at most `timeout`. Services need not call
    /// this: every other call fails with the same reason.
    ///
    /// # Errors
    ///
    /// [`NotReady::Timeout`] after `timeout`; [`NotReady::Refused`] at once when an operator has to
    /// fix something first, such as wrong credentials or a schema of another version.
    pub async fn ready(&self, timeout: Duration) -> Result<(), NotReady> {
        let mut state = self.state.clone();
        let settled = state.wait_for(|state| !matches!(state, State::Waiting(_)));
        let settled = tokio::time::timeout(timeout, settled).await.is_ok();
        match &*self.state.borrow() {
            State::Connected(_) => Ok(()),
            State::Refused(why) => Err(NotReady::Refused(why.clone())),
            State::Waiting(_) if settled => Err(NotReady::Refused(
                "the task that connects has panicked".into(),
            )),
            State::Waiting(why) => Err(NotReady::Timeout {
                timeout,
                why: why.clone(),
            }),
        }
    }

    /// How many requests and attempts to connect of each of the [`ERROR_KINDS`] have failed since the
    /// store was opened.
    pub fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.counts.errors()
    }

    /// How many requests were sent again since the store was opened.
    pub fn retries(&self) -> u64 {
        self.counts.retries()
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
        if self.access == Access::ReadOnly {
            return Err(StoreError("it is open for reading only".into()));
        }
        self.cluster()?.apply(partition, &rows, progress).await
    }

    async fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError> {
        self.cluster()?.progress().await
    }

    async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        self.cluster()?.attempt(id).await
    }

    async fn command(&self, at: Position) -> Result<Option<CommandRow>, StoreError> {
        self.cluster()?.command(at).await
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
