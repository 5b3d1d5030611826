//! PostgreSQL: one transaction decides on an attempt, in one call of a function, and commits
//! durably.

use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use clap::ValueEnum;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod};
use schemas::ids::{AttemptId, ProductId};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::ToSql;
use tokio_postgres::{NoTls, Row};
use uuid::Uuid;

use crate::seller::{Attempt, Outcome, Sale, Seller, Stock, Terms};

/// How often a recovering server is polled.
const RECOVERY_PAUSE: Duration = Duration::from_millis(20);
/// How often a transaction is retried after a deadlock.
const MAX_TRIES: u32 = 10;

/// How units are taken from the stock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Take {
    /// From one row, whose lock everyone waits for.
    Row,
    /// From any of several rows that nobody has locked, by `SKIP LOCKED`.
    Slots,
}

/// Sells over a pool of connections with prepared statements.
pub struct Postgres {
    pool: Pool,
    /// Rows that a product's stock is spread over: as many as can be locked at once.
    slots: u32,
}

impl Postgres {
    /// Opens this many connections to a server, waits until it has recovered, and makes the tables
    /// if there are none.
    pub async fn connect(config: &str, take: Take, connections: u32) -> anyhow::Result<Self> {
        let recycling_method = RecyclingMethod::Fast;
        let config = config.parse().context("not a connection string")?;
        let manager = Manager::from_config(config, NoTls, ManagerConfig { recycling_method });
        let pool = Pool::builder(manager)
            .max_size(connections as usize)
            .build()?;
        let connection = first(&pool).await.context("cannot connect to PostgreSQL")?;
        let asked = "SELECT to_regclass('sales') IS NOT NULL";
        let made: bool = connection.query_one(asked, &[]).await?.get(0);
        let (taking, slots) = match take {
            Take::Row => (include_str!("row.sql"), 1),
            Take::Slots => (include_str!("slots.sql"), connections),
        };
        if !made {
            let schema = [include_str!("schema.sql"), taking].concat();
            connection.batch_execute(&schema).await?;
        }
        Ok(Self { pool, slots })
    }

    async fn query(
        &self,
        sql: &str,
        parameters: &[&(dyn ToSql + Sync)],
    ) -> anyhow::Result<Option<Row>> {
        let connection: Object = self.pool.get().await?;
        let statement = connection.prepare_cached(sql).await?;
        let mut tries = 1;
        loop {
            match connection.query_opt(&statement, parameters).await {
                // A deadlock rolls one of its transactions back completely; it may be retried.
                Err(error)
                    if error.code() == Some(&SqlState::T_R_DEADLOCK_DETECTED)
                        && tries < MAX_TRIES =>
                {
                    tries += 1;
                }
                queried => return Ok(queried?),
            }
        }
    }
}

#[async_trait]
impl Seller for Postgres {
    async fn put_sale(&self, product: &ProductId, terms: &Terms) -> anyhow::Result<()> {
        let limit = terms.limit_per_buyer.map(|limit| limit as i32);
        let slots = self.slots.min(terms.stock.max(1)) as i32;
        self.query(
            "SELECT put_sale($1, $2, $3, $4, $5)",
            &[
                &product.as_str(),
                &(terms.stock as i32),
                &limit,
                &terms.hold_ms,
                &slots,
            ],
        )
        .await?;
        Ok(())
    }

    async fn place(&self, attempt: &Attempt) -> anyhow::Result<Option<i64>> {
        let id = Uuid::from_bytes(*attempt.attempt_id.as_bytes());
        let (product, buyer) = (attempt.product.as_str(), attempt.buyer.as_str());
        let quantity = attempt.quantity as i32;
        let sql = "SELECT place($1, $2, $3, $4)";
        let place = async || self.query(sql, &[&id, &product, &buyer, &quantity]).await;
        let placed = match place().await {
            // The same attempt was inserted at the same time, and can now be found.
            Err(error) if is_repeated(&error) => place().await,
            placed => placed,
        };
        Ok(placed?.and_then(|row| row.get(0)))
    }

    async fn outcome(&self, attempt: AttemptId) -> anyhow::Result<Option<Outcome>> {
        let id = Uuid::from_bytes(*attempt.as_bytes());
        let row = self
            .query(
                "SELECT status, reason, product_id, quantity, position, decided_at_ms, \
                 hold_until_ms FROM attempts WHERE attempt_id = $1",
                &[&id],
            )
            .await?;
        Ok(row.map(|row| Outcome {
            status: row.get(0),
            reason: row.get(1),
            product: row.get(2),
            quantity: row.get::<_, i32>(3) as u32,
            position: row.get(4),
            decided_at_ms: row.get(5),
            hold_until_ms: row.get(6),
        }))
    }

    async fn sale(&self, product: &ProductId) -> anyhow::Result<Option<Sale>> {
        let row = self
            .query(
                "SELECT total::bigint, (SELECT sum(available) FROM stock WHERE product_id = $1), \
                 (SELECT coalesce(sum(quantity), 0) FROM attempts \
                  WHERE product_id = $1 AND status = 'reserved'), \
                 (SELECT last_value FROM positions) FROM sales WHERE product_id = $1",
                &[&product.as_str()],
            )
            .await?;
        Ok(row.map(|row| Sale {
            stock: Stock::new(row.get(0), row.get(1), row.get(2)),
            version: row.get(3),
        }))
    }

    async fn expire(&self) -> anyhow::Result<()> {
        loop {
            let expired = self.query("SELECT expire()", &[]).await?;
            if expired.is_none_or(|row| row.get::<_, i64>(0) == 0) {
                return Ok(());
            }
        }
    }
}

/// A connection, once the server accepts any.
async fn first(pool: &Pool) -> Result<Object, PoolError> {
    loop {
        match pool.get().await {
            Err(PoolError::Backend(error))
                if error.code() == Some(&SqlState::CANNOT_CONNECT_NOW) =>
            {
                tokio::time::sleep(RECOVERY_PAUSE).await;
            }
            got => return got,
        }
    }
}

fn is_repeated(error: &anyhow::Error) -> bool {
    let error = error.downcast_ref::<tokio_postgres::Error>();
    error.is_some_and(|error| error.code() == Some(&SqlState::UNIQUE_VIOLATION))
}
