//! A partition, commands for it, and its decisions that count.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use command_api::decider::{self, CheckpointPolicy, Decider};
use domain::product::Product;
use domain::{DecisionContext, answer};
use kit::{ManualClock, MemoryLog};
use ports::{EventLog, LogRecord, NewRecord};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use runtime::health::Health;
use schemas::codec::Codec;
use schemas::command::{CancelOrder, Command, CommandBody, PlaceAttempt, SaleTerms, SetStock};
use schemas::decision::{Decision, DecisionRecord};
use schemas::fence::{Fence, Verdict};
use schemas::ids::{AttemptId, Money, Offset, Partition, ProductId};
use schemas::topics::Topic;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub const PARTITION: Partition = Partition(0);
pub const BEGIN_MS: i64 = 1_800_000_000_000;

/// A log of one partition in memory, and its clock.
pub struct Bench {
    pub log: Arc<MemoryLog>,
    pub clock: Arc<ManualClock>,
    pub codec: Arc<Codec>,
    pub health: Health,
}

/// A running decider.
pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// Stops it in order.
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.expect("the decider ends without panic");
    }

    /// Ends it at any point.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

impl Bench {
    pub fn new() -> Self {
        let clock = Arc::new(ManualClock::at(BEGIN_MS));
        let log = Arc::new(MemoryLog::new(1, clock.clone()));
        Self {
            log,
            clock,
            codec: Arc::new(Codec::embedded()),
            health: Health::default(),
        }
    }

    /// Starts a decider over `log`.
    pub fn start(&self, name: &str, log: Arc<dyn EventLog>, checkpoint_every: u64) -> Running {
        let decider = Decider {
            log,
            codec: self.codec.clone(),
            clock: self.clock.clone(),
            health: self.health.clone(),
            name: name.into(),
            checkpoints: CheckpointPolicy {
                min_decisions: checkpoint_every,
            },
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(decider::run(decider, stop.clone()));
        Running { stop, task }
    }

    /// Appends a command to `purchase-attempts`.
    pub fn put(&self, command: Command) -> Offset {
        let record = self.record(command);
        self.log
            .put(Topic::PurchaseAttempts, PARTITION, vec![record])
    }

    /// The record of a command.
    pub fn record(&self, command: Command) -> NewRecord {
        let key = Bytes::copy_from_slice(command.product_id.as_str().as_bytes());
        let value = self.codec.encode_command(command).into();
        NewRecord {
            key,
            value,
            headers: vec![],
        }
    }

    /// How many claims deciders have written.
    pub fn claims(&self) -> usize {
        let records = self.log.records(Topic::StockDecisions, PARTITION);
        let is_claim = |record: &LogRecord| {
            let decoded = self.codec.decode_decision(&record.value);
            matches!(decoded, Ok(DecisionRecord::Claim(_)))
        };
        records.iter().filter(|record| is_claim(record)).count()
    }

    /// Waits until every record of `purchase-attempts` has a decision that counts.
    pub async fn all_answered(&self) {
        for _ in 0..4_000 {
            let end = self.log.records(Topic::PurchaseAttempts, PARTITION).len() as i64;
            let last = self
                .counting()
                .last()
                .map_or(-1, |decision| decision.answers.0);
            if last == end - 1 {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("not everything was answered: {:?}", self.health.report());
    }

    /// The decisions that count in `stock-decisions`.
    pub fn counting(&self) -> Vec<Decision> {
        let mut fence = Fence::default();
        let records = self.log.records(Topic::StockDecisions, PARTITION);
        let decoded = records.iter().map(|record| {
            let decoded = self
                .codec
                .decode_decision(&record.value)
                .expect("it was written here");
            (record.offset, decoded)
        });
        let counting = decoded.filter_map(|(offset, record)| {
            let verdict = fence.pass(offset, &record);
            match record {
                DecisionRecord::Decision(decision) if verdict == Verdict::Counts => Some(decision),
                _ => None,
            }
        });
        counting.collect()
    }

    /// The decisions of one decider without faults on `purchase-attempts`.
    pub fn undisturbed(&self) -> Vec<Decision> {
        let mut products = std::collections::HashMap::<ProductId, Product>::new();
        let mut follows = Offset(-1);
        let mut decisions = Vec::new();
        for record in self.log.records(Topic::PurchaseAttempts, PARTITION) {
            let command = self
                .codec
                .decode_command(&record.value)
                .expect("it was written here");
            let context = DecisionContext {
                claim: Offset(0),
                offset: record.offset,
                follows,
                appended_at_ms: record.appended_at_ms,
            };
            let product = products.entry(command.product_id.clone()).or_default();
            let decision = answer(product, &command, context).expect("the invariants hold");
            let (bytes, chain) = self.codec.encode_chained(decision, product.head.chain);
            product.set_chain(chain);
            follows = record.offset;
            let Ok(DecisionRecord::Decision(decision)) = self.codec.decode_decision(&bytes) else {
                unreachable!("a decision was encoded")
            };
            decisions.push(decision);
        }
        decisions
    }
}

/// The decision without what depends on its decider.
pub fn substance(decision: &Decision) -> Decision {
    Decision {
        claim: Offset(0),
        chain: Default::default(),
        ..decision.clone()
    }
}

/// Puts a sale on that is open for a minute.
pub fn sale(product: &str, stock: u32, hold_ms: Option<i64>) -> Command {
    let terms = SaleTerms {
        name: "a thing".into(),
        price: Money {
            minor: 1,
            currency: "EUR".into(),
        },
        stock,
        limit_per_buyer: None,
        hold_ms,
        opens_at_ms: BEGIN_MS,
        closes_at_ms: Some(BEGIN_MS + 60_000),
    };
    Command {
        product_id: product.parse().unwrap(),
        body: CommandBody::PutSale(terms),
        if_version: None,
    }
}

/// An attempt to buy one.
pub fn attempt(product: &str, buyer: &str) -> Command {
    let product_id: ProductId = product.parse().unwrap();
    let place = PlaceAttempt {
        attempt_id: AttemptId::generate(),
        buyer_id: buyer.parse().unwrap(),
        quantity: 1,
        round: None,
    };
    Command {
        product_id,
        body: CommandBody::PlaceAttempt(place),
        if_version: None,
    }
}

/// Random commands for a few products.
pub struct Shoppers {
    dice: StdRng,
    attempts: Vec<(ProductId, PlaceAttempt)>,
}

impl Shoppers {
    pub fn new(seed: u64) -> Self {
        Self {
            dice: StdRng::seed_from_u64(seed),
            attempts: Vec::new(),
        }
    }

    pub fn terms(&mut self, now_ms: i64) -> SaleTerms {
        SaleTerms {
            name: "a thing".into(),
            price: Money {
                minor: 100,
                currency: "EUR".into(),
            },
            stock: self.dice.random_range(0..30),
            limit_per_buyer: self
                .dice
                .random_bool(0.5)
                .then(|| self.dice.random_range(1..5)),
            hold_ms: self
                .dice
                .random_bool(0.6)
                .then(|| self.dice.random_range(1..3_000)),
            opens_at_ms: now_ms + self.dice.random_range(-500..1_000),
            closes_at_ms: self
                .dice
                .random_bool(0.3)
                .then(|| now_ms + self.dice.random_range(1_000..20_000)),
        }
    }

    pub fn next(&mut self, now_ms: i64) -> Command {
        let product_id: ProductId = ["cap", "shoe", "bag"][self.dice.random_range(0..3)]
            .parse()
            .expect("it is an id");
        let kind = self.dice.random_range(0..100);
        let body = match kind {
            0..=4 => CommandBody::PutSale(self.terms(now_ms)),
            5 => CommandBody::PauseSale,
            6..=8 => CommandBody::OpenSale,
            9 if self.dice.random_bool(0.2) => CommandBody::CloseSale,
            10..=12 => CommandBody::SetStock(SetStock {
                stock: self.dice.random_range(0..40),
            }),
            13..=24 if !self.attempts.is_empty() => {
                let (product_id, place) = self.any_attempt();
                let PlaceAttempt {
                    attempt_id,
                    buyer_id,
                    ..
                } = place;
                let body = CommandBody::CancelOrder(CancelOrder {
                    attempt_id,
                    buyer_id,
                });
                return Command {
                    product_id,
                    body,
                    if_version: None,
                };
            }
            25..=34 if !self.attempts.is_empty() => {
                let (product_id, place) = self.any_attempt();
                return Command {
                    product_id,
                    body: CommandBody::PlaceAttempt(place),
                    if_version: None,
                };
            }
            _ => {
                let buyer = format!("buyer-{}", self.dice.random_range(0..20));
                let place = PlaceAttempt {
                    attempt_id: AttemptId::from_bytes(self.dice.random()),
                    buyer_id: buyer.parse().expect("it is an id"),
                    quantity: self.dice.random_range(0..4),
                    round: None,
                };
                self.attempts.push((product_id.clone(), place.clone()));
                CommandBody::PlaceAttempt(place)
            }
        };
        Command {
            product_id,
            body,
            if_version: None,
        }
    }

    pub fn pause_ms(&mut self) -> u64 {
        if self.dice.random_bool(0.3) {
            self.dice.random_range(0..200)
        } else {
            0
        }
    }

    fn any_attempt(&mut self) -> (ProductId, PlaceAttempt) {
        self.attempts[self.dice.random_range(0..self.attempts.len())].clone()
    }
}
