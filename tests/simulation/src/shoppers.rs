//! The shoppers and the seller: they ask over HTTP by the plan, send again what was not
//! answered, and write down what they were told.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use turmoil::net::TcpStream;
use web::rfc3339::Moment;

use crate::nodes::{ADMIN_TOKEN, PORT};
use crate::plan::{Ask, Cast, PRODUCTS, Plan, What};
use crate::world::{BEGIN_MS, Ms, Node, Role, World};

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);
/// The name of the shoppers' host.
pub const HOST: &str = "shoppers";

/// Something that a client was told.
#[derive(Debug, Clone, PartialEq)]
pub enum Told {
    /// An order is in line.
    Taken {
        /// The order's name: product, buyer and key.
        order: (usize, u32, u32),
        /// The attempt.
        attempt: String,
        /// Its place.
        position: (u32, i64),
        /// The signed receipt.
        receipt: String,
    },
    /// How an attempt stands.
    Attempt {
        /// The attempt.
        attempt: String,
        /// The body of the answer.
        body: Value,
        /// The position that the answer was asked to be no older than.
        at_least: Option<(u32, i64)>,
        /// Whether the question was asked when all was over.
        at_the_end: bool,
    },
    /// There is no such attempt, though it had been taken.
    Unknown {
        /// The attempt.
        attempt: String,
    },
    /// How a sale stands.
    Sale {
        /// The body of the answer.
        body: Value,
        /// Whether the question was asked when all was over.
        at_the_end: bool,
    },
    /// An answer that none should get.
    Wrong(String),
}

/// Everybody who asks.
pub struct Shoppers {
    world: Arc<World>,
    doors: Vec<Node>,
    windows: Vec<Node>,
    /// What was told, with the time.
    pub told: Mutex<Vec<(Ms, Told)>>,
    /// Whether everything has come to its end, and the last questions may be asked.
    pub over: watch::Sender<bool>,
    /// Whether all that was to be asked before has been answered.
    pub satisfied: watch::Sender<bool>,
}

impl Shoppers {
    /// The people of a run.
    pub fn new(world: Arc<World>, cast: &Cast) -> Arc<Self> {
        let shop = cast.nodes(Role::Shop);
        let or_shop = |nodes: Vec<Node>| {
            if nodes.is_empty() {
                shop.clone()
            } else {
                nodes
            }
        };
        Arc::new(Self {
            world,
            doors: or_shop(cast.nodes(Role::Door)),
            windows: or_shop(cast.nodes(Role::Query)),
            told: Mutex::default(),
            over: watch::Sender::new(false),
            satisfied: watch::Sender::new(false),
        })
    }

    /// Asks all that the plan has, waits until all is over, and asks once more how it stands.
    pub async fn run(self: Arc<Self>, plan: Plan) -> turmoil::Result {
        let mut asking = JoinSet::new();
        for (n, step) in plan.steps.into_iter().enumerate() {
            if let What::Ask(ask) = step.what {
                let everybody = self.clone();
                asking.spawn_local(async move {
                    sleep(Duration::from_millis(step.at)).await;
                    everybody.ask(n, ask).await;
                });
            }
        }
        while let Some(asked) = asking.join_next().await {
            asked?;
        }
        self.satisfied.send_replace(true);
        self.over.subscribe().wait_for(|over| *over).await?;
        self.ask_at_the_end().await;
        Ok(())
    }

    async fn ask(&self, n: usize, ask: Ask) {
        match ask {
            Ask::Order {
                product,
                buyer,
                key,
                quantity,
                copies,
                insists,
            } => {
                let order = (product, buyer, key);
                let send = |copy| self.order(n + copy, order, quantity, insists);
                let copies: Vec<_> = (0..usize::from(copies)).map(send).collect();
                let taken = futures::future::join_all(copies).await;
                if let Some(attempt) = taken.into_iter().flatten().next() {
                    self.follow(n, &attempt, None).await;
                }
            }
            Ask::Cancel {
                product,
                buyer,
                key,
                by,
            } => {
                let Some(attempt) = self.attempt_of((product, buyer, key)) else {
                    return;
                };
                let path = format!(
                    "/api/flash-sales/{}/order/{attempt}/cancel",
                    PRODUCTS[product]
                );
                let buyer = format!("buyer-{by}");
                let headers = [("x-buyer-id", buyer.as_str())];
                if let Some(body) = self.insist(n, "POST", &path, &headers, None).await {
                    self.follow(n, &attempt, position(&body)).await;
                }
            }
            Ask::Put {
                product,
                stock,
                limit,
                hold_ms,
                opens_in,
                closes_in,
            } => {
                let now = BEGIN_MS + self.world.now() as i64;
                let moment = |ms: Option<Ms>| ms.map(|ms| Moment(now + ms as i64));
                let body = json!({
                    "name": PRODUCTS[product], "price": {"minor": 100, "currency": "EUR"},
                    "stock": stock, "limit_per_buyer": limit, "hold_ms": hold_ms,
                    "opens_at": moment(opens_in), "closes_at": moment(closes_in),
                });
                self.change(n, "PUT", product, "", Some(body)).await;
            }
            Ask::Change { product, how } => {
                self.change(n, "POST", product, &format!("/{how}"), None)
                    .await;
            }
            Ask::Stock { product, stock } => {
                self.change(n, "POST", product, "/stock", Some(json!({"stock": stock})))
                    .await;
            }
            Ask::Look { product } => self.look(n, product, false).await,
        }
    }

    /// Sends an order until it is taken; the attempt if it was.
    async fn order(
        &self,
        n: usize,
        order: (usize, u32, u32),
        quantity: u32,
        insists: bool,
    ) -> Option<String> {
        let (product, buyer, key) = order;
        let path = format!("/api/flash-sales/{}/order", PRODUCTS[product]);
        let (buyer, key) = (format!("buyer-{buyer}"), format!("key-{key}"));
        let headers = [
            ("x-buyer-id", buyer.as_str()),
            ("idempotency-key", key.as_str()),
        ];
        let body = Some(json!({"quantity": quantity}));
        let body = match insists {
            true => self.insist(n, "POST", &path, &headers, body).await?,
            false => {
                let door = self.doors[n % self.doors.len()];
                let answer = self.call(door, "POST", &path, &headers, body).await;
                answer.filter(|(status, _)| *status == 202)?.1
            }
        };
        let attempt = body["attempt_id"].as_str()?.to_owned();
        let receipt = body["receipt"].as_str()?.to_owned();
        let position = position(&body)?;
        self.note(Told::Taken {
            order,
            attempt: attempt.clone(),
            position,
            receipt,
        });
        Some(attempt)
    }

    /// Asks for an attempt until it is decided.
    async fn follow(&self, n: usize, attempt: &str, at_least: Option<(u32, i64)>) {
        let mut path = format!("/api/attempts/{attempt}?wait=3");
        if let Some((partition, offset)) = at_least {
            path = format!("{path}&at_least={partition}:{offset}");
        }
        for turn in n.. {
            let window = self.windows[turn % self.windows.len()];
            match self.call(window, "GET", &path, &[], None).await {
                Some((200, body)) => {
                    let is_decided = body["status"] != "queued";
                    let attempt = attempt.to_owned();
                    self.note(Told::Attempt {
                        attempt,
                        body,
                        at_least,
                        at_the_end: false,
                    });
                    if is_decided {
                        return;
                    }
                }
                Some((404, _)) => self.note(Told::Unknown {
                    attempt: attempt.to_owned(),
                }),
                Some((503 | 504, _)) | None => {}
                Some((status, body)) => {
                    self.note(Told::Wrong(format!("{path} got {status}: {body}")))
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn look(&self, n: usize, product: usize, at_the_end: bool) {
        let window = self.windows[n % self.windows.len()];
        let path = format!("/api/flash-sales/{}", PRODUCTS[product]);
        if let Some((200, body)) = self.call(window, "GET", &path, &[], None).await {
            self.note(Told::Sale { body, at_the_end });
        }
    }

    async fn change(
        &self,
        n: usize,
        method: &str,
        product: usize,
        path: &str,
        body: Option<Value>,
    ) {
        let path = format!("/api/admin/flash-sales/{}{path}", PRODUCTS[product]);
        let bearer = format!("Bearer {ADMIN_TOKEN}");
        let headers = [("authorization", bearer.as_str())];
        self.insist(n, method, &path, &headers, body).await;
    }

    /// Sends a command until it is taken, at one door and then the next. None when it cannot
    /// be: there is no such sale yet, or its window is over.
    async fn insist(
        &self,
        n: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Option<Value> {
        for turn in n.. {
            let door = self.doors[turn % self.doors.len()];
            match self.call(door, method, path, headers, body.clone()).await {
                Some((202, body)) => return Some(body),
                Some((404 | 422, _)) => return None,
                Some((429 | 503 | 504, _)) | None => {}
                Some((status, body)) => {
                    self.note(Told::Wrong(format!("{path} got {status}: {body}")));
                    return None;
                }
            }
            sleep(Duration::from_millis(100 + 50 * (turn as u64 % 5))).await;
        }
        None
    }

    /// Every attempt and every sale once more, of every window.
    async fn ask_at_the_end(&self) {
        let mut attempts: Vec<String> = Vec::new();
        for (_, told) in &*self.told.lock() {
            if let Told::Taken { attempt, .. } = told {
                attempts.push(attempt.clone());
            }
        }
        attempts.sort();
        attempts.dedup();
        for &window in &self.windows {
            for attempt in &attempts {
                let path = format!("/api/attempts/{attempt}");
                let (status, body) = self.insist_on_answer(window, &path).await;
                let attempt = attempt.clone();
                self.note(match status {
                    200 => Told::Attempt {
                        attempt,
                        body,
                        at_least: None,
                        at_the_end: true,
                    },
                    404 => Told::Unknown { attempt },
                    _ => Told::Wrong(format!("in the end {path} got {status}: {body}")),
                });
            }
        }
        for product in 0..PRODUCTS.len() {
            for window in 0..self.windows.len() {
                self.look(window, product, true).await;
            }
        }
    }

    /// Asks until there is an answer.
    async fn insist_on_answer(&self, window: Node, path: &str) -> (u16, Value) {
        loop {
            match self.call(window, "GET", path, &[], None).await {
                Some((503 | 504, _)) | None => sleep(Duration::from_millis(100)).await,
                Some(answer) => return answer,
            }
        }
    }

    fn attempt_of(&self, of: (usize, u32, u32)) -> Option<String> {
        let told = self.told.lock();
        told.iter().find_map(|(_, told)| match told {
            Told::Taken { order, attempt, .. } if *order == of => Some(attempt.clone()),
            _ => None,
        })
    }

    fn note(&self, told: Told) {
        let now = self.world.now();
        self.told.lock().push((now, told));
    }

    /// One request on a connection of its own; none when no answer came.
    async fn call(
        &self,
        node: Node,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Option<(u16, Value)> {
        timeout(PATIENCE, request(node, method, path, headers, body))
            .await
            .ok()?
            .ok()
    }
}

async fn request(
    node: Node,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> anyhow::Result<(u16, Value)> {
    let stream = TcpStream::connect((node.to_string(), PORT)).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let mut request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", "shop");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let body = match body {
        Some(body) => {
            request = request.header("content-type", "application/json");
            Bytes::from(body.to_string())
        }
        None => Bytes::new(),
    };
    let answer = sender.send_request(request.body(Full::new(body))?).await?;
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await?.to_bytes();
    connection.abort();
    Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
}

/// The position that a receipt names.
fn position(body: &Value) -> Option<(u32, i64)> {
    let position = &body["position"];
    Some((
        position["partition"].as_u64()? as u32,
        position["offset"].as_i64()?,
    ))
}
