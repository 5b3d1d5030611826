//! Errors while the brokers are down, and recovery when they are back.

use std::time::{Duration, Instant};

use engines::Engines;
use ports::{AppendError, EventLog, Group, NewRecord, ReadError};
use schemas::ids::Partition;
use schemas::topics::Topic;
use tokio::time::timeout;

use crate::{append, next, open, options, read};

const TOPIC: Topic = Topic::PurchaseAttempts;

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
    append(&log, "after").await;
    let found = loop {
        let records = next(&mut *reader).await.unwrap();
        if let Some(record) = records.into_iter().find(|record| record.value == "after") {
            break record;
        }
    };
    let end = log.end(TOPIC, Partition(0)).await;
    assert_eq!(end, Ok(found.offset.next()));

    // Closing while the brokers are down takes a bounded time as well.
    engines.kafka().kill(1).unwrap();
    let began = Instant::now();
    wait(log.close()).await;
    println!("closed in {:?}", began.elapsed());
}

async fn wait<T>(future: impl Future<Output = T>) -> T {
    let waited = timeout(Duration::from_secs(60), future).await;
    waited.expect("it is done in 60 seconds")
}
