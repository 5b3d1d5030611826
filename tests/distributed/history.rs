//! Which decider decided when, read from `stock-decisions` through the fence.

use std::sync::Arc;

use history::Decisions;
use log_kafka::KafkaLog;
use ports::{Clock, EventLog, clock::SystemClock};
use schemas::codec::Codec;
use schemas::decision::DecisionRecord;
use schemas::fence::Verdict;
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;

use crate::cluster::{Cluster, PARTITIONS, Process};

/// `stock-decisions`, which can be read repeatedly while it grows.
pub struct History {
    log: KafkaLog,
    codec: Codec,
}

/// A claim, and the decisions under it.
#[derive(Debug)]
pub struct Claimed {
    pub partition: Partition,
    pub claim: Offset,
    pub claimed_at_ms: TimestampMs,
    /// The decider's name.
    decider: Arc<str>,
    /// When the first of its decisions that counts was appended.
    pub first_decision_at_ms: Option<TimestampMs>,
    /// Its decisions that count.
    pub counting: usize,
    /// Its decisions that were dropped.
    pub dropped: usize,
    /// The dropped decisions after another decider's claim.
    pub superseded: usize,
}

impl Claimed {
    pub fn is_of(&self, decider: &Process) -> bool {
        let address = format!(" {} ", decider.address());
        self.decider.contains(&address)
    }
}

impl History {
    pub async fn open(cluster: &Cluster) -> Self {
        Self {
            log: cluster.log().await,
            codec: cluster.codec().await,
        }
    }

    /// Every claim, partition by partition, in their order.
    pub async fn claims(&self) -> Vec<Claimed> {
        let mut all = Vec::new();
        for partition in (0..PARTITIONS).map(Partition) {
            all.extend(self.claims_of(partition).await);
        }
        all
    }

    /// The claim of each partition that is current at the end of the log.
    pub async fn current(&self) -> Vec<Claimed> {
        let mut current: Vec<Claimed> = Vec::new();
        for claimed in self.claims().await {
            current.pop_if(|before| before.partition == claimed.partition);
            current.push(claimed);
        }
        current
    }

    async fn claims_of(&self, partition: Partition) -> Vec<Claimed> {
        let end = self.log.end(Topic::StockDecisions, partition).await;
        let decisions = Decisions::open(&self.log, &self.codec, partition, end.unwrap()).await;
        let mut decisions = decisions.unwrap();
        let mut claims: Vec<Claimed> = Vec::new();
        while let Some(fenced) = decisions.next().await.unwrap() {
            let record = fenced.record;
            match (fenced.verdict, fenced.content) {
                (_, Some(DecisionRecord::Claim(claim))) => claims.push(Claimed {
                    partition,
                    claim: record.offset,
                    claimed_at_ms: record.appended_at_ms,
                    decider: claim.decider,
                    first_decision_at_ms: None,
                    counting: 0,
                    dropped: 0,
                    superseded: 0,
                }),
                (Verdict::Counts, _) => {
                    let current = claims.last_mut().unwrap();
                    current
                        .first_decision_at_ms
                        .get_or_insert(record.appended_at_ms);
                    current.counting += 1;
                }
                (_, Some(DecisionRecord::Decision(decision))) => {
                    let current = claims.last().unwrap().claim;
                    let its = claims
                        .iter_mut()
                        .find(|c| c.claim == decision.claim)
                        .unwrap();
                    its.dropped += 1;
                    its.superseded += usize::from(decision.claim < current);
                }
                (_, other) => panic!("no record of a rehearsal is skipped: {other:?}"),
            }
        }
        claims
    }
}

/// The current time of this machine, which the brokers use for append times.
pub fn now_ms() -> TimestampMs {
    SystemClock.now_ms()
}
