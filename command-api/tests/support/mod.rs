//! The HTTP API over a log and a store in memory, and requests to it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request};
use command_api::http::{CommandApi, KnownProducts, KnownRounds, RecentOrders, router};
use command_api::log_watch::LogState;
use http_body_util::BodyExt;
use kit::{ManualClock, MemoryLog, MemoryStore};
use ports::LogRecord;
use ports::read_store::{Row, SalePhase, SaleRow};
use runtime::settings::AdminToken;
use schemas::codec::Codec;
use schemas::command::{Command, SaleTerms};
use schemas::decision::{Stock, Tally};
use schemas::ids::{Money, Partition};
use schemas::placement::Placement;
use schemas::topics::Topic;
use serde_json::Value;
use tower::ServiceExt;
use web::receipt::ReceiptKey;

pub const PARTITIONS: u32 = 8;
pub const NOW: i64 = 1_795_248_000_007;
pub const ORDER: &str = "/api/flash-sales/sneaker/order";
pub const SALE: &str = "/api/admin/flash-sales/sneaker";
pub const CANCEL: &str =
    "/api/flash-sales/sneaker/order/0188bb5c-0000-4000-8000-000000000001/cancel";

/// The HTTP API over a log and a store in memory.
pub struct World {
    pub log: Arc<MemoryLog>,
    pub store: Arc<MemoryStore>,
    pub log_state: LogState,
    pub clock: Arc<ManualClock>,
    /// Whether a test compares the log with the read models, which reads both.
    pub watched: bool,
    router: Router,
}

/// An answer over HTTP.
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Value,
}

/// An API that knows one product, the sneaker.
pub fn world(admin: Option<&str>) -> World {
    let clock = Arc::new(ManualClock::still_at(NOW));
    let log = Arc::new(MemoryLog::new(PARTITIONS, clock.clone()));
    let (store, log_state) = (store(), LogState::default());
    let commands = CommandApi {
        log: log.clone(),
        store: store.clone(),
        codec: Arc::new(Codec::embedded()),
        placement: Placement::new(PARTITIONS),
        receipts: ReceiptKey::new(&[7; 32]),
        clock: clock.clone(),
        known: KnownProducts::default(),
        log_state: log_state.clone(),
        rounds: KnownRounds::default(),
        recent: RecentOrders::default(),
    };
    let admin = admin.map(|token| AdminToken::new(token).unwrap());
    let router = router(Arc::new(commands), admin, Duration::from_millis(200)).into();
    World {
        log,
        store,
        log_state,
        clock,
        watched: false,
        router,
    }
}

impl World {
    pub async fn send(&self, request: Request<Body>) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
        Answer {
            status: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    }

    pub async fn order(&self, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        self.call("POST", ORDER, headers, body).await
    }

    pub async fn call(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.send(request.body(body.into()).unwrap()).await
    }

    /// The appended records by partition, each in order.
    pub fn appended(&self) -> Vec<(Partition, LogRecord)> {
        let records = |p| self.log.records(Topic::PurchaseAttempts, p);
        let partitions = (0..PARTITIONS).map(Partition);
        partitions
            .flat_map(|p| records(p).into_iter().map(move |record| (p, record)))
            .collect()
    }

    /// The commands in the log, in the same order.
    pub fn commands(&self) -> Vec<Command> {
        let codec = Codec::embedded();
        let appended = self.appended().into_iter();
        appended
            .map(|(_, record)| codec.decode_command(&record.value).unwrap())
            .collect()
    }

    /// How often the store was queried for a sale.
    pub fn store_queries(&self) -> usize {
        self.store.calls().get("sale").copied().unwrap_or(0)
    }
}

/// Whatever a test did, the API appends only to `purchase-attempts`, reads no topic but for its end,
/// and queries the store only for sales and its progress.
impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() || self.watched {
            return;
        }
        let log = self.log.calls();
        let of_log = ["append", "end"];
        assert!(log.keys().all(|call| of_log.contains(call)), "{log:?}");
        let store = self.store.calls();
        // The test itself applies rows, as the projector.
        let of_store = ["sale", "sales", "progress", "apply"];
        assert!(
            store.keys().all(|call| of_store.contains(call)),
            "{store:?}"
        );
        for topic in Topic::ALL {
            let silent = (0..PARTITIONS).all(|p| self.log.records(topic, Partition(p)).is_empty());
            assert!(silent || topic == Topic::PurchaseAttempts, "{topic:?}");
        }
    }
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers
            .get(name)
            .map_or("", |value| value.to_str().unwrap())
    }

    /// Status and code of a problem, after checking that it is one in full.
    pub fn problem(&self) -> (u16, &str) {
        assert_eq!(
            self.header("content-type"),
            "application/problem+json",
            "{}",
            self.body
        );
        assert_eq!(self.body["status"], self.status);
        let code = self.body["code"].as_str().unwrap();
        assert_eq!(self.body["type"], format!("/problems/{code}"));
        assert!(!self.body["detail"].as_str().unwrap().is_empty());
        (self.status, code)
    }
}

pub const BUYER: (&str, &str) = ("x-buyer-id", "b-1");
pub const ADMIN: (&str, &str) = ("authorization", "Bearer let-me-in");

/// A store that knows one product, the sneaker.
pub fn store() -> Arc<MemoryStore> {
    let store = MemoryStore::default();
    store.put(Row::Sale(sale("sneaker")));
    Arc::new(store)
}

pub fn sale(product: &str) -> SaleRow {
    SaleRow {
        product_id: product.parse().unwrap(),
        version: 1,
        round: 1,
        terms: SaleTerms {
            name: "x".into(),
            price: Money {
                minor: 1,
                currency: Arc::from("EUR"),
            },
            stock: 1,
            limit_per_buyer: None,
            hold_ms: None,
            opens_at_ms: 0,
            closes_at_ms: None,
        },
        phase: SalePhase::Open,
        stock: Stock {
            total: 1,
            available: 1,
            reserved: 0,
            sold: 0,
        },
        tally: Tally::default(),
        decided_at_ms: 0,
        sale_version: Some(1),
    }
}
