//! A log and a store in memory that fail on demand.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use parking_lot::Mutex;
use ports::clock::Clock;
use ports::event_log::{AppendError, EventLog, Group, LogReader, NewRecord, ReadError};
use ports::read_store::{AttemptRow, Progress, ReadStore, Row, SalePhase, SaleRow, StoreError};
use schemas::command::SaleTerms;
use schemas::decision::{Stock, Tally};
use schemas::ids::{
    AttemptId, BuyerId, Money, Offset, Partition, Position, ProductId, TimestampMs,
};
use schemas::topics::Topic;
use tokio::sync::watch;

pub const PARTITIONS: u32 = 8;

/// What the log does with the next records.
#[derive(Clone)]
pub enum Mood {
    Takes,
    Fails(AppendError),
    Hangs,
}

pub struct MemoryLog {
    pub mood: Mutex<Mood>,
    pub appended: Mutex<Vec<(Partition, NewRecord)>>,
    ends: Mutex<BTreeMap<Partition, i64>>,
}

impl Default for MemoryLog {
    fn default() -> Self {
        Self {
            mood: Mutex::new(Mood::Takes),
            appended: Mutex::default(),
            ends: Mutex::default(),
        }
    }
}

#[async_trait]
impl EventLog for MemoryLog {
    fn partitions(&self) -> u32 {
        PARTITIONS
    }

    async fn append(
        &self,
        topic: Topic,
        partition: Partition,
        records: Vec<NewRecord>,
    ) -> Result<Offset, AppendError> {
        assert_eq!(
            topic,
            Topic::PurchaseAttempts,
            "the door writes nothing else"
        );
        let mood = self.mood.lock().clone();
        match mood {
            Mood::Takes => {}
            Mood::Fails(error) => return Err(error),
            Mood::Hangs => std::future::pending().await,
        }
        let mut ends = self.ends.lock();
        let end = ends.entry(partition).or_insert(0);
        *end += records.len() as i64;
        let records = records.into_iter().map(|record| (partition, record));
        self.appended.lock().extend(records);
        Ok(Offset(*end - 1))
    }

    async fn read(
        &self,
        _: Topic,
        _: Partition,
        _: Offset,
    ) -> Result<Box<dyn LogReader>, ReadError> {
        panic!("the door reads no log");
    }

    async fn end(&self, _: Topic, _: Partition) -> Result<Offset, ReadError> {
        panic!("the door reads no log");
    }

    async fn offset_at(&self, _: Topic, _: Partition, _: TimestampMs) -> Result<Offset, ReadError> {
        panic!("the door reads no log");
    }

    fn assignment(&self, _: Group) -> watch::Receiver<BTreeSet<Partition>> {
        panic!("the door belongs to no group");
    }
}

/// Knows whether products exist, and how often it was asked.
#[derive(Default)]
pub struct MemoryStore {
    pub products: Mutex<HashSet<String>>,
    pub fails: Mutex<bool>,
    pub asked: Mutex<usize>,
}

#[async_trait]
impl ReadStore for MemoryStore {
    async fn apply(&self, _: Partition, _: Vec<Row>, _: Progress) -> Result<(), StoreError> {
        panic!("the door writes no rows");
    }

    async fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError> {
        panic!("the door asks for sales alone");
    }

    async fn attempt(&self, _: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        panic!("the door asks for sales alone");
    }

    async fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError> {
        *self.asked.lock() += 1;
        if *self.fails.lock() {
            return Err(StoreError("on demand".into()));
        }
        let known = self.products.lock().contains(product.as_str());
        Ok(known.then(|| sale(product)))
    }

    async fn sales(&self, _: Option<&ProductId>, _: usize) -> Result<Vec<SaleRow>, StoreError> {
        panic!("the door asks for sales alone");
    }

    async fn orders(
        &self,
        _: &BuyerId,
        _: Option<Position>,
        _: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        panic!("the door asks for sales alone");
    }

    async fn intents(
        &self,
        _: &ProductId,
        _: Option<Position>,
        _: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        panic!("the door asks for sales alone");
    }

    async fn visit(&self, _: Box<dyn FnMut(Row) -> bool + Send>) -> Result<(), StoreError> {
        panic!("the door asks for sales alone");
    }
}

fn sale(product: &ProductId) -> SaleRow {
    SaleRow {
        product_id: product.clone(),
        version: 1,
        round: 1,
        terms: SaleTerms {
            name: "x".into(),
            price: Money {
                minor: 1,
                currency: Arc::from("EUR"),
            },
            stock: 1,
            limit_per_buyer: None,
            hold_ms: None,
            opens_at_ms: 0,
            closes_at_ms: None,
        },
        phase: SalePhase::Open,
        stock: Stock {
            total: 1,
            available: 1,
            reserved: 0,
            sold: 0,
        },
        tally: Tally::default(),
        decided_at_ms: 0,
    }
}

/// A clock that stands still.
pub struct At(pub TimestampMs);

impl Clock for At {
    fn now_ms(&self) -> TimestampMs {
        self.0
    }
}
