//! What becomes of calls on their way when the log is closed, and calls that are refused.

use futures::FutureExt;
use ports::{AppendError, EventLog, NewRecord};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

use crate::{append, fresh_options, open, record};

const TOPIC: Topic = Topic::PurchaseAttempts;

#[tokio::test(flavor = "multi_thread")]
async fn closing_waits_for_what_is_on_its_way() {
    let options = fresh_options("close").await;
    let log = open(&options).await;
    let mut calls = Vec::new();
    for n in 0..100 {
        let mut call = log.append(TOPIC, Partition(0), vec![record(n.to_string())]);
        // Polled once, it is on its way.
        match (&mut call).now_or_never() {
            Some(answer) => assert_eq!(answer, Ok(Offset(n))),
            None => calls.push((n, call)),
        }
    }
    log.close().await;
    for (n, call) in calls {
        let answer = call.now_or_never();
        assert_eq!(
            answer,
            Some(Ok(Offset(n))),
            "all are answered when close returns"
        );
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
