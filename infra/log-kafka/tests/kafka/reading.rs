//! Readers when the brokers do not have the expected records, and the limit on readers.

use std::time::Duration;

use log_kafka::{Options, topic_name};
use ports::{EventLog, ReadError};
use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use tokio::time::timeout;

use crate::{append, fresh_options, next, open, read, record};

const TOPIC: Topic = Topic::PurchaseAttempts;

fn admin(options: &Options) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", &options.brokers)
        .create()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_begins_after_forgotten_records() {
    let options = fresh_options("forget").await;
    let log = open(&options).await;
    for n in 0..10 {
        append(&log, &n.to_string()).await;
    }
    log.forget(TOPIC, Partition(0), Offset(7)).await.unwrap();
    for from in [0, 3, 7] {
        let records = next(&mut *read(&log, from).await).await.unwrap();
        assert_eq!(
            (records[0].offset, &records[0].value[..]),
            (Offset(7), &b"7"[..])
        );
    }
    assert_eq!(log.end(TOPIC, Partition(0)).await, Ok(Offset(10)));
    log.forget(TOPIC, Partition(0), Offset(0)).await.unwrap();
    let beyond = log.forget(TOPIC, Partition(0), Offset(11)).await;
    assert!(
        matches!(beyond, Err(ReadError::Unavailable(_))),
        "{beyond:?}"
    );
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_are_forgotten_before_they_are_read_are_an_error() {
    let options = fresh_options("missed").await;
    let log = open(&options).await;
    // More than a reader prefetches, also when compressed.
    let mut seed = 1_u32;
    let noise = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (seed >> 24) as u8
    });
    let noise: bytes::Bytes = noise.take(800_000).collect();
    let mut last = Offset(0);
    for _ in 0..40 {
        last = log
            .append(TOPIC, Partition(0), vec![record(noise.clone())])
            .await
            .unwrap();
    }
    let mut reader = read(&log, 0).await;
    assert_eq!(next(&mut *reader).await.unwrap()[0].offset, Offset(0));
    log.forget(TOPIC, Partition(0), last).await.unwrap();
    let mut expected = None;
    let missed = loop {
        match next(&mut *reader).await {
            Ok(records) => {
                for record in records {
                    let expected = expected.get_or_insert(record.offset);
                    assert_eq!(record.offset, *expected, "no record is skipped silently");
                    *expected = expected.next();
                }
            }
            Err(error) => break error,
        }
    };
    let first = expected.unwrap();
    assert!(first < last);
    let ReadError::Unavailable(message) = missed else {
        panic!("{missed:?}")
    };
    let expected = format!("records {first} to {} of", last.0 - 1);
    assert!(message.starts_with(&expected), "{message}");
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lost_what_was_read_is_refused() {
    let options = fresh_options("lost").await;
    let log = open(&options).await;
    for n in 0..5 {
        append(&log, &n.to_string()).await;
    }
    let mut reader = read(&log, 4).await;
    assert_eq!(next(&mut *reader).await.unwrap()[0].offset, Offset(4));
    // The topic is recreated while the log is open.
    let (admin, name) = (admin(&options), topic_name(&options.topic_prefix, TOPIC));
    for deleted in admin
        .delete_topics(&[&name], &AdminOptions::new())
        .await
        .unwrap()
    {
        deleted.unwrap();
    }
    let new = NewTopic::new(&name, 2, TopicReplication::Fixed(1))
        .set("message.timestamp.type", "LogAppendTime");
    loop {
        let created = admin
            .create_topics([&new], &AdminOptions::new())
            .await
            .unwrap();
        if created[0].is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let lost = |from, end| {
        Err(ReadError::BeyondEnd {
            topic: TOPIC,
            partition: Partition(0),
            from: Offset(from),
            end: Offset(end),
        })
    };
    let refused = loop {
        match next(&mut *reader).await {
            Err(ReadError::Unavailable(_)) => {}
            other => break other,
        }
    };
    assert_eq!(refused, lost(5, 0));
    // A reader that begins where the old topic ended is not moved to the end of the new one.
    append(&log, "new").await;
    let refused = log.read(TOPIC, Partition(0), Offset(5)).await;
    assert_eq!(refused.map(|_| vec![]), lost(5, 1));
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_time_stamp_not_from_the_brokers_is_refused() {
    let options = fresh_options("time").await;
    let log = open(&options).await;
    append(&log, "good").await;
    let name = topic_name(&options.topic_prefix, TOPIC);
    let alter = AlterConfig::new(ResourceSpecifier::Topic(&name));
    let alter = alter.set("message.timestamp.type", "CreateTime");
    for altered in admin(&options)
        .alter_configs([&alter], &AdminOptions::new())
        .await
        .unwrap()
    {
        altered.unwrap();
    }
    // The brokers apply the change a moment later.
    let mut reader = read(&log, 0).await;
    let damaged = loop {
        append(&log, "bad").await;
        match next(&mut *reader).await {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    let ReadError::Damaged(message) = &damaged else {
        panic!("{damaged:?}")
    };
    assert!(
        message.contains(&name) && message.contains("message.timestamp.type"),
        "{message}"
    );
    assert_eq!(
        next(&mut *reader).await,
        Err(damaged),
        "the record is not skipped"
    );
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn eight_readers_may_read_a_partition_at_once() {
    let options = fresh_options("many").await;
    let log = open(&options).await;
    append(&log, "0").await;
    let mut readers = Vec::new();
    for _ in 0..8 {
        let mut reader = read(&log, 0).await;
        assert_eq!(next(&mut *reader).await.unwrap()[0].value, "0");
        readers.push(reader);
    }
    let refused = log
        .read(TOPIC, Partition(0), Offset(0))
        .await
        .err()
        .unwrap();
    let ReadError::Unavailable(message) = refused else {
        panic!("{refused:?}")
    };
    assert!(message.starts_with("8 readers of partition 0"), "{message}");
    // Another partition can be read, and so can this one once a reader has ended.
    log.read(TOPIC, Partition(1), Offset(0)).await.unwrap();
    let waiting = log.read(TOPIC, Partition(0), Offset(0));
    let (ninth, ()) = tokio::join!(waiting, async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        readers.pop();
    });
    assert_eq!(next(&mut *ninth.unwrap()).await.unwrap()[0].value, "0");
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_end_with_their_log() {
    for close in [true, false] {
        let options = fresh_options("end").await;
        let log = open(&options).await;
        let (mut waiting, mut idle) = (read(&log, 0).await, read(&log, 0).await);
        assert!(
            timeout(Duration::from_millis(100), waiting.next())
                .await
                .is_err(),
            "it waits"
        );
        let ended = tokio::spawn(async move { next(&mut *waiting).await });
        tokio::time::sleep(Duration::from_millis(50)).await;
        if close {
            log.close().await;
            assert_eq!(
                log.read(TOPIC, Partition(0), Offset(0)).await.err(),
                Some(ReadError::Closed)
            );
            assert_eq!(log.end(TOPIC, Partition(0)).await, Err(ReadError::Closed));
        }
        drop(log);
        assert_eq!(ended.await.unwrap(), Err(ReadError::Closed));
        assert_eq!(next(&mut *idle).await, Err(ReadError::Closed));
    }
}
