//! A read store in memory.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use ports::read_store::{AttemptRow, CommandRow, MAX_PAGE, Progress, Row, SaleRow};
use ports::{ReadStore, StoreError};
use schemas::ids::{AttemptId, BuyerId, Partition, Position, ProductId};

use crate::calls::Calls;

/// A read store in memory. Clones are the same store, as several processes use it.
#[derive(Clone, Default)]
pub struct MemoryStore(Arc<Shared>);

#[derive(Default)]
struct Shared {
    tables: Mutex<Tables>,
    failing: AtomicBool,
    silent: AtomicBool,
    calls: Calls,
}

#[derive(Default)]
struct Tables {
    sales: BTreeMap<ProductId, SaleRow>,
    attempts: BTreeMap<AttemptId, AttemptRow>,
    orders: BTreeMap<(BuyerId, Position), AttemptRow>,
    intents: BTreeMap<(ProductId, Position), AttemptRow>,
    commands: BTreeMap<Position, CommandRow>,
    progress: BTreeMap<Partition, Progress>,
}

impl MemoryStore {
    /// Lets every call fail from now on, or none.
    pub fn fail(&self, failing: bool) {
        self.0.failing.store(failing, Ordering::Relaxed);
    }

    /// Lets reads of a sale, an attempt or the progress wait forever from now on, or answers them.
    pub fn keep_silent(&self, silent: bool) {
        self.0.silent.store(silent, Ordering::Relaxed);
    }

    /// How often each method of the port was called, by its name.
    pub fn calls(&self) -> BTreeMap<&'static str, usize> {
        self.0.calls.all()
    }

    /// Writes a row, unless the store has a higher version.
    pub fn put(&self, row: Row) {
        self.0.tables.lock().put(row);
    }

    /// Waits forever if the test has silenced the store.
    async fn wait_if_silent(&self) {
        if self.0.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// Counts a call of this method and returns the tables, unless calls fail.
    fn call(
        &self,
        method: &'static str,
    ) -> Result<parking_lot::MutexGuard<'_, Tables>, StoreError> {
        self.0.calls.count(method);
        if self.0.failing.load(Ordering::Relaxed) {
            return Err(StoreError("the test made it fail".into()));
        }
        Ok(self.0.tables.lock())
    }
}

impl Tables {
    fn put(&mut self, row: Row) {
        let version = |row: &AttemptRow| row.version;
        match row {
            Row::Sale(row) => {
                put(&mut self.sales, row.product_id.clone(), row, |row| {
                    row.version
                });
            }
            Row::Attempt(row) => put(&mut self.attempts, row.attempt_id, row, version),
            Row::Order(row) => {
                put(
                    &mut self.orders,
                    (row.buyer_id.clone(), row.position),
                    row,
                    version,
                );
            }
            Row::Intent(row) => {
                put(
                    &mut self.intents,
                    (row.product_id.clone(), row.position),
                    row,
                    version,
                );
            }
            Row::Command(row) => put(&mut self.commands, row.position, row, |_| 0),
        }
    }
}

/// Writes a row, unless the table has a higher version.
fn put<K: Ord, V>(table: &mut BTreeMap<K, V>, key: K, row: V, version: impl Fn(&V) -> u64) {
    if table
        .get(&key)
        .is_none_or(|there| version(there) <= version(&row))
    {
        table.insert(key, row);
    }
}

fn page<'a, K: Ord + 'a, V: Clone + 'a>(
    rows: impl Iterator<Item = (&'a K, &'a V)>,
    limit: usize,
) -> Vec<V> {
    rows.take(limit.min(MAX_PAGE))
        .map(|(_, row)| row.clone())
        .collect()
}

#[async_trait]
impl ReadStore for MemoryStore {
    async fn apply(
        &self,
        partition: Partition,
        rows: Vec<Row>,
        progress: Progress,
    ) -> Result<(), StoreError> {
        let mut tables = self.call("apply")?;
        rows.into_iter().for_each(|row| tables.put(row));
        tables.progress.insert(partition, progress);
        Ok(())
    }

    async fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError> {
        self.wait_if_silent().await;
        Ok(self.call("progress")?.progress.clone())
    }

    async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        self.wait_if_silent().await;
        Ok(self.call("attempt")?.attempts.get(&id).cloned())
    }

    async fn command(&self, at: Position) -> Result<Option<CommandRow>, StoreError> {
        self.wait_if_silent().await;
        Ok(self.call("command")?.commands.get(&at).cloned())
    }

    async fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError> {
        self.wait_if_silent().await;
        Ok(self.call("sale")?.sales.get(product).cloned())
    }

    async fn sales(
        &self,
        after: Option<&ProductId>,
        limit: usize,
    ) -> Result<Vec<SaleRow>, StoreError> {
        let tables = self.call("sales")?;
        Ok(page(
            tables
                .sales
                .iter()
                .filter(|(id, _)| after.is_none_or(|after| *id > after)),
            limit,
        ))
    }

    async fn orders(
        &self,
        buyer: &BuyerId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let tables = self.call("orders")?;
        let orders = tables
            .orders
            .iter()
            .filter(|((of, at), _)| of == buyer && after.is_none_or(|after| *at > after));
        Ok(page(orders, limit))
    }

    async fn intents(
        &self,
        product: &ProductId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let tables = self.call("intents")?;
        let intents = tables
            .intents
            .iter()
            .filter(|((of, at), _)| of == product && after.is_none_or(|after| *at > after));
        Ok(page(intents, limit))
    }

    async fn visit(&self, mut visit: Box<dyn FnMut(Row) -> bool + Send>) -> Result<(), StoreError> {
        let tables = self.call("visit")?;
        let sales = tables.sales.values().cloned().map(Row::Sale);
        let attempts = tables.attempts.values().cloned().map(Row::Attempt);
        let orders = tables.orders.values().cloned().map(Row::Order);
        let intents = tables.intents.values().cloned().map(Row::Intent);
        let commands = tables.commands.values().cloned().map(Row::Command);
        let _ = sales
            .chain(attempts)
            .chain(orders)
            .chain(intents)
            .chain(commands)
            .all(&mut visit);
        Ok(())
    }
}
