//! Tests of this adapter on real brokers. The conformance suite tests what every log must do.

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

/// Options with topics and groups that no other test uses.
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
        append_timeout: Duration::from_secs(8),
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

/// Appends one record to partition 0 of `purchase-attempts`.
async fn append(log: &KafkaLog, value: &str) -> Offset {
    let records = vec![record(value.to_owned())];
    let appended = log.append(Topic::PurchaseAttempts, Partition(0), records);
    appended.await.unwrap()
}

/// Opens a reader of partition 0 of `purchase-attempts`.
async fn read(log: &KafkaLog, from: i64) -> Box<dyn LogReader> {
    let reader = log.read(Topic::PurchaseAttempts, Partition(0), Offset(from));
    reader.await.unwrap()
}

/// The next records, which must arrive within 20 seconds.
async fn next(reader: &mut dyn LogReader) -> Result<Vec<LogRecord>, ports::ReadError> {
    let next = tokio::time::timeout(Duration::from_secs(20), reader.next()).await;
    next.expect("a record or an error arrives within 20 seconds")
}
