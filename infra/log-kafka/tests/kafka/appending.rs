//! Appends in flight when the log is closed.

use futures::FutureExt;
use ports::{AppendError, EventLog, NewRecord};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

use crate::{append, fresh_options, open, record};

const TOPIC: Topic = Topic::PurchaseAttempts;

#[tokio::test(flavor = "multi_thread")]
async fn closing_waits_for_records_in_flight() {
    let options = fresh_options("close").await;
    let log = open(&options).await;
    let mut calls = Vec::new();
    for n in 0..100 {
        let mut call = log.append(TOPIC, Partition(0), vec![record(n.to_string())]);
        // Polled once, the call is in flight.
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
            "all calls are answered when close returns"
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
