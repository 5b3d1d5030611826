//! The store as callers use it.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use ports::read_store::{AttemptRow, CommandRow, Progress, ReadStore, Row, SaleRow, StoreError};
use schemas::ids::{AttemptId, BuyerId, Partition, Position, ProductId};
use tempfile::TempPath;

use crate::contents::Contents;
use crate::flush::Flusher;
use crate::lookups::Lookups;
use crate::rows;

/// The read store in one file.
///
/// Dropping it closes it.
pub struct EmbeddedStore {
    pub(crate) contents: Arc<Contents>,
    /// None for a copy, which refuses writes.
    pub(crate) flusher: Option<Mutex<Flusher>>,
    /// Limits the look-ups of attempts by id.
    pub(crate) lookups: Lookups,
    /// The file of a copy, deleted when the store is dropped.
    pub(crate) _copy: Option<TempPath>,
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
            return Err(StoreError(
                "this is a copy of a read store, which takes no writes".into(),
            ));
        }
        let rows = rows
            .iter()
            .map(rows::encode)
            .collect::<Result<Vec<_>, _>>()?;
        self.contents
            .memtables
            .apply(partition, rows, progress)
            .await
    }

    async fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError> {
        self.contents.progress()
    }

    async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        let contents = self.contents.clone();
        self.lookups.run(move || contents.attempt(id)).await
    }

    async fn command(&self, at: Position) -> Result<Option<CommandRow>, StoreError> {
        self.contents.command(at)
    }

    async fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError> {
        self.contents.sale(product)
    }

    async fn sales(
        &self,
        after: Option<&ProductId>,
        limit: usize,
    ) -> Result<Vec<SaleRow>, StoreError> {
        self.contents.sales(after, limit)
    }

    async fn orders(
        &self,
        buyer: &BuyerId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        self.contents
            .attempts_of(rows::Table::Orders, buyer.as_str(), after, limit)
    }

    async fn intents(
        &self,
        product: &ProductId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        self.contents
            .attempts_of(rows::Table::Intents, product.as_str(), after, limit)
    }

    async fn visit(&self, visit: Box<dyn FnMut(Row) -> bool + Send>) -> Result<(), StoreError> {
        let contents = self.contents.clone();
        let visiting = tokio::task::spawn_blocking(move || contents.visit(visit));
        visiting.await.unwrap_or_else(|e| {
            Err(StoreError(format!(
                "the visit of all rows was aborted: {e}"
            )))
        })
    }
}

impl EmbeddedStore {
    /// Makes all applied rows durable and refuses further ones; reads still work. Blocks while it
    /// writes. A second call does nothing.
    ///
    /// # Errors
    ///
    /// The last rows could not be written. The projector applies them again from the log at the next
    /// start.
    pub fn close(&self) -> Result<(), StoreError> {
        self.flusher
            .as_ref()
            .map_or(Ok(()), |flusher| flusher.lock().close(&self.contents))
    }
}

impl Drop for EmbeddedStore {
    fn drop(&mut self) {
        // A failure was logged where it happened, and the log still has the lost rows.
        let _ = self.close();
    }
}
