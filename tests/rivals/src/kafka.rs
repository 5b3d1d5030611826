//! The minimum that a front end over Kafka can do: append, and decide nothing. Everything beyond
//! that is Doorbuster's own cost.

use std::sync::atomic::{AtomicI64, Ordering::Relaxed};
use std::time::Duration;

use anyhow::anyhow;
use async_trait::async_trait;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use schemas::codec::Codec;
use schemas::command::{Command, CommandBody, PlaceAttempt};
use schemas::ids::{AttemptId, ProductId};
use schemas::placement::Placement;

use crate::seller::{Attempt, Outcome, Sale, Seller, Stock, Terms};

/// Appends every attempt; any product has a sale.
pub struct AppendOnly {
    producer: FutureProducer,
    codec: Codec,
    placement: Placement,
    topic: String,
    appended: AtomicI64,
}

impl AppendOnly {
    /// Appends to a topic of so many partitions, with the settings of Doorbuster's own producer
    /// as far as they concern speed.
    pub fn connect(brokers: &str, topic: String, partitions: u32) -> anyhow::Result<Self> {
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("socket.nagle.disable", "true")
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("queue.buffering.max.messages", "0")
            .set("queue.buffering.max.kbytes", i32::MAX.to_string())
            .set("linger.ms", "0.5")
            .set("compression.type", "lz4")
            .create()?;
        Ok(Self {
            producer,
            codec: Codec::embedded(),
            placement: Placement::new(partitions),
            topic,
            appended: AtomicI64::new(0),
        })
    }
}

#[async_trait]
impl Seller for AppendOnly {
    async fn put_sale(&self, _: &ProductId, _: &Terms) -> anyhow::Result<()> {
        Ok(())
    }

    async fn place(&self, attempt: &Attempt) -> anyhow::Result<Option<i64>> {
        let product_id = attempt.product.clone();
        let partition = self.placement.partition_of(&product_id);
        let body = CommandBody::PlaceAttempt(PlaceAttempt {
            attempt_id: attempt.attempt_id,
            buyer_id: attempt.buyer.clone(),
            quantity: attempt.quantity,
            round: None,
        });
        let value = self.codec.encode_command(Command {
            product_id,
            body,
            if_version: None,
        });
        let record = FutureRecord::to(&self.topic)
            .partition(partition.0 as i32)
            .key(attempt.product.as_str())
            .payload(&value);
        let sent = self.producer.send(record, Duration::ZERO).await;
        let delivery = sent.map_err(|(error, _)| anyhow!(error))?;
        self.appended.fetch_add(1, Relaxed);
        Ok(Some(delivery.offset))
    }

    async fn outcome(&self, _: AttemptId) -> anyhow::Result<Option<Outcome>> {
        Ok(None)
    }

    async fn sale(&self, _: &ProductId) -> anyhow::Result<Option<Sale>> {
        Ok(Some(Sale {
            stock: Stock::new(0, 0, 0),
            version: self.appended.load(Relaxed),
        }))
    }

    async fn expire(&self) -> anyhow::Result<()> {
        Ok(())
    }
}
