//! A command API that is killed under load and comes back: no acknowledged attempt is lost, and a
//! retry with the same key gets the same attempt.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::Duration;

use ports::EventLog;
use runtime::settings::Service::{CommandApi, Decider, Projector, QueryApi};
use schemas::codec::Codec;
use schemas::command::CommandBody;
use schemas::decision::{DecisionRecord, Event};
use schemas::fence::{Fence, Verdict};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;
use serde_json::json;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::cluster::{Cluster, PARTITIONS, eventually};
use crate::shop::{Shop, text};

const LOAD: [&str; 8] = [
    "--buyers",
    "5000",
    "--over",
    "15",
    "--products",
    "12",
    "--stock",
    "150",
];

/// Buyers who repeat their order, each with one key, until it is accepted.
const BUYERS: u32 = 600;
/// How many of them send at once.
const AT_ONCE: usize = 24;
/// Units on sale for them: fewer than they order.
const STOCK: u32 = 200;
/// How many of them have their 202 when the command API is killed.
const KILLED_AFTER: [u32; 3] = [80, 220, 400];

#[tokio::test(flavor = "multi_thread")]
async fn a_command_api_killed_under_load_loses_no_attempt_and_duplicates_none() {
    let cluster = Cluster::new().await;
    let [mut command_api, query_api, _projector, _decider] = cluster
        .ready([CommandApi, QueryApi, Projector, Decider])
        .await;
    let shop = Shop::at(&command_api, &query_api);
    shop.put("wanted", json!({ "stock": STOCK })).await;
    shop.fate(&shop.order("wanted", "first", 1).await).await;
    let rehearsal = cluster.rehearse(&command_api, &query_api, &LOAD);

    let insisting = Insisting::begin(&shop);
    for killed_after in KILLED_AFTER {
        eventually("buyers have their 202", async || {
            (insisting.taken.load(Relaxed) >= killed_after).then_some(())
        })
        .await;
        command_api.kill();
        let unanswered = insisting.unanswered.load(Relaxed);
        eventually("buyers find the command_api gone", async || {
            (insisting.unanswered.load(Relaxed) >= unanswered + AT_ONCE as u32).then_some(())
        })
        .await;
        command_api.start_again();
    }
    let (attempts, again) = insisting.all_taken().await;
    println!("{again} orders were sent again, since the command_api did not answer");
    command_api.becomes_ready().await;

    let mut accepted = 0;
    for (buyer, attempt) in &attempts {
        assert_eq!(
            &shop.order("wanted", buyer, 1).await,
            attempt,
            "{buyer}'s second time"
        );
        let fate = shop.fate(attempt).await;
        accepted += u32::from(fate["status"] == "sold");
        let refused = fate["reason"] == "sold_out";
        assert!(fate["status"] == "sold" || refused, "{fate}");
    }
    assert_eq!(accepted, STOCK - 1, "all but the unit of the first buyer");
    rehearsal.passes().await;
    cluster.audit().await;

    let outcomes = Outcomes::read(&cluster).await;
    println!(
        "{} of {BUYERS} attempts are in purchase-attempts more than twice",
        outcomes.more_than_twice(&attempts)
    );
    for (buyer, attempt) in &attempts {
        let sent = outcomes.sent.get(attempt).copied().unwrap_or(0);
        let decided = outcomes.decided.get(attempt).copied().unwrap_or(0);
        assert!(
            sent >= 2,
            "{buyer}'s attempt was acknowledged twice, and stands {sent} times"
        );
        assert_eq!(decided, 1, "outcomes of {buyer}'s attempt {attempt}");
    }
}

/// Buyers who repeat their order until they have their 202.
struct Insisting {
    tasks: JoinSet<(String, String)>,
    /// How many have it.
    taken: Arc<AtomicU32>,
    /// How many requests got no answer, or not a 202.
    unanswered: Arc<AtomicU32>,
}

impl Insisting {
    fn begin(shop: &Shop) -> Self {
        let (taken, unanswered) = <(Arc<AtomicU32>, Arc<AtomicU32>)>::default();
        let turns = Arc::new(Semaphore::new(AT_ONCE));
        let mut tasks = JoinSet::new();
        for number in 0..BUYERS {
            let (shop, turns) = (shop.clone(), turns.clone());
            let (taken, unanswered) = (taken.clone(), unanswered.clone());
            tasks.spawn(async move {
                let _turn = turns.acquire().await.unwrap();
                let buyer = format!("buyer-{number}");
                loop {
                    let answer = shop.try_order("wanted", (&buyer, &buyer), 1, &[]).await;
                    if let Some((202, body)) = answer {
                        taken.fetch_add(1, Relaxed);
                        return (buyer, text(&body["attempt_id"]));
                    }
                    unanswered.fetch_add(1, Relaxed);
                    sleep(Duration::from_millis(50)).await;
                }
            });
        }
        Self {
            tasks,
            taken,
            unanswered,
        }
    }

    /// Each buyer's attempt, and how many requests were repeated.
    async fn all_taken(self) -> (BTreeMap<String, String>, u32) {
        let all = tokio::time::timeout(crate::cluster::PATIENCE, self.tasks.join_all());
        let attempts = all.await.expect("every buyer gets a 202 in the end");
        (
            attempts.into_iter().collect(),
            self.unanswered.load(Relaxed),
        )
    }
}

/// The records of each attempt in both topics.
#[derive(Default)]
struct Outcomes {
    /// How often it is in `purchase-attempts`.
    sent: HashMap<String, u32>,
    /// How many decisions that count accept or refuse it.
    decided: HashMap<String, u32>,
}

impl Outcomes {
    async fn read(cluster: &Cluster) -> Self {
        let (log, codec) = (cluster.log().await, cluster.codec().await);
        let mut outcomes = Self::default();
        for partition in (0..PARTITIONS).map(Partition) {
            outcomes.read_partition(&log, &codec, partition).await;
        }
        log.close().await;
        outcomes
    }

    async fn read_partition(&mut self, log: &dyn EventLog, codec: &Codec, partition: Partition) {
        for record in records(log, Topic::PurchaseAttempts, partition).await {
            let command = codec.decode_command(&record.value).unwrap();
            if let CommandBody::PlaceAttempt(attempt) = command.body {
                *self.sent.entry(attempt.attempt_id.to_string()).or_default() += 1;
            }
        }
        let mut fence = Fence::default();
        for record in records(log, Topic::StockDecisions, partition).await {
            let decoded = codec.decode_decision(&record.value).unwrap();
            let verdict = fence.pass(record.offset, &decoded);
            let (Verdict::Counts, DecisionRecord::Decision(decision)) = (verdict, decoded) else {
                continue;
            };
            for event in decision.events {
                let attempt = match event {
                    Event::OrderAccepted(accepted) => accepted.order.attempt_id,
                    Event::AttemptRefused(refused) => refused.attempt_id,
                    _ => continue,
                };
                *self.decided.entry(attempt.to_string()).or_default() += 1;
            }
        }
    }

    /// How many attempts were appended although the command API was killed before it answered.
    fn more_than_twice(&self, attempts: &BTreeMap<String, String>) -> usize {
        let often = |attempt: &&String| self.sent.get(*attempt).is_some_and(|sent| *sent > 2);
        attempts.values().filter(often).count()
    }
}

/// All current records of a partition.
pub async fn records(
    log: &dyn EventLog,
    topic: Topic,
    partition: Partition,
) -> Vec<ports::LogRecord> {
    let end = log.end(topic, partition).await.unwrap();
    let mut reader = log.read(topic, partition, Offset(0)).await.unwrap();
    let mut records: Vec<ports::LogRecord> = Vec::new();
    while records.last().map_or(Offset(0), |last| last.offset.next()) < end {
        records.extend(reader.next().await.unwrap());
    }
    records
}
