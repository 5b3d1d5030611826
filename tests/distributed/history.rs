//! Which decider decided when, read from `stock-decisions` through the fence.

use std::sync::Arc;

use log_kafka::KafkaLog;
use ports::{Clock, EventLog, LogRecord, clock::SystemClock};
use schemas::codec::Codec;
use schemas::decision::DecisionRecord;
use schemas::fence::{Fence, Verdict};
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
        let mut claims: Vec<Claimed> = Vec::new();
        let mut fence = Fence::default();
        for record in self.records(partition).await {
            let decoded = self.codec.decode_decision(&record.value).unwrap();
            match (fence.pass(record.offset, &decoded), decoded) {
                (_, DecisionRecord::Claim(claim)) => claims.push(Claimed {
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
                (_, DecisionRecord::Decision(decision)) => {
                    let its = claims
                        .iter_mut()
                        .find(|c| c.claim == decision.claim)
                        .unwrap();
                    its.dropped += 1;
                    its.superseded += usize::from(decision.claim < fence.claim);
                }
            }
        }
        claims
    }

    /// All current records of the partition.
    async fn records(&self, partition: Partition) -> Vec<LogRecord> {
        let topic = Topic::StockDecisions;
        let end = self.log.end(topic, partition).await.unwrap();
        let mut records: Vec<LogRecord> = Vec::new();
        let mut reader = self.log.read(topic, partition, Offset(0)).await.unwrap();
        while records.last().map_or(Offset(0), |last| last.offset.next()) < end {
            records.extend(reader.next().await.unwrap());
        }
        records
    }
}

/// The current time of this machine, which the brokers use for append times.
pub fn now_ms() -> TimestampMs {
    SystemClock.now_ms()
}
