//! A small history by the real domain, in pieces that a test can tamper with before they become a
//! log and read models.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use audit::report::Report;
use audit::{Scope, Source, audit};
use bytes::Bytes;
use domain::product::Product;
use domain::{DecisionContext, answer};
use doorbuster::audit_source::scratch_store;
use indicatif::ProgressBar;
use kit::{MemoryLog, MemoryStore};
use ports::read_store::{Progress, Row};
use ports::{Clock, NewRecord, ReadStore};
use projector::Projection;
use schemas::codec::Codec;
use schemas::command::{CancelOrder, Command, CommandBody, PlaceAttempt, SaleTerms};
use schemas::decision::{Claim, Decision, DecisionRecord, Event, Order};
use schemas::ids::{AttemptId, ChainHash, Money, Offset, Partition, ProductId, TimestampMs};
use schemas::topics::Topic;
use schemas::trace::TRACEPARENT;

pub const PARTITION: Partition = Partition(0);

/// Both topics of one partition, decoded.
pub struct History {
    pub asked: Vec<(TimestampMs, Command)>,
    pub decided: Vec<DecisionRecord>,
}

/// A clock that shows the time it was set to.
#[derive(Default)]
struct SetClock(AtomicI64);

impl Clock for SetClock {
    fn now_ms(&self) -> TimestampMs {
        self.0.load(Ordering::Relaxed)
    }

    fn elapsed(&self) -> Duration {
        Duration::ZERO
    }
}

pub fn id(number: u8) -> AttemptId {
    AttemptId::from_bytes([number; 16])
}

pub fn command(product: &str, body: CommandBody) -> Command {
    Command {
        product_id: product.parse().unwrap(),
        body,
        if_version: None,
    }
}

fn put(product: &str, stock: u32, hold_ms: Option<i64>, opens_at_ms: i64) -> Command {
    let terms = SaleTerms {
        name: product.into(),
        price: Money {
            minor: 1999,
            currency: "GBP".into(),
        },
        stock,
        limit_per_buyer: Some(2),
        hold_ms,
        opens_at_ms,
        closes_at_ms: None,
    };
    command(product, CommandBody::PutSale(terms))
}

pub fn attempt(product: &str, number: u8, buyer: &str, quantity: u32) -> Command {
    let buyer_id = buyer.parse().unwrap();
    let place = PlaceAttempt {
        attempt_id: id(number),
        buyer_id,
        quantity,
        round: None,
    };
    command(product, CommandBody::PlaceAttempt(place))
}

fn cancel(product: &str, number: u8, buyer: &str) -> Command {
    let cancel = CancelOrder {
        attempt_id: id(number),
        buyer_id: buyer.parse().unwrap(),
    };
    command(product, CommandBody::CancelOrder(cancel))
}

/// Thirteen records by two deciders. Up to record 7, record n has its decision at offset n + 1,
/// then at n + 2, because the second claim is at 9.
pub fn history() -> History {
    history_with([])
}

/// The same, with more commands after them.
pub fn history_with(more: impl IntoIterator<Item = (TimestampMs, Command)>) -> History {
    let mut asked = vec![
        (0, put("cap", 3, None, 1_000)),
        (0, put("shoe", 1, Some(500), 0)),
        (1_000, attempt("cap", 2, "ann", 2)),  // opens, accepted
        (1_000, attempt("cap", 3, "bob", 1)),  // accepted
        (1_000, attempt("cap", 4, "cy", 1)),   // sold out
        (1_100, attempt("shoe", 5, "ann", 1)), // held
        (1_100, attempt("shoe", 6, "bob", 1)), // sold out
        (1_200, cancel("cap", 3, "bob")),      // cancelled
        (1_300, attempt("cap", 8, "cy", 1)),   // accepted
        (1_300, attempt("cap", 3, "bob", 1)),  // repeated
        (1_600, command("shoe", CommandBody::TimeAdvanced)), // the hold expires
        (1_700, attempt("shoe", 11, "eve", 1)), // held
        (1_800, attempt("cap", 12, "dan", 1)), // sold out
    ];
    asked.extend(more);
    let claim = || {
        DecisionRecord::Claim(Claim {
            decider: "forge".into(),
            partitions: None,
        })
    };
    let (mut decided, mut claimed) = (vec![claim()], 0);
    let mut products = HashMap::<ProductId, Product>::new();
    for (offset, (at, command)) in asked.iter().enumerate() {
        if offset == 8 {
            claimed = decided.len() as i64;
            decided.push(claim());
        }
        let offset = offset as i64;
        let context = DecisionContext {
            claim: Offset(claimed),
            offset: Offset(offset),
            follows: Offset(offset - 1),
            appended_at_ms: *at,
        };
        let product = products.entry(command.product_id.clone()).or_default();
        let decision = answer(product, command, context).expect("the invariants hold");
        decided.push(DecisionRecord::Decision(decision));
    }
    let mut history = History { asked, decided };
    history.seal();
    history
}

impl History {
    /// The decision at an offset of `stock-decisions`.
    pub fn decision(&mut self, at: usize) -> &mut Decision {
        match &mut self.decided[at] {
            DecisionRecord::Decision(decision) => decision,
            other => panic!("there is no decision at {at}, but {other:?}"),
        }
    }

    /// The order that the decision at an offset accepts.
    pub fn order(&mut self, at: usize) -> &mut Order {
        match self.decision(at).events.last_mut() {
            Some(Event::OrderAccepted(accepted)) => &mut accepted.order,
            other => panic!("{other:?} is no acceptance"),
        }
    }

    /// Every decision on a product from an offset on.
    pub fn decisions_from<'a>(
        &'a mut self,
        at: usize,
        product: &'a str,
    ) -> impl Iterator<Item = &'a mut Decision> {
        self.decided[at..]
            .iter_mut()
            .filter_map(move |record| match record {
                DecisionRecord::Decision(decision) if decision.product_id.as_str() == product => {
                    Some(decision)
                }
                _ => None,
            })
    }

    /// Chains every decision to the one before it again.
    pub fn seal(&mut self) {
        let codec = Codec::embedded();
        let mut chains = HashMap::<ProductId, ChainHash>::new();
        for record in &mut self.decided {
            if let DecisionRecord::Decision(decision) = record {
                let previous = chains.entry(decision.product_id.clone()).or_default();
                let (_, chain) = codec.encode_chained(decision.clone(), *previous);
                decision.chain = chain;
                *previous = chain;
            }
        }
    }

    /// The log with both topics.
    pub fn log(&self) -> Arc<MemoryLog> {
        let clock = Arc::new(SetClock::default());
        let log = Arc::new(MemoryLog::new(1, clock.clone()));
        self.append(&log, &clock, PARTITION);
        log
    }

    /// A log with these many partitions, of which the first ones have the same history each.
    pub fn log_in(&self, partitions: u32, filled: u32) -> Arc<MemoryLog> {
        let clock = Arc::new(SetClock::default());
        let log = Arc::new(MemoryLog::new(partitions, clock.clone()));
        for partition in (0..filled).map(Partition) {
            self.append(&log, &clock, partition);
        }
        log
    }

    fn append(&self, log: &MemoryLog, clock: &SetClock, partition: Partition) {
        let codec = Codec::embedded();
        for (at, command) in &self.asked {
            clock.0.store(*at, Ordering::Relaxed);
            let key = Bytes::copy_from_slice(command.product_id.as_str().as_bytes());
            let value = codec.encode_command(command.clone()).into();
            let record = NewRecord {
                key,
                value,
                headers: vec![],
            };
            log.put(Topic::PurchaseAttempts, partition, vec![record]);
        }
        for record in &self.decided {
            let value = codec.encode_decision(record.clone()).into();
            let headers = match record {
                DecisionRecord::Decision(decision) => vec![traceparent(decision.answers)],
                DecisionRecord::Claim(_) | DecisionRecord::Skipped(_) => vec![],
            };
            let record = NewRecord {
                value,
                headers,
                ..NewRecord::default()
            };
            log.put(Topic::StockDecisions, partition, vec![record]);
        }
    }

    /// The read models of the first `records` of `stock-decisions`.
    pub async fn read_models(&self, records: usize) -> Arc<MemoryStore> {
        let log = self.log();
        let store = Arc::new(MemoryStore::default());
        let mut projection = Projection::new(PARTITION, None);
        let records = &log.records(Topic::StockDecisions, PARTITION)[..records];
        let rows = projection
            .rows(&Codec::embedded(), &*store, records)
            .await
            .unwrap();
        store
            .apply(PARTITION, rows, projection.progress())
            .await
            .unwrap();
        store
    }
}

/// The trace header of the request at this offset of `purchase-attempts`.
fn traceparent(offset: Offset) -> (String, Bytes) {
    let value = format!("00-{:032x}-00f067aa0ba902b7-01", offset.0 + 1);
    (TRACEPARENT.into(), value.into())
}

/// A store with these rows.
pub async fn store_of(rows: Vec<Row>, progress: Progress) -> Arc<MemoryStore> {
    let store = Arc::new(MemoryStore::default());
    store.apply(PARTITION, rows, progress).await.unwrap();
    store
}

pub async fn audited(log: Arc<MemoryLog>, store: Option<Arc<MemoryStore>>) -> Report {
    audited_within(log, store, Scope::default()).await
}

pub async fn audited_within(
    log: Arc<MemoryLog>,
    store: Option<Arc<MemoryStore>>,
    scope: Scope,
) -> Report {
    audit(source_of(log, store), scope, ProgressBar::hidden())
        .await
        .expect("the log can be read")
}

pub fn source_of(log: Arc<MemoryLog>, store: Option<Arc<MemoryStore>>) -> Source {
    let store = store.map(|store| store as Arc<dyn ReadStore>);
    Source {
        log,
        store: store.ok_or_else(|| "none were given".to_owned()),
        is_live: true,
        codec: Arc::new(Codec::embedded()),
        scratch: Box::new(scratch_store),
    }
}
