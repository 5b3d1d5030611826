//! A read store in memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use async_trait::async_trait;
use parking_lot::Mutex;
use ports::read_store::{AttemptRow, Progress, Row, SaleRow};
use ports::{ReadStore, StoreError};
use schemas::ids::{AttemptId, BuyerId, Partition, Position, ProductId};

/// A store in memory that counts how often it is asked for an attempt.
#[derive(Default)]
pub struct MemoryStore {
    pub failing: AtomicBool,
    pub attempts_asked: AtomicUsize,
    progress: Mutex<BTreeMap<Partition, Progress>>,
    rows: Mutex<Vec<Row>>,
}

impl MemoryStore {
    fn check(&self) -> Result<(), StoreError> {
        match self.failing.load(Ordering::Relaxed) {
            true => Err(StoreError("switched off".into())),
            false => Ok(()),
        }
    }

    fn page<R>(
        &self,
        after: Option<Position>,
        limit: usize,
        choose: impl Fn(&Row) -> Option<R>,
        place: impl Fn(&R) -> Position,
    ) -> Result<Vec<R>, StoreError> {
        self.check()?;
        let mut rows: Vec<R> = self.rows.lock().iter().filter_map(choose).collect();
        rows.sort_by_key(&place);
        let after = |row: &R| after.is_none_or(|after| place(row) > after);
        Ok(rows.into_iter().filter(after).take(limit).collect())
    }
}

#[async_trait]
impl ReadStore for MemoryStore {
    async fn apply(
        &self,
        partition: Partition,
        rows: Vec<Row>,
        progress: Progress,
    ) -> Result<(), StoreError> {
        self.rows.lock().extend(rows);
        self.progress.lock().insert(partition, progress);
        Ok(())
    }

    async fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError> {
        self.check()?;
        Ok(self.progress.lock().clone())
    }

    async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        self.attempts_asked.fetch_add(1, Ordering::Relaxed);
        self.check()?;
        let rows = self.rows.lock();
        let of_id = rows.iter().filter_map(|row| match row {
            Row::Attempt(row) if row.attempt_id == id => Some(row.clone()),
            _ => None,
        });
        Ok(of_id.max_by_key(|row| row.version))
    }

    async fn sale(&self, _: &ProductId) -> Result<Option<SaleRow>, StoreError> {
        unreachable!("sales are loaded once, and then folded")
    }

    async fn sales(
        &self,
        after: Option<&ProductId>,
        limit: usize,
    ) -> Result<Vec<SaleRow>, StoreError> {
        self.check()?;
        let mut sales = BTreeMap::new();
        for row in self.rows.lock().iter() {
            if let Row::Sale(sale) = row {
                sales.insert(sale.product_id.clone(), sale.clone());
            }
        }
        let after = |sale: &SaleRow| after.is_none_or(|after| sale.product_id > *after);
        Ok(sales.into_values().filter(after).take(limit).collect())
    }

    async fn orders(
        &self,
        buyer: &BuyerId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let of_buyer = |row: &Row| match row {
            Row::Order(row) if row.buyer_id == *buyer => Some(row.clone()),
            _ => None,
        };
        self.page(after, limit, of_buyer, |row| row.position)
    }

    async fn intents(
        &self,
        product: &ProductId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let of_product = |row: &Row| match row {
            Row::Intent(row) if row.product_id == *product => Some(row.clone()),
            _ => None,
        };
        self.page(after, limit, of_product, |row| row.position)
    }

    async fn visit(&self, _: Box<dyn FnMut(Row) -> bool + Send>) -> Result<(), StoreError> {
        unreachable!("the read side never reads everything")
    }
}
