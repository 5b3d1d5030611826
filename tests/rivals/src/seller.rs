//! What a front end needs of the system that decides behind it.

use async_trait::async_trait;
use schemas::ids::{AttemptId, BuyerId, ProductId, TimestampMs};
use serde::{Deserialize, Serialize};

/// Decides on attempts at once, and stores its decisions.
#[async_trait]
pub trait Seller: Send + Sync {
    /// Puts a sale on.
    async fn put_sale(&self, product: &ProductId, terms: &Terms) -> anyhow::Result<()>;

    /// Decides on an attempt, unless it is already decided. Returns its position; none if there is
    /// no such sale.
    async fn place(&self, attempt: &Attempt) -> anyhow::Result<Option<i64>>;

    /// How an attempt was decided; none if it never came.
    async fn outcome(&self, attempt: AttemptId) -> anyhow::Result<Option<Outcome>>;

    /// The current state of a sale; none if there is no such sale.
    async fn sale(&self, product: &ProductId) -> anyhow::Result<Option<Sale>>;

    /// Releases units whose holds have expired. It is called periodically.
    async fn expire(&self) -> anyhow::Result<()>;
}

/// The terms of a sale. A name and a price may be sent, too; they affect no decision.
#[derive(Deserialize)]
pub struct Terms {
    /// Units in all.
    pub stock: u32,
    /// Most units of one buyer; none: no limit.
    pub limit_per_buyer: Option<u32>,
    /// How long units are held for a buyer, in ms; none: they are sold at once.
    pub hold_ms: Option<i64>,
}

/// One buyer's request for units.
pub struct Attempt {
    /// The key by which a retry is recognised.
    pub attempt_id: AttemptId,
    /// The requested product.
    pub product: ProductId,
    /// The buyer.
    pub buyer: BuyerId,
    /// The requested units.
    pub quantity: u32,
}

/// How an attempt was decided.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// `reserved`, `sold`, `refused` or `expired`.
    pub status: String,
    /// Why it was refused; empty if it was not.
    pub reason: String,
    /// The requested product.
    pub product: String,
    /// The requested units.
    pub quantity: u32,
    /// Its position.
    pub position: i64,
    /// When it was decided.
    pub decided_at_ms: TimestampMs,
    /// Until when its units are held; 0 if they never were.
    pub hold_until_ms: TimestampMs,
}

/// The current state of a sale.
#[derive(Serialize)]
pub struct Sale {
    /// Its units.
    pub stock: Stock,
    /// A number that grows with every decision.
    pub version: i64,
}

/// Units: `total = available + reserved + sold`.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Stock {
    /// Units in all.
    pub total: i64,
    /// Units that can be bought.
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
