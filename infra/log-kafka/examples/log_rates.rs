//! How fast the log is against bare loops over rdkafka, on brokers that are running:
//! `cargo run --release -p log-kafka --example log_rates -- 127.0.0.1:9092`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::join_all;
use log_kafka::{KafkaLog, Options, Security, topic_name};
use ports::{EventLog, NewRecord};
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::util::Timeout;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

const RECORDS: usize = 500_000;
const CALL: usize = 1_000;
const UNDER_WAY: usize = 16;
const RECORD_BYTES: usize = 200;
const CROWD: usize = 500;
const ROUNDS: usize = 3;
const TOPIC: Topic = Topic::PurchaseAttempts;
const PARTITION: Partition = Partition(0);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let brokers = std::env::args().nth(1);
    let brokers = brokers.ok_or_else(|| anyhow::anyhow!("name the brokers: host:port"))?;
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
    let prefix = format!("rates-{}-", since_epoch.as_millis());
    let options = Options {
        brokers: brokers.clone(),
        topic_prefix: prefix.clone(),
        partitions: 1,
        replication: 1,
        min_insync: 1,
        queue_records: 100_000,
        queue_bytes: 64 << 20,
        session_timeout: Duration::from_secs(6),
        security: Security::default(),
    };
    let log = Arc::new(KafkaLog::open(options).await?);
    let topic = topic_name(&prefix, TOPIC);
    for _ in 0..ROUNDS {
        report("append", append(&log).await?);
        report("FutureProducer", bare_produce(&brokers, &topic).await?);
        report("read", read(log.clone()).await?);
        report("BaseConsumer", bare_consume(&brokers, &topic)?);
    }
    crowd(&log).await?;
    bare_crowd(&brokers, &topic).await?;
    one_by_one(&log).await?;
    openings(&log).await?;
    log.close().await;
    Ok(())
}

fn report(what: &str, took: Duration) {
    println!(
        "{what:>15}: {:>9.0} records/s",
        RECORDS as f64 / took.as_secs_f64()
    );
}

async fn append(log: &Arc<KafkaLog>) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let value = Bytes::from(vec![b'x'; RECORD_BYTES]);
    let key = Bytes::from_static(b"product-1");
    let appenders = (0..UNDER_WAY).map(|_| {
        let (log, key, value) = (log.clone(), key.clone(), value.clone());
        tokio::spawn(async move {
            for _ in 0..RECORDS / CALL / UNDER_WAY {
                let record = || NewRecord {
                    key: key.clone(),
                    value: value.clone(),
                    headers: vec![],
                };
                let call = (0..CALL).map(|_| record()).collect();
                log.append(TOPIC, PARTITION, call).await?;
            }
            anyhow::Ok(())
        })
    });
    for appended in join_all(appenders).await {
        appended??;
    }
    Ok(began.elapsed())
}

fn bare_producer(brokers: &str) -> anyhow::Result<FutureProducer> {
    let producer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("enable.idempotence", "true")
        .set("linger.ms", "1")
        .set("compression.type", "lz4")
        .set("socket.nagle.disable", "true")
        .set("queue.buffering.max.messages", "1000000")
        .create()?;
    Ok(producer)
}

async fn bare_produce(brokers: &str, topic: &str) -> anyhow::Result<Duration> {
    let producer = bare_producer(brokers)?;
    let began = Instant::now();
    let value = vec![b'x'; RECORD_BYTES];
    let producers = (0..UNDER_WAY).map(|_| {
        let (producer, topic, value) = (producer.clone(), topic.to_owned(), value.clone());
        tokio::spawn(async move {
            for _ in 0..RECORDS / CALL / UNDER_WAY {
                let record = || {
                    FutureRecord::to(&topic)
                        .partition(0)
                        .key("product-1")
                        .payload(&value)
                };
                let sent = (0..CALL).map(|_| producer.send(record(), Timeout::Never));
                for sent in join_all(sent).await {
                    sent.map_err(|(error, _)| error)?;
                }
            }
            anyhow::Ok(())
        })
    });
    for produced in join_all(producers).await {
        produced??;
    }
    Ok(began.elapsed())
}

async fn read(log: Arc<KafkaLog>) -> anyhow::Result<Duration> {
    let reading = tokio::spawn(async move {
        let began = Instant::now();
        let mut reader = log.read(TOPIC, PARTITION, Offset(0)).await?;
        let mut read = 0;
        while read < RECORDS {
            read += reader.next().await?.len();
        }
        anyhow::Ok(began.elapsed())
    });
    reading.await?
}

fn bare_consume(brokers: &str, topic: &str) -> anyhow::Result<Duration> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "rates")
        .set("enable.auto.commit", "false")
        .set("fetch.wait.max.ms", "50")
        .set("fetch.queue.backoff.ms", "1")
        .create()?;
    let began = Instant::now();
    let mut list = rdkafka::TopicPartitionList::new();
    list.add_partition_offset(topic, 0, rdkafka::Offset::Beginning)?;
    consumer.assign(&list)?;
    let mut read = 0;
    while read < RECORDS {
        if let Some(message) = consumer.poll(Duration::from_secs(1)) {
            let message = message?;
            std::hint::black_box((message.key(), message.payload()));
            read += 1;
        }
    }
    Ok(began.elapsed())
}

/// Many who append one record each, again and again.
async fn crowd(log: &Arc<KafkaLog>) -> anyhow::Result<()> {
    let began = Instant::now();
    let appenders = (0..CROWD).map(|_| {
        let log = log.clone();
        tokio::spawn(async move {
            let mut took = Vec::new();
            for _ in 0..RECORDS / 5 / CROWD {
                let began = Instant::now();
                let record = NewRecord {
                    value: Bytes::from_static(&[b'x'; RECORD_BYTES]),
                    ..NewRecord::default()
                };
                log.append(TOPIC, PARTITION, vec![record]).await?;
                took.push(began.elapsed());
            }
            anyhow::Ok(took)
        })
    });
    let mut took = Vec::new();
    for appended in join_all(appenders).await {
        took.extend(appended??);
    }
    let rate = took.len() as f64 / began.elapsed().as_secs_f64();
    println!("{:>15}: {rate:>9.0} records/s", "append, crowd");
    quantiles("append, crowd", took);
    Ok(())
}

async fn bare_crowd(brokers: &str, topic: &str) -> anyhow::Result<()> {
    let producer = bare_producer(brokers)?;
    let began = Instant::now();
    let producers = (0..CROWD).map(|_| {
        let (producer, topic) = (producer.clone(), topic.to_owned());
        tokio::spawn(async move {
            let mut took = Vec::new();
            for _ in 0..RECORDS / 5 / CROWD {
                let began = Instant::now();
                let record: FutureRecord<'_, (), _> = FutureRecord::to(&topic);
                let record = record.partition(0).payload(&[b'x'; RECORD_BYTES]);
                let sent = producer.send(record, Timeout::Never).await;
                sent.map_err(|(error, _)| error)?;
                took.push(began.elapsed());
            }
            anyhow::Ok(took)
        })
    });
    let mut took = Vec::new();
    for produced in join_all(producers).await {
        took.extend(produced??);
    }
    let rate = took.len() as f64 / began.elapsed().as_secs_f64();
    println!("{:>15}: {rate:>9.0} records/s", "bare, crowd");
    quantiles("bare, crowd", took);
    Ok(())
}

async fn one_by_one(log: &KafkaLog) -> anyhow::Result<()> {
    let mut took = Vec::new();
    for _ in 0..1_000 {
        let began = Instant::now();
        log.append(TOPIC, PARTITION, vec![NewRecord::default()])
            .await?;
        took.push(began.elapsed());
    }
    quantiles("append of one", took);
    Ok(())
}

async fn openings(log: &KafkaLog) -> anyhow::Result<()> {
    let end = log.end(TOPIC, PARTITION).await?;
    let (mut opened, mut asked) = (Vec::new(), Vec::new());
    for n in 0..200 {
        let began = Instant::now();
        log.end(TOPIC, PARTITION).await?;
        asked.push(began.elapsed());
        let began = Instant::now();
        let mut reader = log.read(TOPIC, PARTITION, Offset(end.0 - 1 - n)).await?;
        while reader.next().await?.is_empty() {}
        opened.push(began.elapsed());
    }
    quantiles("end", asked);
    quantiles("first read", opened);
    Ok(())
}

fn quantiles(what: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |q: usize| took[took.len() * q / 100];
    println!("{what:>15}: p50 {:?}, p99 {:?}", at(50), at(99));
}
