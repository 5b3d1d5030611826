use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use ports::read_store::{AttemptRow, MAX_PAGE, Progress, Row, SaleRow};
use ports::{ReadStore, StoreError};
use schemas::ids::{AttemptId, BuyerId, Partition, Position, ProductId};

use crate::calls::Calls;

/// A read store in memory.
#[derive(Default)]
pub struct MemoryStore {
    kept: Mutex<Kept>,
    failing: AtomicBool,
    silent: AtomicBool,
    calls: Calls,
}

#[derive(Default)]
struct Kept {
    sales: BTreeMap<ProductId, SaleRow>,
    attempts: BTreeMap<AttemptId, AttemptRow>,
    orders: BTreeMap<(BuyerId, Position), AttemptRow>,
    intents: BTreeMap<(ProductId, Position), AttemptRow>,
    progress: BTreeMap<Partition, Progress>,
}

impl MemoryStore {
    /// From now on every call fails, or none does.
    pub fn fail(&self, failing: bool) {
        self.failing.store(failing, Ordering::Relaxed);
    }

    /// From now on who asks for a sale, an attempt or the progress gets no answer, or gets one.
    pub fn keep_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::Relaxed);
    }

    /// How often each method of the port was called, by its name.
    pub fn calls(&self) -> BTreeMap<&'static str, usize> {
        self.calls.all()
    }

    /// Writes a row at once, unless a later version is there.
    pub fn put(&self, row: Row) {
        self.kept.lock().put(row);
    }

    /// Never returns when it is to keep silent.
    async fn speak(&self) {
        if self.silent.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// What is kept, for a call of this method, unless calls fail.
    fn call(&self, method: &'static str) -> Result<parking_lot::MutexGuard<'_, Kept>, StoreError> {
        self.calls.count(method);
        if self.failing.load(Ordering::Relaxed) {
            return Err(StoreError("the test made it fail".into()));
        }
        Ok(self.kept.lock())
    }
}

impl Kept {
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
        }
    }
}

/// Writes a row unless a later version is there.
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
        let mut kept = self.call("apply")?;
        rows.into_iter().for_each(|row| kept.put(row));
        kept.progress.insert(partition, progress);
        Ok(())
    }

    async fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError> {
        self.speak().await;
        Ok(self.call("progress")?.progress.clone())
    }

    async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        self.speak().await;
        Ok(self.call("attempt")?.attempts.get(&id).cloned())
    }

    async fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError> {
        self.speak().await;
        Ok(self.call("sale")?.sales.get(product).cloned())
    }

    async fn sales(
        &self,
        after: Option<&ProductId>,
        limit: usize,
    ) -> Result<Vec<SaleRow>, StoreError> {
        let kept = self.call("sales")?;
        Ok(page(
            kept.sales
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
        let kept = self.call("orders")?;
        let theirs = kept
            .orders
            .iter()
            .filter(|((of, at), _)| of == buyer && after.is_none_or(|after| *at > after));
        Ok(page(theirs, limit))
    }

    async fn intents(
        &self,
        product: &ProductId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let kept = self.call("intents")?;
        let its = kept
            .intents
            .iter()
            .filter(|((of, at), _)| of == product && after.is_none_or(|after| *at > after));
        Ok(page(its, limit))
    }

    async fn visit(&self, mut visit: Box<dyn FnMut(Row) -> bool + Send>) -> Result<(), StoreError> {
        let kept = self.call("visit")?;
        let sales = kept.sales.values().cloned().map(Row::Sale);
        let attempts = kept.attempts.values().cloned().map(Row::Attempt);
        let orders = kept.orders.values().cloned().map(Row::Order);
        let intents = kept.intents.values().cloned().map(Row::Intent);
        let _ = sales
            .chain(attempts)
            .chain(orders)
            .chain(intents)
            .all(&mut visit);
        Ok(())
    }
}
