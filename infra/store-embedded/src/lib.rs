//! The read store on redb.
//!
//! Rows are applied in memory, where reads see them at once. At most twice a second, and more
//! rarely the more there is to write, a thread of its own writes what has gathered to the file in
//! one durable transaction, sorted by key:
//!
//! ```text
//! apply --> recent rows (memory) --> rows being written (memory) --> redb (file)
//!               \_______________________\______________________________\__ reads
//! ```
//!
//! A read looks in all three and takes the highest version it finds. That is the version rule
//! of the port, so `apply` needs no look at the file, and a row that changes thousands of
//! times a second, as a hot sale's does, reaches the file twice a second at most.
//!
//! Each layer is written with its progress in one transaction, so the file never has
//! progress without its rows, and a crash takes back what was still in memory: the last four
//! seconds at most and the transaction that was under way. The decisions log has all of it; the
//! projector goes on from the progress it finds.
//!
//! Measured on two shared cores (`cargo run --release -p store-embedded --example store_rates`),
//! an attempt row under a random key and an order row an attempt:
//!
//! | | to a file of 250 MiB | to 1 GiB | longest call |
//! |---|---|---|---|
//! | this store, as fast as it goes | 270,000 rows/s | 170,000 rows/s | waits for the disk |
//! | this store, at 100,000 rows/s | | holds; p99 0.2 ms | 12 ms |
//! | a transaction a batch, made durable every second | 118,000-170,000 rows/s | 72,000-85,000 rows/s | 250-500 ms |
//!
//! The last line is the plain way, with redb's `Durability::None` in between. It copies a
//! path of pages for every batch, and everybody waits while a second's worth is made durable.

mod open;
mod rows;

mod paced;
mod rests;

mod eras;
mod flush;
mod reads;
mod recent;

use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use ports::read_store::{AttemptRow, Progress, ReadStore, Row, SaleRow, StoreError};
use schemas::ids::{AttemptId, BuyerId, Partition, Position, ProductId};
use std::collections::{BTreeMap, BTreeSet};
use tempfile::TempPath;

pub use open::OpenError;

use crate::flush::Flusher;
use crate::recent::Layers;
use crate::rows::Era;

/// The read store in one file.
///
/// Dropping it closes it.
pub struct EmbeddedStore {
    shared: Arc<Shared>,
    /// None for a copy, which takes no writes.
    flusher: Option<Mutex<Flusher>>,
    /// The file of a copy, deleted when the store is dropped.
    _copy: Option<TempPath>,
}

/// What callers and the flushing thread share.
struct Shared {
    file: redb::Database,
    layers: Arc<Layers>,
    /// Those of the attempts in the file. An era is in here before the layer with its rows goes away.
    eras: RwLock<BTreeSet<Era>>,
}

impl Shared {
    fn new(file: redb::Database, layers: Arc<Layers>) -> Result<Self, redb::Error> {
        let eras = eras::of_file(&file)?.into_iter().collect();
        Ok(Self {
            file,
            layers,
            eras: RwLock::new(eras),
        })
    }
}

#[async_trait]
impl ReadStore for EmbeddedStore {
    async fn apply(
        &self,
        partition: Partition,
        rows: Vec<Row>,
        progress: Progress,
    ) -> Result<(), StoreError> {
        if self.flusher.is_none() {
            return Err(StoreError("a copy of a store takes no writes".into()));
        }
        let rows = rows
            .iter()
            .map(rows::encode)
            .collect::<Result<Vec<_>, _>>()?;
        self.shared.layers.apply(partition, rows, progress).await
    }

    async fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError> {
        self.shared.progress()
    }

    async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        self.shared.attempt(id)
    }

    async fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError> {
        self.shared.sale(product)
    }

    async fn sales(
        &self,
        after: Option<&ProductId>,
        limit: usize,
    ) -> Result<Vec<SaleRow>, StoreError> {
        self.shared.sales(after, limit)
    }

    async fn orders(
        &self,
        buyer: &BuyerId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        self.shared
            .attempts_of(rows::Table::Orders, buyer.as_str(), after, limit)
    }

    async fn intents(
        &self,
        product: &ProductId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        self.shared
            .attempts_of(rows::Table::Intents, product.as_str(), after, limit)
    }

    async fn visit(&self, visit: Box<dyn FnMut(Row) -> bool + Send>) -> Result<(), StoreError> {
        let shared = self.shared.clone();
        let visiting = tokio::task::spawn_blocking(move || shared.visit(visit));
        visiting
            .await
            .unwrap_or_else(|e| Err(StoreError(format!("the visit stopped: {e}"))))
    }
}

impl EmbeddedStore {
    /// Makes all applied rows durable and takes no more; reads go on. Blocks while it writes.
    /// Closing again does nothing.
    ///
    /// # Errors
    ///
    /// The last rows could not be written; they will be applied again from the log.
    pub fn close(&self) -> Result<(), StoreError> {
        self.flusher
            .as_ref()
            .map_or(Ok(()), |flusher| flusher.lock().close(&self.shared))
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        // A failure has been logged where it happened, and what was lost is in the log.
        let _ = self.close();
    }
}
