//! What is Kafka's own about the log; what every log must do is tested with the other adapters.

mod appending;
mod groups;
mod outage;
mod reading;
mod secure;
mod topics;

use std::time::Duration;

use log_kafka::{KafkaLog, Options, Security};
use ports::{EventLog, LogReader, LogRecord, NewRecord};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

/// Options for topics and groups that no other test has.
async fn fresh_options(test: &str) -> Options {
    let brokers = tokio::task::spawn_blocking(|| engines::shared().kafka_brokers());
    let since_epoch = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = since_epoch.unwrap().as_nanos();
    options(brokers.await.unwrap(), format!("{test}-{now}-"))
}

fn options(brokers: String, topic_prefix: String) -> Options {
    Options {
        brokers,
        topic_prefix,
        partitions: 2,
        replication: 1,
        min_insync: 1,
        queue_records: 10_000,
        queue_bytes: 16 << 20,
        session_timeout: Duration::from_secs(6),
        security: Security::default(),
    }
}

async fn open(options: &Options) -> KafkaLog {
    KafkaLog::open(options.clone()).await.unwrap()
}

fn record(value: impl Into<bytes::Bytes>) -> NewRecord {
    NewRecord {
        value: value.into(),
        ..NewRecord::default()
    }
}

/// Appends one record to partition 0 of log 1.
async fn append(log: &KafkaLog, value: &str) -> Offset {
    let records = vec![record(value.to_owned())];
    let appended = log.append(Topic::PurchaseAttempts, Partition(0), records);
    appended.await.unwrap()
}

/// Begins to read partition 0 of log 1.
async fn read(log: &KafkaLog, from: i64) -> Box<dyn LogReader> {
    let reader = log.read(Topic::PurchaseAttempts, Partition(0), Offset(from));
    reader.await.unwrap()
}

/// The next records, which must come within some seconds.
async fn next(reader: &mut dyn LogReader) -> Result<Vec<LogRecord>, ports::ReadError> {
    let next = tokio::time::timeout(Duration::from_secs(20), reader.next()).await;
    next.expect("something comes within 20 seconds")
}
