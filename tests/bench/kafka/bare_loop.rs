//! The minimum that consumes records and produces as many, over librdkafka alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use bytes::Bytes;
use rdkafka::config::{ClientConfig, FromClientConfigAndContext};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use rdkafka::{ClientContext, TopicPartitionList};

use crate::server::PATIENCE;

/// How long the loop takes for this many records of partition 0, from the acknowledgement of a
/// first one, like a decider's claim, to that of the last. Blocks.
pub fn run(
    brokers: &str,
    from: &str,
    to: &str,
    records: usize,
    values: &[Bytes],
) -> anyhow::Result<Duration> {
    let acknowledged = Arc::new(AtomicUsize::new(0));
    let acks = Acks(acknowledged.clone());
    let producer: ThreadedProducer<Acks> =
        ThreadedProducer::from_config_and_context(&producer(brokers), acks)?;
    let consumer: BaseConsumer = consumer(brokers).create()?;
    let send = |key: &[u8], value: &[u8]| {
        let record = BaseRecord::to(to).partition(0).key(key).payload(value);
        producer.send(record).map_err(|(error, _)| error)
    };
    send(&[], b"claim")?;
    producer.flush(PATIENCE)?;

    let began = Instant::now();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(from, 0, rdkafka::Offset::Beginning)?;
    consumer.assign(&list)?;
    let mut values = values.iter().cycle();
    for _ in 0..records {
        let message = consumer.poll(PATIENCE).context("no record comes")??;
        let key = message.key().context("a record has no key")?;
        message.payload().context("a record has no value")?;
        let value = values
            .next()
            .ok_or_else(|| anyhow!("there are no values"))?;
        send(key, value)?;
    }
    producer.flush(PATIENCE)?;
    let took = began.elapsed();
    let acknowledged = acknowledged.load(Relaxed);
    ensure!(
        acknowledged == records + 1,
        "{acknowledged} of {records} records were acknowledged"
    );
    Ok(took)
}

/// Counts what is acknowledged.
struct Acks(Arc<AtomicUsize>);

impl ClientContext for Acks {}

impl ProducerContext for Acks {
    type DeliveryOpaque = ();

    fn delivery(&self, delivery: &DeliveryResult<'_>, (): ()) {
        if delivery.is_ok() {
            self.0.fetch_add(1, Relaxed);
        }
    }
}

/// The settings of both are those of the product's own clients (`log-kafka`), as far as they
/// concern speed.
fn client(brokers: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", brokers)
        .set("socket.nagle.disable", "true");
    config
}

fn producer(brokers: &str) -> ClientConfig {
    let mut config = client(brokers);
    config
        .set("enable.idempotence", "true")
        .set("acks", "all")
        .set("queue.buffering.max.messages", "0")
        .set("queue.buffering.max.kbytes", i32::MAX.to_string())
        .set("linger.ms", "0.5")
        .set("compression.type", "lz4");
    config
}

fn consumer(brokers: &str) -> ClientConfig {
    let mut config = client(brokers);
    config
        .set("group.id", "bare")
        .set("enable.auto.commit", "false")
        .set("enable.auto.offset.store", "false")
        .set("check.crcs", "true")
        .set("fetch.wait.max.ms", "20")
        .set("fetch.min.bytes", "1")
        .set("fetch.queue.backoff.ms", "1")
        .set("queued.max.messages.kbytes", "4096");
    config
}
