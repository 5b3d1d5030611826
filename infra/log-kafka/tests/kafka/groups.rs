//! Consumer groups: the assignment of partitions, and the committed progress.

use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use log_kafka::{KafkaLog, Options, group_name, topic_name};
use ports::{EventLog, Group};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::{ClientConfig, TopicPartitionList};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use tokio::sync::watch;

use crate::{fresh_options, open};

const PARTITIONS: u32 = 6;
const SESSION: Duration = Duration::from_secs(6);
/// Longer than any test waits, so that no handover is due to the end of a session.
const LONG_SESSION: Duration = Duration::from_secs(60);
type Assigned = watch::Receiver<BTreeSet<Partition>>;

async fn group_options(test: &str) -> Options {
    Options {
        partitions: PARTITIONS,
        session_timeout: SESSION,
        ..fresh_options(test).await
    }
}

/// Waits until a member has this many partitions, and returns how long that took.
async fn has(assigned: &mut Assigned, partitions: usize) -> Duration {
    let began = Instant::now();
    let waiting = assigned.wait_for(|set| set.len() == partitions);
    let waited = tokio::time::timeout(Duration::from_secs(40), waiting).await;
    let waited =
        waited.unwrap_or_else(|_| panic!("the member does not get {partitions} partitions"));
    drop(waited.unwrap());
    began.elapsed()
}

#[tokio::test(flavor = "multi_thread")]
async fn members_share_partitions_and_closing_hands_over_at_once() {
    let options = Options {
        session_timeout: LONG_SESSION,
        ..group_options("share").await
    };
    let (one, other) = (open(&options).await, open(&options).await);
    let mut of_one = one.assignment(Group::Deciders);
    has(&mut of_one, 6).await;
    let mut of_other = other.assignment(Group::Deciders);
    has(&mut of_other, 3).await;
    has(&mut of_one, 3).await;
    let both: BTreeSet<_> = of_one.borrow().union(&of_other.borrow()).copied().collect();
    assert_eq!(
        both,
        (0..PARTITIONS).map(Partition).collect(),
        "each partition is assigned to one member"
    );
    // The other group is independent.
    has(&mut one.assignment(Group::Projectors), 6).await;

    one.close().await;
    assert!(
        of_one.borrow().is_empty(),
        "a member that has left has no partitions"
    );
    let took = has(&mut of_other, 6).await;
    println!("handed over in {took:?}");
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropping_a_member_hands_over_at_once() {
    let options = Options {
        session_timeout: LONG_SESSION,
        ..group_options("drop").await
    };
    let (one, other) = (open(&options).await, open(&options).await);
    let mut of_other = other.assignment(Group::Projectors);
    has(&mut of_other, 6).await;
    has(&mut one.assignment(Group::Projectors), 3).await;
    drop(one);
    has(&mut of_other, 6).await;
    other.close().await;
}

const BROKERS: &str = "LOG_KAFKA_BROKERS";
const PREFIX: &str = "LOG_KAFKA_PREFIX";

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_member_hands_over_when_its_session_ends() {
    let options = group_options("vanish").await;
    let log = open(&options).await;
    let mut assigned = log.assignment(Group::Deciders);
    has(&mut assigned, 6).await;
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", "groups::member_until_killed", "--ignored"]);
    child
        .env(BROKERS, &options.brokers)
        .env(PREFIX, &options.topic_prefix);
    let mut child = child
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    has(&mut assigned, 3).await;
    // The child has its partitions once the group is stable.
    tokio::time::sleep(Duration::from_secs(1)).await;
    child.kill().unwrap();
    child.wait().unwrap();
    let took = has(&mut assigned, 6).await;
    println!("taken over in {took:?}");
    log.close().await;
}

/// The child: a member until it is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run as a child process by the test above, which kills it"]
async fn member_until_killed() {
    let (Ok(brokers), Ok(prefix)) = (std::env::var(BROKERS), std::env::var(PREFIX)) else {
        return;
    };
    let options = Options {
        partitions: PARTITIONS,
        session_timeout: SESSION,
        ..crate::options(brokers, prefix)
    };
    let log = open(&options).await;
    has(&mut log.assignment(Group::Deciders), 3).await;
    // So that it does not run forever if its parent fails.
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_is_committed_as_offsets() {
    let options = group_options("commit").await;
    let log = open(&options).await;
    has(&mut log.assignment(Group::Deciders), 6).await;
    log.note_progress(Group::Deciders, Partition(1), Offset(10));
    log.note_progress(Group::Deciders, Partition(1), Offset(11));
    log.note_progress(Group::Deciders, Partition(2), Offset(0));
    // This process is no member of that group.
    log.note_progress(Group::Projectors, Partition(1), Offset(12));
    let deadline = Instant::now() + Duration::from_secs(20);
    while committed(&options, Group::Deciders, 1).await != Some(11) {
        assert!(
            Instant::now() < deadline,
            "it is committed within 20 seconds"
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(committed(&options, Group::Deciders, 2).await, Some(0));
    assert_eq!(committed(&options, Group::Deciders, 0).await, None);
    assert_eq!(committed(&options, Group::Projectors, 1).await, None);
    // Closing the log commits the last noted progress.
    log.note_progress(Group::Deciders, Partition(3), Offset(33));
    log.close().await;
    assert_eq!(committed(&options, Group::Deciders, 3).await, Some(33));
}

#[tokio::test(flavor = "multi_thread")]
async fn progress_of_other_members_partitions_is_not_committed() {
    let options = group_options("others").await;
    let (one, other) = (open(&options).await, open(&options).await);
    let mut of_one = one.assignment(Group::Deciders);
    let mut of_other = other.assignment(Group::Deciders);
    has(&mut of_one, 3).await;
    has(&mut of_other, 3).await;
    let theirs = *of_other.borrow().first().unwrap();
    let ours = *of_one.borrow().first().unwrap();
    one.note_progress(Group::Deciders, theirs, Offset(5));
    one.note_progress(Group::Deciders, ours, Offset(6));
    one.close().await;
    assert_eq!(committed(&options, Group::Deciders, ours.0).await, Some(6));
    assert_eq!(committed(&options, Group::Deciders, theirs.0).await, None);
    other.close().await;
}

/// The offset that the group has committed for a partition of its topic.
async fn committed(options: &Options, group: Group, partition: u32) -> Option<i64> {
    let topic = match group {
        Group::Deciders => Topic::PurchaseAttempts,
        Group::Projectors => Topic::StockDecisions,
    };
    let topic = topic_name(&options.topic_prefix, topic);
    let group = group_name(&options.topic_prefix, group);
    let brokers = options.brokers.clone();
    let asking = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .set("group.id", &group)
            .create()
            .unwrap();
        let mut list = TopicPartitionList::new();
        list.add_partition(&topic, partition as i32);
        let found = consumer
            .committed_offsets(list, Duration::from_secs(10))
            .unwrap();
        let found = found.find_partition(&topic, partition as i32).unwrap();
        match found.offset() {
            rdkafka::Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    });
    asking.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_log_joins_no_group() {
    let options = group_options("closed").await;
    let log: KafkaLog = open(&options).await;
    log.close().await;
    assert!(log.assignment(Group::Deciders).borrow().is_empty());
    log.note_progress(Group::Deciders, Partition(0), Offset(1));
    log.close().await;
}
