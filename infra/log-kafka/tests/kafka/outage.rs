//! Errors while the brokers are down, and recovery when they are back.

use std::time::{Duration, Instant};

use engines::Engines;
use log_kafka::KafkaLog;
use ports::{AppendError, EventLog, Group, NewRecord, ReadError};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use tokio::time::timeout;

use crate::{append, next, open, options, read, record};

const TOPIC: Topic = Topic::PurchaseAttempts;
const PAUSE: Duration = Duration::from_millis(50);

#[tokio::test(flavor = "multi_thread")]
async fn calls_fail_while_brokers_are_down_and_recover() {
    let engines = tokio::task::spawn_blocking(|| {
        let one_broker = engines::Options {
            brokers: 1,
            cassandra: false,
            registry: false,
            ..engines::Options::default()
        };
        Engines::start(&one_broker).unwrap()
    });
    let engines = std::sync::Arc::new(engines.await.unwrap());
    let log = open(&options(engines.kafka_brokers(), "outage-".to_owned())).await;
    let mut assigned = log.assignment(Group::Deciders);
    wait(assigned.wait_for(|set| set.len() == 2)).await.unwrap();
    let mut reader = read(&log, 0).await;
    append(&log, "before").await;
    assert_eq!(next(&mut *reader).await.unwrap()[0].value, "before");

    engines.kafka().kill(1).unwrap();
    let unavailable = wait(log.end(TOPIC, Partition(0))).await;
    assert!(
        matches!(&unavailable, Err(ReadError::Unavailable(_))),
        "{unavailable:?}"
    );
    let records = vec![NewRecord::default()];
    let unknown = wait(log.append(TOPIC, Partition(0), records)).await;
    assert!(
        matches!(&unknown, Err(AppendError::Unknown(_))),
        "{unknown:?}"
    );
    // From then on appends are refused at once.
    let refused = refused_while_away(&log).await.to_string();
    assert!(refused.contains("no broker answers"), "{refused}");
    assert!(log.appends_timed_out() > 0);
    assert!(log.errors().any(|(_, count)| count > 0));
    wait(assigned.wait_for(|set| set.is_empty()))
        .await
        .expect("the session ends");
    // A reader waits until the brokers are back.
    assert!(
        timeout(Duration::from_secs(1), reader.next())
            .await
            .is_err()
    );

    let starting = engines.clone();
    tokio::task::spawn_blocking(move || starting.kafka().start(1).unwrap())
        .await
        .unwrap();
    wait(assigned.wait_for(|set| set.len() == 2))
        .await
        .expect("the partitions come back");
    let after = wait(appended(&log, "after")).await;
    let found = next(&mut *reader).await.unwrap().remove(0);
    assert_eq!((found.offset, &*found.value), (after, &b"after"[..]));
    assert_eq!(after.0, 1, "what was given up was not sent later");
    let end = log.end(TOPIC, Partition(0)).await;
    assert_eq!(end, Ok(found.offset.next()));

    // Closing while the brokers are down takes a bounded time as well.
    engines.kafka().kill(1).unwrap();
    let began = Instant::now();
    wait(log.close()).await;
    println!("closed in {:?}", began.elapsed());
}

/// Appends until the brokers count as away.
async fn refused_while_away(log: &KafkaLog) -> AppendError {
    loop {
        let append = log.append(TOPIC, Partition(0), vec![NewRecord::default()]);
        if let Err(refused @ AppendError::Unavailable(_)) = wait(append).await {
            return refused;
        }
    }
}

/// Appends until that is not refused any more, and returns the record's offset.
async fn appended(log: &KafkaLog, value: &str) -> Offset {
    loop {
        let append = log.append(TOPIC, Partition(0), vec![record(value.to_owned())]);
        match append.await {
            Err(AppendError::Unavailable(_)) => tokio::time::sleep(PAUSE).await,
            appended => return appended.unwrap(),
        }
    }
}

async fn wait<T>(future: impl Future<Output = T>) -> T {
    let waited = timeout(Duration::from_secs(60), future).await;
    waited.expect("it is done in 60 seconds")
}
