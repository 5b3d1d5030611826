//! The read store: rows derived from decisions, written by version, thrown away at will.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemas::command::SaleTerms;
use schemas::decision::{RefusalReason, ReleaseCause, Stock, Tally};
use schemas::ids::{
    AttemptId, BuyerId, Offset, Partition, Position, ProductId, TimestampMs, TraceId,
};
use serde::{Deserialize, Serialize};

/// The most rows one page of a list has.
pub const MAX_PAGE: usize = 500;

/// Where a sale stands. Whether it is sold out is in its stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SalePhase {
    /// It has not opened.
    Scheduled,
    /// It takes attempts.
    Open,
    /// It refuses attempts for the time being.
    Paused,
    /// It is over.
    Closed,
}

/// A sale as shoppers see it. Key: product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaleRow {
    /// The product.
    pub product_id: ProductId,
    /// Its decisions so far; the row's version.
    pub version: u64,
    /// The round, from 1.
    pub round: u32,
    /// What is offered.
    pub terms: SaleTerms,
    /// Where it stands.
    pub phase: SalePhase,
    /// Its units.
    pub stock: Stock,
    /// Its counts.
    pub tally: Tally,
    /// The time of the last decision.
    pub decided_at_ms: TimestampMs,
}

/// How an attempt ended, or stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptStatus {
    /// Its units are held.
    Reserved,
    /// Its units are sold.
    Sold,
    /// It was refused.
    Refused(RefusalReason),
    /// Its units went back.
    Released(ReleaseCause),
}

/// An attempt's fate. Key: attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRow {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The product asked for.
    pub product_id: ProductId,
    /// Who asked.
    pub buyer_id: BuyerId,
    /// For how many units.
    pub quantity: u32,
    /// Its place in line.
    pub position: Position,
    /// How it stands.
    pub status: AttemptStatus,
    /// When that was decided.
    pub decided_at_ms: TimestampMs,
    /// Until when its units are held, if they are.
    pub hold_until_ms: Option<TimestampMs>,
    /// The product's version that decided it; the row's version.
    pub version: u64,
    /// The trace of the request that brought it to where it stands, if that request had one.
    pub trace_id: Option<TraceId>,
}

/// A row of a read model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Row {
    /// Of the sales.
    Sale(SaleRow),
    /// Of the attempts by id.
    Attempt(AttemptRow),
    /// Of a buyer's orders: the accepted attempts. Key: buyer, then position.
    Order(AttemptRow),
    /// Of a product's intents: attempts refused, expired. Key: product, then position.
    Intent(AttemptRow),
}

/// How far a partition's decisions are in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The next offset of log 2 to apply.
    pub next: Offset,
    /// The claim that is current there; -1 when there was none.
    pub claim: Offset,
    /// The last offset of log 1 that an applied decision answers; -1 when there was none.
    pub answered: Offset,
}

/// The store failed; the same call may succeed later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the read store failed: {0}")]
pub struct StoreError(pub String);

/// The read store.
///
/// A row is written with the product's version as the write's version: a write with a lower
/// version than the row has changes nothing, one with the same version writes the same.
#[async_trait]
pub trait ReadStore: Send + Sync {
    /// Writes the rows, then the partition's progress. Ok promises that later reads see both.
    /// After a failure or a crash some rows may be there without the progress, never the
    /// progress without the rows; writing again is harmless. A crash may take back the
    /// last few seconds of writes, rows and progress together.
    async fn apply(
        &self,
        partition: Partition,
        rows: Vec<Row>,
        progress: Progress,
    ) -> Result<(), StoreError>;

    /// How far each partition is; partitions never applied are absent.
    async fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError>;

    /// An attempt.
    async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError>;

    /// A sale.
    async fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError>;

    /// Sales by product id, those after `after`, at most `limit`.
    async fn sales(
        &self,
        after: Option<&ProductId>,
        limit: usize,
    ) -> Result<Vec<SaleRow>, StoreError>;

    /// A buyer's orders by position (partition, then offset), those after `after`, at most
    /// `limit`.
    async fn orders(
        &self,
        buyer: &BuyerId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError>;

    /// A product's intents by position, those after `after`, at most `limit`.
    async fn intents(
        &self,
        product: &ProductId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError>;

    /// Hands every row to `visit`, in any order, until it returns false.
    async fn visit(&self, visit: Box<dyn FnMut(Row) -> bool + Send>) -> Result<(), StoreError>;
}
