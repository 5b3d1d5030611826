//! The read store: rows that derive from decisions and can be rebuilt from them at any time.

use std::collections::BTreeMap;

use async_trait::async_trait;
use schemas::command::SaleTerms;
use schemas::decision::{
    CancelRefusalReason, CommandKind, RefusalReason, ReleaseCause, SaleChangeRefusalReason, Stock,
    Tally,
};
use schemas::ids::{
    AttemptId, BuyerId, Money, Offset, Partition, Position, ProductId, TimestampMs, TraceId,
};
use serde::{Deserialize, Serialize};

use crate::log_mark::LogMark;

/// The most rows in a page of a list.
pub const MAX_PAGE: usize = 500;

/// The phase of a sale. Whether the sale is sold out shows in its stock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SalePhase {
    /// The sale has not opened yet.
    Scheduled,
    /// The sale takes attempts.
    Open,
    /// The sale refuses attempts until it is resumed.
    Paused,
    /// The sale is over.
    Closed,
}

/// A sale as shoppers see it. Key: product.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SaleRow {
    /// The product.
    pub product_id: ProductId,
    /// The number of the product's decisions so far; the row's version.
    pub version: u64,
    /// The sale's round, counted from 1.
    pub round: u32,
    /// Name, price, stock and limits of the sale.
    pub terms: SaleTerms,
    /// The phase.
    pub phase: SalePhase,
    /// How many units are available, reserved and sold.
    pub stock: Stock,
    /// How many attempts were accepted, refused, cancelled and expired.
    pub tally: Tally,
    /// The time of the last decision, in milliseconds since the Unix epoch.
    pub decided_at_ms: TimestampMs,
    /// The product's version at the last decision that changed the sale for its seller: its terms, its
    /// stock or its phase. None in rows that were written before there was one.
    pub sale_version: Option<u64>,
}

/// The status of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum AttemptStatus {
    /// The attempt's units are reserved.
    Reserved,
    /// The attempt's units are sold.
    Sold,
    /// The attempt was refused.
    Refused(RefusalReason),
    /// The attempt's units were returned to the stock.
    Released(ReleaseCause),
}

/// An attempt and its status. Key: attempt.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AttemptRow {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The requested product.
    pub product_id: ProductId,
    /// The buyer.
    pub buyer_id: BuyerId,
    /// The number of units.
    pub quantity: u32,
    /// Its position in `purchase-attempts`, which is its place in the queue.
    pub position: Position,
    /// The status.
    pub status: AttemptStatus,
    /// The time of the decision that led to the status, in milliseconds since the Unix epoch.
    pub decided_at_ms: TimestampMs,
    /// Until when the units are reserved, if they are.
    pub hold_until_ms: Option<TimestampMs>,
    /// The product's version after that decision; the row's version.
    pub version: u64,
    /// The trace of the request that led to the status, if that request had one.
    pub trace_id: Option<TraceId>,
    /// The price of one unit when the order was accepted. None for a refused attempt, and for an order
    /// of a version that did not record it.
    pub price: Option<Money>,
}

/// A command whose outcome is not that of an attempt, and that outcome. Key: position.
///
/// A position is decided once, so a row never changes and has no version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CommandRow {
    /// Its position in `purchase-attempts`.
    pub position: Position,
    /// The product; none for a record that was skipped, which belongs to no product.
    pub product_id: Option<ProductId>,
    /// Its kind; none for a record that was skipped, and for a refused change of a sale that was
    /// decided before decisions named the kind.
    pub kind: Option<CommandKind>,
    /// The buyer who sent a cancellation.
    pub buyer_id: Option<BuyerId>,
    /// The attempt that a cancellation names, or that is no outcome of its own: one that came before
    /// with another quantity, or was made for another round.
    pub attempt_id: Option<AttemptId>,
    /// The units that such an attempt requests.
    pub quantity: Option<u32>,
    /// The outcome.
    pub outcome: CommandOutcome,
    /// The time of the decision, in milliseconds since the Unix epoch.
    pub decided_at_ms: TimestampMs,
    /// The trace of the request, if it had one.
    pub trace_id: Option<TraceId>,
}

/// The outcome of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandOutcome {
    /// It was carried out.
    Done,
    /// It was refused.
    Refused(CommandRefusal),
}

/// Why a command was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum CommandRefusal {
    /// A change of a sale, or an attempt that found no sale.
    SaleChange(SaleChangeRefusalReason),
    /// A cancellation.
    Cancel(CancelRefusalReason),
    /// The attempt came before with another quantity, and its first answer stands.
    IdempotencyConflict,
    /// The record cannot be decoded.
    Undecodable,
    /// An operator skipped the record.
    Skipped,
    /// The attempt was made for a round that was not the current one, and has no outcome in that.
    AnotherRound,
}

impl CommandRefusal {
    /// Every reason.
    pub fn all() -> impl Iterator<Item = Self> {
        let changes = SaleChangeRefusalReason::ALL.iter().copied();
        let cancels = CancelRefusalReason::ALL.iter().copied();
        changes
            .map(Self::SaleChange)
            .chain(cancels.map(Self::Cancel))
            .chain([
                Self::IdempotencyConflict,
                Self::Undecodable,
                Self::Skipped,
                Self::AnotherRound,
            ])
    }

    /// The reason's name, which no other reason has.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SaleChange(reason) => reason.as_str(),
            Self::Cancel(reason) => reason.as_str(),
            Self::IdempotencyConflict => "idempotency_conflict",
            Self::Undecodable => "undecodable",
            Self::Skipped => "skipped",
            Self::AnotherRound => RefusalReason::AnotherRound.as_str(),
        }
    }
}

/// A row of a read model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Row {
    /// A sale.
    Sale(SaleRow),
    /// An attempt, looked up by id.
    Attempt(AttemptRow),
    /// One of a buyer's orders, which are the accepted attempts. Key: buyer, then position.
    Order(AttemptRow),
    /// One of a product's intents: an attempt that was refused or has expired. Key: product, then
    /// position.
    Intent(AttemptRow),
    /// A command, looked up by position.
    Command(CommandRow),
}

/// How many of a partition's decisions the store has.
///
/// ```text
///    stock-decisions   +-----+-----+-----+-----+-----+
///                      |  0  |  1  |  2  |  3  |  4  |
///                      +-----+-----+-----+-----+-----+
///                      rows are in the     ^ next
///                      store
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The next offset of `stock-decisions` to apply: the rows of all decisions below it are in the
    /// store.
    pub next: Offset,
    /// The offset of the claim that is valid at `next`; -1 when there was none.
    pub claim: Offset,
    /// The last offset of `purchase-attempts` that an applied decision answers; -1 when there was
    /// none.
    pub answered: Offset,
    /// The log that the rows were made from; none when nothing was applied, and in progress that an
    /// older version stored.
    pub log: Option<LogMark>,
}

/// The store failed. Every call may be retried, and may succeed later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the read store failed: {0}")]
pub struct StoreError(pub String);

/// The read store: rows by key, and the progress of each partition.
///
/// A row's version is its product's version; a [`CommandRow`] has one version only. Whatever order
/// versions are written in, the highest one remains:
///
/// ```text
///    write version    2     1     3     3
///    row has version  2     2     3     3
/// ```
///
/// Two writes of the same key and version have the same content. So every write may be retried, and
/// several projectors may write the same rows.
#[async_trait]
pub trait ReadStore: Send + Sync {
    /// Writes the rows, then the partition's progress.
    ///
    /// Ok promises that later reads return both. After a failure or a crash the store may have some
    /// of the rows without the progress, but never the progress without the rows. A crash may undo
    /// the last few seconds of writes, rows and progress alike. A progress lower than the stored one
    /// may be ignored.
    async fn apply(
        &self,
        partition: Partition,
        rows: Vec<Row>,
        progress: Progress,
    ) -> Result<(), StoreError>;

    /// The progress of each partition; partitions that nothing was applied to are absent.
    async fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError>;

    /// The attempt with this id, if there is one.
    async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError>;

    /// The command at this position, if it has a row.
    async fn command(&self, at: Position) -> Result<Option<CommandRow>, StoreError>;

    /// The sale of this product, if there is one.
    async fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError>;

    /// Sales by product id: those after `after`, at most `limit` and at most [`MAX_PAGE`].
    ///
    /// ```text
    ///    all sales          a   b   d   e   f
    ///    sales(None, 2)     a   b
    ///    sales("c", 2)              d   e
    ///    sales("e", 2)                      f
    /// ```
    async fn sales(
        &self,
        after: Option<&ProductId>,
        limit: usize,
    ) -> Result<Vec<SaleRow>, StoreError>;

    /// A buyer's orders by position (partition, then offset): those after `after`, at most `limit`
    /// and at most [`MAX_PAGE`].
    async fn orders(
        &self,
        buyer: &BuyerId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError>;

    /// A product's intents by position: those after `after`, at most `limit` and at most [`MAX_PAGE`].
    async fn intents(
        &self,
        product: &ProductId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError>;

    /// Passes every row to `visit`, each once and in any order, until `visit` returns false. Rows
    /// that are written meanwhile may be passed or not.
    async fn visit(&self, visit: Box<dyn FnMut(Row) -> bool + Send>) -> Result<(), StoreError>;
}
