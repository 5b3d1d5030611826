//! Tests over librdkafka's mock brokers, which inject errors that real brokers cannot.

use futures::FutureExt;
use rdkafka::consumer::BaseConsumer;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;
use rdkafka::types::{RDKafkaApiKey, RDKafkaRespErr};

use super::*;
use crate::Security;
use crate::broker_watch::Watch;

const TOPIC: Topic = Topic::StockDecisions;
type Brokers = MockCluster<'static, DefaultProducerContext>;

/// Options for 20 records and 1,000 bytes in flight, which are not given up before a minute.
fn options(brokers: &Brokers) -> Options {
    Options {
        brokers: brokers.bootstrap_servers(),
        topic_prefix: String::new(),
        partitions: 1,
        replication: 1,
        min_insync: 1,
        queue_records: 20,
        queue_bytes: 1_000,
        append_timeout: Duration::from_secs(60),
        session_timeout: Duration::from_secs(6),
        security: Security::default(),
    }
}

/// An appender that has appended one record.
async fn appender() -> (Brokers, Arc<Appender>) {
    let brokers: Brokers = MockCluster::new(1).unwrap();
    for topic in Topic::ALL {
        brokers.create_topic(topic.name(), 1, 1).unwrap();
    }
    let (context, names) = (Context::default(), Arc::new(Names::new("")));
    let appender = Appender::new(&options(&brokers), context, names);
    let appender = Arc::new(appender.unwrap());
    let first = append(&appender, 1, 0).unwrap().await;
    assert_eq!(first, Ok(Ok(Offset(0))));
    (brokers, appender)
}

/// An appender whose availability is watched.
async fn watched() -> (Brokers, Arc<Appender>) {
    let (brokers, appender) = appender().await;
    watch(&options(&brokers), &appender);
    (brokers, appender)
}

fn watch(options: &Options, appender: &Arc<Appender>) {
    let context = appender.context.clone();
    let consumer = BaseConsumer::from_config_and_context(&options.client(), context).unwrap();
    let names = appender.names.clone();
    let watch = Watch::new(options, appender, Arc::new(consumer), names);
    watch.start().unwrap();
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
    assert_eq!(refused(20, 1), AppendError::Full, "records");
    let dropped = append(&appender, 19, 1).unwrap();
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
    assert_eq!(many, Ok(Ok(Offset(70))));
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

/// Calls until the brokers count as away.
async fn refused_while_away(appender: &Arc<Appender>) -> AppendError {
    loop {
        if let Err(refused @ AppendError::Unavailable(_)) = append(appender, 1, 0) {
            return refused;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Calls until an append succeeds, and returns its offset.
async fn appended(appender: &Arc<Appender>) -> Offset {
    loop {
        match append(appender, 1, 0) {
            Ok(answer) => return answer.await.unwrap().unwrap(),
            Err(AppendError::Unavailable(_)) => tokio::time::sleep(Duration::from_millis(50)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

#[tokio::test]
async fn while_the_brokers_are_away_appends_are_refused_and_those_in_flight_are_never_sent() {
    let (brokers, appender) = watched().await;
    brokers.broker_down(1).unwrap();
    let calls: Vec<_> = (0..5).map(|_| append(&appender, 1, 1).unwrap()).collect();
    // Long before the append timeout.
    for call in calls {
        let given_up = call.await.unwrap();
        assert!(
            matches!(given_up, Err(AppendError::Unknown(_))),
            "{given_up:?}"
        );
    }
    let refused = refused_while_away(&appender).await;
    assert!(
        refused.to_string().contains("no broker answers"),
        "{refused}"
    );
    let counts = &appender.context.counts;
    assert!(counts.appends_timed_out_so_far() >= 5);
    let errors: u64 = counts.errors().map(|(_, count)| count).sum();
    assert!(errors > 0);
    brokers.broker_up(1).unwrap();
    assert_eq!(
        appended(&appender).await,
        Offset(1),
        "nothing was sent late"
    );
    appender.close();
}

#[tokio::test]
async fn records_that_were_written_but_not_acknowledged_are_not_written_again() {
    let (brokers, appender) = watched().await;
    // The broker writes and does not answer.
    brokers
        .broker_round_trip_time(1, Duration::from_secs(30))
        .unwrap();
    let mut calls = Vec::new();
    for _ in 0..16 {
        calls.push(append(&appender, 1, 1).unwrap());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    for call in calls {
        let given_up = call.await.unwrap();
        assert!(
            matches!(given_up, Err(AppendError::Unknown(_))),
            "{given_up:?}"
        );
    }
    refused_while_away(&appender).await;
    brokers.broker_round_trip_time(1, Duration::ZERO).unwrap();
    // Some had not been sent when all were given up.
    let Offset(written) = appended(&appender).await;
    assert!((2..=17).contains(&written), "{written} records of 17");
    appender.close();
}

#[tokio::test]
async fn a_partition_that_takes_no_records_is_refused_by_name_and_the_others_are_not() {
    let brokers: Brokers = MockCluster::new(2).unwrap();
    for topic in Topic::ALL {
        let replicas = if topic == TOPIC { 1 } else { 2 };
        brokers.create_topic(topic.name(), 1, replicas).unwrap();
    }
    let options = Options {
        replication: 2,
        min_insync: 2,
        ..options(&brokers)
    };
    let (context, names) = (Context::default(), Arc::new(Names::new("")));
    let appender = Appender::new(&options, context, names).unwrap();
    let appender = Arc::new(appender);
    watch(&options, &appender);
    appender.context.suspect();
    let refused = refused_while_away(&appender).await.to_string();
    let why = "partition 0 of stock-decisions has 1 in-sync replicas, but min.insync.replicas is 2";
    assert!(refused.contains(why), "{refused}");
    let others = [NewRecord::default()];
    let other = appender.enqueue(Topic::PurchaseAttempts, Partition(0), &others);
    assert_eq!(other.unwrap().await, Ok(Ok(Offset(0))));
    appender.close();
}
