//! Bounds of what is on its way, and who gives up waiting.

use futures::FutureExt;
use log_kafka::Options;
use ports::{AppendError, EventLog, NewRecord};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

use crate::{append, fresh_options, open, record};

const TOPIC: Topic = Topic::PurchaseAttempts;

#[tokio::test(flavor = "multi_thread")]
async fn a_call_is_taken_whole_or_not_at_all() {
    let options = Options {
        queue_records: 10,
        queue_bytes: 1_000,
        ..fresh_options("full").await
    };
    let log = open(&options).await;
    let call = |records: usize, bytes: usize| {
        let records = (0..records).map(|_| record(vec![b'x'; bytes])).collect();
        log.append(TOPIC, Partition(0), records)
    };
    let refused = call(2, 501).await;
    let AppendError::TooLarge { what, bytes, max } = refused.unwrap_err() else {
        panic!("a call that can never be taken is too large")
    };
    assert_eq!((what, bytes, max), ("the call", 1_002, 1_000));

    // Polled once, a call is on its way.
    let mut first = call(1, 500);
    assert!((&mut first).now_or_never().is_none());
    assert_eq!(call(2, 251).await, Err(AppendError::Full), "bytes");
    assert_eq!(call(10, 1).await, Err(AppendError::Full), "records");
    let mut second = call(9, 1);
    assert!((&mut second).now_or_never().is_none());
    assert_eq!(call(1, 1).await, Err(AppendError::Full), "one record");
    assert_eq!(first.await, Ok(Offset(0)));
    assert_eq!(second.await, Ok(Offset(9)), "what was refused is nowhere");
    // When nothing is on its way, a call may have any number of records.
    assert_eq!(call(50, 1).await, Ok(Offset(59)));
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_gives_up_waiting_takes_up_no_room() {
    let options = Options {
        queue_records: 4,
        ..fresh_options("give-up").await
    };
    let log = open(&options).await;
    for n in 0..50 {
        let call = log.append(TOPIC, Partition(0), vec![NewRecord::default(); 4]);
        match call.now_or_never() {
            None => {}
            Some(Err(AppendError::Full)) => {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            answered => panic!("{answered:?} at {n}"),
        }
    }
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
    while let Err(error) = log
        .append(TOPIC, Partition(0), vec![NewRecord::default(); 4])
        .await
    {
        assert_eq!(error, AppendError::Full);
        assert!(std::time::Instant::now() < deadline, "there is room again");
    }
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_waits_for_what_is_on_its_way() {
    let options = fresh_options("close").await;
    let log = open(&options).await;
    let calls: Vec<_> = (0..100)
        .map(|n| {
            let mut call = log.append(TOPIC, Partition(0), vec![record(n.to_string())]);
            assert!(
                (&mut call).now_or_never().is_none(),
                "it is not answered before it is sent"
            );
            call
        })
        .collect();
    log.close().await;
    for (n, call) in calls.into_iter().enumerate() {
        let answer = call
            .now_or_never()
            .expect("all are answered when close returns");
        assert_eq!(answer, Ok(Offset(n as i64)));
    }
    let refused = log
        .append(TOPIC, Partition(0), vec![NewRecord::default()])
        .await;
    assert!(
        matches!(refused, Err(AppendError::Stopped(_))),
        "{refused:?}"
    );
    let log = open(&options).await;
    assert_eq!(append(&log, "next").await, Offset(100));
    log.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_is_not_there_is_refused() {
    let options = fresh_options("nowhere").await;
    let log = open(&options).await;
    let refused = log
        .append(TOPIC, Partition(2), vec![NewRecord::default()])
        .await;
    let said = "there is no partition 2; partitions are 0 to 1";
    assert_eq!(refused, Err(AppendError::Stopped(said.to_owned())));
    let refused = log.read(TOPIC, Partition(2), Offset(0)).await.err();
    assert_eq!(
        refused,
        Some(ports::ReadError::Unavailable(said.to_owned()))
    );
    log.close().await;
}
