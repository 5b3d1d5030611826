//! Tests over librdkafka's mock brokers, which inject errors that real brokers cannot.

use futures::FutureExt;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::{Options, Security};

const TOPIC: Topic = Topic::StockDecisions;
type Brokers = MockCluster<'static, DefaultProducerContext>;

/// An appender for 10 records and 1,000 bytes in flight, which has appended one record.
async fn appender() -> (Brokers, Arc<Appender>) {
    let brokers: Brokers = MockCluster::new(1).unwrap();
    brokers.create_topic(TOPIC.name(), 1, 1).unwrap();
    let options = Options {
        brokers: brokers.bootstrap_servers(),
        topic_prefix: String::new(),
        partitions: 1,
        replication: 1,
        min_insync: 1,
        queue_records: 10,
        queue_bytes: 1_000,
        session_timeout: Duration::from_secs(6),
        security: Security::default(),
    };
    let (config, context) = (options.producer(), Context::default());
    let appender = Appender::new(config, context, Arc::new(Names::new("")), 10, 1_000);
    let appender = Arc::new(appender.unwrap());
    let first = append(&appender, 1, 0).unwrap().await;
    assert_eq!(first, Ok(Ok(Offset(0))));
    (brokers, appender)
}

/// Appends records of this size.
fn append(
    appender: &Arc<Appender>,
    records: usize,
    bytes: usize,
) -> Result<oneshot::Receiver<Answer>, AppendError> {
    let record = NewRecord {
        value: vec![b'x'; bytes].into(),
        ..NewRecord::default()
    };
    appender.enqueue(TOPIC, Partition(0), &vec![record; records])
}

#[tokio::test]
async fn a_call_is_accepted_whole_or_not_at_all() {
    let (brokers, appender) = appender().await;
    let refused = |records, bytes| append(&appender, records, bytes).unwrap_err();
    let too_large = AppendError::TooLarge {
        what: "the call",
        bytes: 1_002,
        max: 1_000,
    };
    assert_eq!(refused(2, 501), too_large);

    // Nothing is acknowledged, so accepted records stay in flight.
    brokers.broker_down(1).unwrap();
    let first = append(&appender, 1, 500).unwrap();
    assert_eq!(refused(2, 251), AppendError::Full, "bytes");
    assert_eq!(refused(10, 1), AppendError::Full, "records");
    let dropped = append(&appender, 9, 1).unwrap();
    assert_eq!(refused(1, 0), AppendError::Full, "one record");
    drop(dropped);
    assert_eq!(
        refused(1, 0),
        AppendError::Full,
        "a dropped call is still in flight"
    );
    brokers.broker_up(1).unwrap();
    assert_eq!(first.await, Ok(Ok(Offset(1))));
    while appender.in_flight.taken.lock().0 > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(appender.in_flight.taken.lock().1, 0);
    // Refused records were not appended. With nothing in flight a call may have any number of
    // records.
    let many = append(&appender, 50, 1).unwrap().await;
    assert_eq!(many, Ok(Ok(Offset(60))));
    appender.close();
}

#[tokio::test]
async fn closing_waits_for_records_in_flight() {
    let (brokers, appender) = appender().await;
    brokers.broker_down(1).unwrap();
    let calls: Vec<_> = (0..10).map(|_| append(&appender, 1, 1).unwrap()).collect();
    let closing = appender.clone();
    let closing = tokio::task::spawn_blocking(move || closing.close());
    while appender.producer.read().is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let refused = append(&appender, 1, 1).unwrap_err();
    assert_eq!(refused, AppendError::Stopped("it is closed".to_owned()));
    brokers.broker_up(1).unwrap();
    closing.await.unwrap();
    for (n, call) in calls.into_iter().enumerate() {
        let answer = call
            .now_or_never()
            .expect("all are answered when it is closed");
        assert_eq!(answer, Ok(Ok(Offset(n as i64 + 1))));
    }
}

#[tokio::test]
async fn a_producer_with_a_fatal_error_is_replaced() {
    let (brokers, appender) = appender().await;
    let one = async || append(&appender, 1, 0).unwrap().await.unwrap();
    let error = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
    brokers.request_errors(RDKafkaApiKey::Produce, &[error; 1]);
    let failed = one().await;
    assert!(matches!(failed, Err(AppendError::Unknown(_))), "{failed:?}");
    let fatal = || {
        let producer = appender.producer.read();
        producer.as_ref().unwrap().client().fatal_error().is_some()
    };
    assert!(fatal(), "the injected error must be fatal");
    // The next call detects the error, and later calls use the new producer.
    let detected = one().await;
    assert!(
        matches!(detected, Err(AppendError::Unknown(_))),
        "{detected:?}"
    );
    let replaced = async {
        while fatal() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), replaced)
        .await
        .unwrap();
    assert_eq!(one().await, Ok(Offset(1)));
    assert_eq!(
        *appender.in_flight.taken.lock(),
        (0, 0),
        "all shares were released"
    );
    appender.close();
}
