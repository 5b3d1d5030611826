//! A read side over a log and a store in memory, with faults to switch on. The test plays the
//! command API, the deciders and the projector.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode};
use http_body_util::BodyExt;
use kit::{ManualClock, MemoryLog, MemoryStore};
use parking_lot::Mutex;
use ports::read_store::{Progress, Row, SaleRow};
use ports::{NewRecord, ReadStore};
use query_api::http::{QueryApi, router};
use query_api::live::{self, Live, LiveSettings};
use runtime::health::Health;
use runtime::settings::AdminToken;
use schemas::codec::Codec;
use schemas::command::{Command, CommandBody, PlaceAttempt, SaleTerms};
use schemas::decision::{
    AttemptRefused, AttemptRepeated, Claim, CommandKind, Decision, DecisionRecord, Event, Order,
    OrderAccepted, RefusalReason, SaleSet, Skipped, Stock, Tally,
};
use schemas::fence::{Fence, Verdict};
use schemas::ids::{AttemptId, ChainHash, Money, Offset, Partition, ProductId, TimestampMs};
use schemas::topics::Topic;
use schemas::trace::{TRACEPARENT, trace_of};
use serde_json::Value;
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::ServiceExt;

pub const PARTITIONS: u32 = 2;
pub const NOW: TimestampMs = 1_795_248_000_000;
pub const TOKEN: &str = "a-good-token";

/// A read side with its log and store; the test plays the other services.
pub struct Shop {
    pub log: Arc<MemoryLog>,
    pub store: Arc<MemoryStore>,
    pub health: Health,
    clock: Arc<ManualClock>,
    codec: Arc<Codec>,
    decider: Mutex<BTreeMap<u32, Decider>>,
    traceparent: Mutex<Option<String>>,
    router: Option<Router>,
    _stop: DropGuard,
    cancel: CancellationToken,
}

/// The accepted decisions of a partition.
struct Decider {
    claim: Option<Offset>,
    answered: Offset,
    products: BTreeMap<ProductId, (u64, Stock, Tally)>,
}

impl Default for Decider {
    fn default() -> Self {
        Self {
            claim: None,
            answered: Offset(-1),
            products: BTreeMap::new(),
        }
    }
}

/// An answer over HTTP.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Value,
}

impl Shop {
    /// An empty log and store; the read side has not been started.
    pub fn closed() -> Self {
        let cancel = CancellationToken::new();
        let clock = Arc::new(ManualClock::still_at(NOW));
        Self {
            log: Arc::new(MemoryLog::new(PARTITIONS, clock.clone())),
            store: Arc::default(),
            health: Health::default(),
            clock,
            codec: Arc::new(Codec::embedded()),
            decider: Mutex::default(),
            traceparent: Mutex::default(),
            router: None,
            _stop: cancel.clone().drop_guard(),
            cancel,
        }
    }

    /// The same with the read side running, and a claim in every partition.
    pub fn open() -> Self {
        Self::with(LiveSettings::default())
    }

    pub fn with(settings: LiveSettings) -> Self {
        let mut shop = Self::closed();
        (0..PARTITIONS).for_each(|partition| shop.claim(partition));
        shop.start(settings);
        shop
    }

    /// The same with the read side running.
    pub fn started(mut self) -> Self {
        self.start(LiveSettings::default());
        self
    }

    pub fn start(&mut self, settings: LiveSettings) {
        let api = self.api(settings);
        let live = api.live.clone();
        tokio::spawn(live::run(live, self.health.clone(), self.cancel.clone()));
        self.router = Some(router(api, AdminToken::new(TOKEN)).into());
    }

    /// A read side without an admin token.
    pub fn without_admin() -> Self {
        let mut shop = Self::open();
        shop.router = Some(router(shop.api(LiveSettings::default()), None).into());
        shop
    }

    pub fn openapi() -> utoipa::openapi::OpenApi {
        let api = Self::closed().api(LiveSettings::default());
        router(api, None).into_openapi()
    }

    fn api(&self, settings: LiveSettings) -> QueryApi {
        let (log, store) = (self.log.clone(), self.store.clone());
        QueryApi {
            live: Live::new(log, store, self.codec.clone(), settings),
            clock: self.clock.clone(),
        }
    }

    /// Stops every task.
    pub fn stop(&self) {
        self.cancel.cancel();
    }

    /// Every record appended from now on belongs to this trace.
    pub fn in_trace(&self, traceparent: Option<&str>) {
        *self.traceparent.lock() = traceparent.map(str::to_owned);
    }

    /// Appends bytes to a partition.
    fn put(&self, topic: Topic, partition: u32, value: Vec<u8>) -> Offset {
        let traceparent = self.traceparent.lock().clone();
        let headers = traceparent.map(|value| (TRACEPARENT.into(), value.into()));
        let record = NewRecord {
            value: value.into(),
            headers: headers.into_iter().collect(),
            ..NewRecord::default()
        };
        self.log.put(topic, Partition(partition), vec![record])
    }

    /// Appends bytes that cannot be decoded to both topics of a partition.
    pub fn put_unreadable(&self, partition: u32) {
        for topic in [Topic::PurchaseAttempts, Topic::StockDecisions] {
            self.put(topic, partition, vec![0, 0, 0, 0, 99]);
        }
    }

    /// A decider takes the partition.
    pub fn claim(&self, partition: u32) {
        let claim = DecisionRecord::Claim(Claim {
            decider: "test".into(),
            partitions: None,
        });
        let bytes = self.codec.encode_decision(claim);
        let offset = self.put(Topic::StockDecisions, partition, bytes);
        self.decider.lock().entry(partition).or_default().claim = Some(offset);
    }

    /// Appends an attempt to `purchase-attempts`.
    pub fn ask(&self, partition: u32, product: &str, id: AttemptId) -> Offset {
        let command = Command {
            product_id: product.parse().unwrap(),
            body: CommandBody::PlaceAttempt(PlaceAttempt {
                attempt_id: id,
                buyer_id: "buyer".parse().unwrap(),
                quantity: 1,
                round: None,
            }),
            if_version: None,
        };
        let bytes = self.codec.encode_command(command);
        self.put(Topic::PurchaseAttempts, partition, bytes)
    }

    /// Appends a record to `purchase-attempts` that is not an attempt.
    pub fn tick(&self, partition: u32, product: &str) -> Offset {
        self.send(partition, product, CommandBody::TimeAdvanced)
    }

    /// Appends a command to `purchase-attempts`.
    pub fn send(&self, partition: u32, product: &str, body: CommandBody) -> Offset {
        let command = Command {
            product_id: product.parse().unwrap(),
            body,
            if_version: None,
        };
        let bytes = self.codec.encode_command(command);
        self.put(Topic::PurchaseAttempts, partition, bytes)
    }

    /// The kind that a decision on an offset of `purchase-attempts` names.
    fn kind_of(&self, partition: u32, offset: Offset) -> Option<CommandKind> {
        let records = self
            .log
            .records(Topic::PurchaseAttempts, Partition(partition));
        let record = records.iter().find(|record| record.offset == offset)?;
        self.codec.decode_command(&record.value).ok()?.body.kind()
    }

    /// The current decider answers an offset of `purchase-attempts`.
    pub fn decide(&self, partition: u32, product: &str, answers: Offset, events: Vec<Event>) {
        let claim = self.decider.lock()[&partition].claim.unwrap();
        self.decide_under(claim, partition, product, answers, events);
    }

    /// A decider with this claim, which may be superseded, answers an offset of
    /// `purchase-attempts`.
    pub fn decide_under(
        &self,
        claim: Offset,
        partition: u32,
        product: &str,
        answers: Offset,
        events: Vec<Event>,
    ) {
        let product_id: ProductId = product.parse().unwrap();
        let mut deciders = self.decider.lock();
        let decider = deciders.get_mut(&partition).unwrap();
        let follows = decider.answered;
        let (mut version, mut stock, mut tally) = decider
            .products
            .get(&product_id)
            .copied()
            .unwrap_or_default();
        version += 1;
        for event in &events {
            match event {
                Event::SaleSet(set) => {
                    stock.total = set.terms.stock;
                    stock.available = set.terms.stock;
                }
                Event::OrderAccepted(accepted) => {
                    stock.available -= accepted.order.quantity;
                    match accepted.order.hold_until_ms {
                        Some(_) => stock.reserved += accepted.order.quantity,
                        None => stock.sold += accepted.order.quantity,
                    }
                    tally.accepted += 1;
                }
                Event::AttemptRefused(_) => tally.refused += 1,
                _ => {}
            }
        }
        if Some(claim) == decider.claim && answers > decider.answered {
            decider.answered = answers;
            decider
                .products
                .insert(product_id.clone(), (version, stock, tally));
        }
        let decision = DecisionRecord::Decision(Decision {
            claim,
            follows,
            answers,
            product_id,
            version,
            decided_at_ms: NOW,
            events,
            stock,
            tally,
            command: self.kind_of(partition, answers),
            chain: ChainHash::default(),
        });
        let bytes = self.codec.encode_decision(decision);
        self.put(Topic::StockDecisions, partition, bytes);
    }

    /// The current decider skips an offset of `purchase-attempts`.
    pub fn skip(&self, partition: u32, answers: Offset) {
        let mut deciders = self.decider.lock();
        let decider = deciders.get_mut(&partition).unwrap();
        let skipped = DecisionRecord::Skipped(Skipped {
            claim: decider.claim.unwrap(),
            answers,
            follows: std::mem::replace(&mut decider.answered, answers),
            reason: "garbage".into(),
            by: None,
        });
        let bytes = self.codec.encode_decision(skipped);
        self.put(Topic::StockDecisions, partition, bytes);
    }

    /// Puts a product on sale and opens it, in one command.
    pub fn put_sale(&self, partition: u32, product: &str, stock: u32) {
        let at = self.tick(partition, product);
        let set = Event::SaleSet(SaleSet {
            terms: terms(stock),
            round: 1,
        });
        self.decide(partition, product, at, vec![set, Event::SaleOpened]);
    }

    /// Projects all of `stock-decisions` so far through the fence, as the projector does.
    pub async fn project(&self, partition: u32) {
        let partition = Partition(partition);
        let records = self.log.records(Topic::StockDecisions, partition);
        let mut fence = Fence::default();
        let mut sales: BTreeMap<ProductId, SaleRow> = BTreeMap::new();
        let mut rows = vec![];
        for record in &records {
            let decoded = self.codec.decode_decision(&record.value).unwrap();
            let verdict = fence.pass(record.offset, &decoded);
            if let (Verdict::Counts, DecisionRecord::Decision(decision)) = (verdict, decoded) {
                let trace = trace_of(&record.headers);
                rows.extend(views::attempt_rows(partition, &decision, trace));
                rows.extend(views::command_row(partition, &decision, trace).map(Row::Command));
                let previous = sales.get(&decision.product_id);
                if let Some(sale) = views::next_sale(previous, &decision) {
                    sales.insert(decision.product_id.clone(), sale);
                }
            }
        }
        rows.extend(sales.into_values().map(Row::Sale));
        let progress = Progress {
            next: Offset(records.len() as i64),
            claim: fence.claim,
            answered: fence.answered,
            log: None,
        };
        self.store.apply(partition, rows, progress).await.unwrap();
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.get_with(path, &[]).await
    }

    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        let mut request = Request::get(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::empty()).unwrap();
        let router = self.router.clone().expect("the read side has been started");
        let response = router.oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: head.status,
            headers: head.headers,
            body: serde_json::from_slice(&body)
                .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(&body).into())),
        }
    }

    /// The status of an attempt, or the problem code, without waiting.
    pub async fn status(&self, id: AttemptId) -> String {
        let answer = self.get(&format!("/api/attempts/{id}")).await;
        let field = if answer.status.is_success() {
            "status"
        } else {
            "code"
        };
        answer.body[field].as_str().unwrap().to_owned()
    }

    /// Lets the tails read all records.
    pub async fn settle(&self) {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(60)).await;
    }
}

/// In every test the read side only reads: it never appends to the log, looks up no offset by
/// time, joins no group, and writes no row.
impl Drop for Shop {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        let log = self.log.calls();
        let of_log = ["read", "end"];
        assert!(log.keys().all(|call| of_log.contains(call)), "{log:?}");
        let store = self.store.calls();
        // The test itself applies rows, as the projector.
        let of_store = [
            "apply", "progress", "attempt", "command", "sales", "orders", "intents",
        ];
        assert!(
            store.keys().all(|call| of_store.contains(call)),
            "{store:?}"
        );
    }
}

pub fn terms(stock: u32) -> SaleTerms {
    SaleTerms {
        name: "A thing".into(),
        price: Money {
            minor: 1999,
            currency: "EUR".into(),
        },
        stock,
        limit_per_buyer: None,
        hold_ms: None,
        opens_at_ms: NOW - 1000,
        closes_at_ms: None,
    }
}

pub fn id(n: u8) -> AttemptId {
    AttemptId::from_bytes([n; 16])
}

pub fn sold(id: AttemptId, at: Offset) -> Vec<Event> {
    vec![Event::OrderAccepted(OrderAccepted {
        order: order(id, at),
    })]
}

pub fn order(id: AttemptId, at: Offset) -> Order {
    Order {
        attempt_id: id,
        buyer_id: "buyer".parse().unwrap(),
        quantity: 1,
        attempt_offset: at,
        accepted_at_ms: NOW,
        hold_until_ms: None,
        price: Some(Money {
            minor: 1_500,
            currency: "HUF".into(),
        }),
    }
}

pub fn refused(id: AttemptId, reason: RefusalReason) -> Vec<Event> {
    vec![Event::AttemptRefused(AttemptRefused {
        attempt_id: id,
        buyer_id: "buyer".parse().unwrap(),
        quantity: 1,
        reason,
    })]
}

pub fn repeated(id: AttemptId) -> Vec<Event> {
    vec![Event::AttemptRepeated(AttemptRepeated { attempt_id: id })]
}
