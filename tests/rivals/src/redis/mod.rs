//! Redis: one script decides on an attempt atomically, because Redis runs one script at a time.

use std::time::Duration;

use anyhow::{Context, ensure};
use async_trait::async_trait;
use redis::aio::MultiplexedConnection;
use redis::{
    AsyncCommands, AsyncConnectionConfig, Client, ErrorKind, Script, ServerErrorKind, pipe,
};
use schemas::ids::{AttemptId, ProductId};

use crate::seller::{Attempt, Outcome, Sale, Seller, Stock, Terms};

/// The set of products whose sales have holds.
const HOLDING: &str = "holding";
/// How often a server that is loading its log is polled.
const LOADING_PAUSE: Duration = Duration::from_millis(20);

/// Sells over one connection, which all requests share: waiting requests are sent in one batch.
pub struct Redis {
    connection: MultiplexedConnection,
    attempt: Script,
}

impl Redis {
    /// Connects to a server, by the URL of its socket, and waits until it has read its log.
    pub async fn connect(url: &str) -> anyhow::Result<Self> {
        // The front end bounds the time of a request.
        let unbounded = AsyncConnectionConfig::new().set_response_timeout(None);
        let mut connection = Client::open(url)?
            .get_multiplexed_async_connection_with_config(&unbounded)
            .await
            .context("cannot connect to Redis")?;
        while let Err(error) = connection.ping::<()>().await {
            ensure!(
                error.kind() == ErrorKind::Server(ServerErrorKind::BusyLoading),
                "Redis does not answer: {error}"
            );
            tokio::time::sleep(LOADING_PAUSE).await;
        }
        let attempt = Script::new(include_str!("attempt.lua"));
        Ok(Self {
            connection,
            attempt,
        })
    }
}

#[async_trait]
impl Seller for Redis {
    async fn put_sale(&self, product: &ProductId, terms: &Terms) -> anyhow::Result<()> {
        let hold_ms = terms.hold_ms.unwrap_or(0);
        let fields = [
            ("total", i64::from(terms.stock)),
            ("available", i64::from(terms.stock)),
            ("reserved", 0),
            ("decided", 0),
            ("limit", i64::from(terms.limit_per_buyer.unwrap_or(0))),
            ("hold_ms", hold_ms),
        ];
        let mut put = pipe();
        put.atomic().hset_multiple(key("sale", product), &fields);
        if hold_ms > 0 {
            put.sadd(HOLDING, product.as_str());
        }
        put.exec_async(&mut self.connection.clone()).await?;
        Ok(())
    }

    async fn place(&self, attempt: &Attempt) -> anyhow::Result<Option<i64>> {
        let product = &attempt.product;
        let position: Option<i64> = self
            .attempt
            .key(key("sale", product))
            .key(key("buyers", product))
            .key(key("holds", product))
            .arg(product.as_str())
            .arg(attempt.attempt_id.as_bytes())
            .arg(attempt.buyer.as_str())
            .arg(attempt.quantity)
            .invoke_async(&mut self.connection.clone())
            .await?;
        Ok(position)
    }

    async fn outcome(&self, attempt: AttemptId) -> anyhow::Result<Option<Outcome>> {
        let key = [b"attempt:", attempt.as_bytes().as_slice()].concat();
        let kept: Option<String> = self.connection.clone().get(key).await?;
        kept.map(|kept| outcome(&kept)).transpose()
    }

    async fn sale(&self, product: &ProductId) -> anyhow::Result<Option<Sale>> {
        let fields = &["total", "available", "reserved", "decided"];
        let figures: Vec<Option<i64>> = self
            .connection
            .clone()
            .hmget(key("sale", product), fields)
            .await?;
        let [Some(total), Some(available), Some(reserved), Some(version)] = figures[..] else {
            return Ok(None);
        };
        let stock = Stock::new(total, available, reserved);
        Ok(Some(Sale { stock, version }))
    }

    async fn expire(&self) -> anyhow::Result<()> {
        let mut connection = self.connection.clone();
        let products: Vec<String> = connection.smembers(HOLDING).await?;
        for product in products {
            // Without an attempt the script only looks at the deadlines.
            let () = self
                .attempt
                .key(key("sale", &product))
                .key(key("buyers", &product))
                .key(key("holds", &product))
                .arg(product)
                .invoke_async(&mut connection)
                .await?;
        }
        Ok(())
    }
}

fn key(what: &str, product: impl std::fmt::Display) -> String {
    format!("{what}:{product}")
}

/// What the script keeps of an attempt.
fn outcome(kept: &str) -> anyhow::Result<Outcome> {
    let parts: Vec<&str> = kept.split('|').collect();
    let [
        status,
        reason,
        product,
        _buyer,
        quantity,
        position,
        decided_at,
        hold_until,
    ] = parts[..]
    else {
        anyhow::bail!("an attempt is kept as {kept:?}");
    };
    Ok(Outcome {
        status: status.to_owned(),
        reason: reason.to_owned(),
        product: product.to_owned(),
        quantity: quantity.parse()?,
        position: position.parse()?,
        decided_at_ms: decided_at.parse()?,
        hold_until_ms: hold_until.parse()?,
    })
}
