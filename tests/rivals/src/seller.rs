//! What a front door asks of whatever decides behind it.

use async_trait::async_trait;
use schemas::ids::{AttemptId, BuyerId, ProductId, TimestampMs};
use serde::{Deserialize, Serialize};

/// Decides on attempts at once, and keeps what it decided.
#[async_trait]
pub trait Seller: Send + Sync {
    /// Puts a sale on.
    async fn put_sale(&self, product: &ProductId, terms: &Terms) -> anyhow::Result<()>;

    /// Decides on an attempt, unless it has been decided on before. Returns its place in line;
    /// none if there is no such sale.
    async fn place(&self, attempt: &Attempt) -> anyhow::Result<Option<i64>>;

    /// How an attempt was decided; none if it never came.
    async fn outcome(&self, attempt: AttemptId) -> anyhow::Result<Option<Outcome>>;

    /// A sale as it is; none if there is no such.
    async fn sale(&self, product: &ProductId) -> anyhow::Result<Option<Sale>>;

    /// Gives units back whose holds have run out. It is called again and again.
    async fn expire(&self) -> anyhow::Result<()>;
}

/// What is offered, and how. A name and a price may be sent too; they decide nothing.
#[derive(Deserialize)]
pub struct Terms {
    /// Units in all.
    pub stock: u32,
    /// Most units of one buyer; none: no limit.
    pub limit_per_buyer: Option<u32>,
    /// How long units are held for a buyer, in ms; none: they are sold at once.
    pub hold_ms: Option<i64>,
}

/// One buyer asking for units.
pub struct Attempt {
    /// What makes a retry known as one.
    pub attempt_id: AttemptId,
    /// What is asked for.
    pub product: ProductId,
    /// Who asks.
    pub buyer: BuyerId,
    /// For how many units.
    pub quantity: u32,
}

/// How an attempt was decided.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `reserved`, `sold`, `refused` or `expired`.
    pub status: String,
    /// Why it was refused; empty if it was not.
    pub reason: String,
    /// What was asked for.
    pub product: String,
    /// For how many units.
    pub quantity: u32,
    /// Its place in line.
    pub position: i64,
    /// When it was decided.
    pub decided_at_ms: TimestampMs,
    /// Until when its units are held; 0 if they never were.
    pub hold_until_ms: TimestampMs,
}

/// A sale as it is.
#[derive(Serialize)]
pub struct Sale {
    /// Its units.
    pub stock: Stock,
    /// It grows as long as attempts are decided.
    pub version: i64,
}

/// Units: `total = available + reserved + sold`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Stock {
    /// Units in all.
    pub total: i64,
    /// Units nobody has.
    pub available: i64,
    /// Units held for buyers.
    pub reserved: i64,
    /// Units sold.
    pub sold: i64,
}

impl Stock {
    /// The rest are sold.
    pub(crate) fn new(total: i64, available: i64, reserved: i64) -> Self {
        Self {
            total,
            available,
            reserved,
            sold: total - available - reserved,
        }
    }
}
