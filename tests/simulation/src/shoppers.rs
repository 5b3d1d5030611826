//! The shoppers and the seller: they send the plan's requests over HTTP, repeat those without an
//! answer, and record every response.

mod late;
mod without_decider;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use turmoil::net::TcpStream;
use web::rfc3339::Moment;

pub use self::late::LateAnswer;
use crate::nodes::{ADMIN_TOKEN, PORT};
use crate::plan::{Action, Deployment, PRODUCTS, Plan, Request};
use crate::world::{BEGIN_MS, Ms, Node, Role, World};

/// How long a client waits for an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(4);
/// The buyer whose client closes its side of a connection after its request, as `nc -N` does.
const HALF_CLOSING_BUYER: (&str, &str) = ("x-buyer-id", "buyer-3");
/// The name of the shoppers' host.
pub const HOST: &str = "shoppers";

/// A response that a client got.
///
/// The digest of a run covers the debug text of observations, so the names of variants and fields
/// are part of it.
#[derive(Debug, Clone, PartialEq)]
pub enum Observation {
    /// An order was accepted.
    Taken {
        /// The order's name: product, buyer and key.
        order: (usize, u32, u32),
        /// The attempt.
        attempt: String,
        /// Its position.
        position: (u32, i64),
        /// The signed receipt.
        receipt: String,
    },
    /// The status of an attempt.
    Attempt {
        /// The attempt.
        attempt: String,
        /// The body of the answer.
        body: Value,
        /// The requested position that the answer must not be older than.
        at_least: Option<(u32, i64)>,
        /// Whether it was read after all work was done.
        at_the_end: bool,
    },
    /// The attempt is unknown, although it had been accepted.
    Unknown {
        /// The attempt.
        attempt: String,
        /// The requested position that the answer must not be older than.
        at_least: Option<(u32, i64)>,
    },
    /// What became of a command that is not an attempt.
    Command {
        /// Its position.
        at: (u32, i64),
        /// The body of the answer.
        body: Value,
    },
    /// The state of a sale.
    Sale {
        /// The body of the answer.
        body: Value,
        /// Whether it was read after all work was done.
        at_the_end: bool,
    },
    /// A response that no client should get.
    Wrong(String),
}

/// The clients of a run.
pub struct Shoppers {
    world: Arc<World>,
    command_apis: Vec<Node>,
    query_apis: Vec<Node>,
    /// Every response, with its time.
    pub observations: Mutex<Vec<(Ms, Observation)>>,
    /// The answers after the log has changed.
    pub late_answers: Mutex<Vec<LateAnswer>>,
    /// Whether all work is done, and the last reads may start.
    pub settled: watch::Sender<bool>,
    /// Whether all requests so far have been answered.
    pub all_answered: watch::Sender<bool>,
}

impl Shoppers {
    /// The clients of a run.
    pub fn new(world: Arc<World>, deployment: &Deployment) -> Arc<Self> {
        let shop = deployment.nodes(Role::Shop);
        let or_shop = |nodes: Vec<Node>| {
            if nodes.is_empty() {
                shop.clone()
            } else {
                nodes
            }
        };
        Arc::new(Self {
            world,
            command_apis: or_shop(deployment.nodes(Role::CommandApi)),
            query_apis: or_shop(deployment.nodes(Role::QueryApi)),
            observations: Mutex::default(),
            late_answers: Mutex::default(),
            settled: watch::Sender::new(false),
            all_answered: watch::Sender::new(false),
        })
    }

    /// Sends all requests of the plan, waits until all work is done, and reads everything once
    /// more.
    pub async fn run(self: Arc<Self>, plan: Plan) -> turmoil::Result {
        let mut requests = JoinSet::new();
        for (n, step) in plan.steps.into_iter().enumerate() {
            if let Action::Request(request) = step.action {
                let shoppers = self.clone();
                requests.spawn_local(async move {
                    sleep(Duration::from_millis(step.at)).await;
                    shoppers.perform(n, request).await;
                });
            }
        }
        while let Some(request) = requests.join_next().await {
            request?;
        }
        self.all_answered.send_replace(true);
        self.settled
            .subscribe()
            .wait_for(|settled| *settled)
            .await?;
        self.read_at_the_end().await;
        Ok(())
    }

    async fn perform(&self, n: usize, request: Request) {
        match request {
            Request::Order {
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
                if let Some((attempt, position)) = taken.into_iter().flatten().next() {
                    self.follow(n, &attempt, Some(position)).await;
                }
            }
            Request::Cancel {
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
                if let Some(body) = self
                    .send_until_accepted(n, "POST", &path, &headers, None)
                    .await
                {
                    self.read_outcome(n, &body, &headers).await;
                    self.follow(n, &attempt, position(&body)).await;
                }
            }
            Request::Put {
                begins_round,
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
                let (method, path) = match begins_round {
                    true => ("POST", "/rounds"),
                    false => ("PUT", ""),
                };
                self.change(n, method, product, path, Some(body)).await;
            }
            Request::Change { product, how } => {
                self.change(n, "POST", product, &format!("/{how}"), None)
                    .await;
            }
            Request::Stock { product, stock } => {
                self.change(n, "POST", product, "/stock", Some(json!({"stock": stock})))
                    .await;
            }
            Request::CorrectClock => {
                let bearer = format!("Bearer {ADMIN_TOKEN}");
                let headers = [("authorization", bearer.as_str())];
                let path = "/api/admin/clock-corrections";
                self.send_until_accepted(n, "POST", path, &headers, None)
                    .await;
            }
            Request::Look { product } => self.look(n, product, false).await,
        }
    }

    /// Sends an order until it is accepted; returns the attempt and its position if it was.
    async fn order(
        &self,
        n: usize,
        order: (usize, u32, u32),
        quantity: u32,
        insists: bool,
    ) -> Option<(String, (u32, i64))> {
        let (product, buyer, key) = order;
        let path = format!("/api/flash-sales/{}/order", PRODUCTS[product]);
        let (buyer, key) = (format!("buyer-{buyer}"), format!("key-{key}"));
        let headers = [
            ("x-buyer-id", buyer.as_str()),
            ("idempotency-key", key.as_str()),
        ];
        let body = Some(json!({"quantity": quantity}));
        let body = match insists {
            true => {
                self.send_until_accepted(n, "POST", &path, &headers, body)
                    .await?
            }
            false => {
                let command_api = self.command_apis[n % self.command_apis.len()];
                let answer = self.call(command_api, "POST", &path, &headers, body).await;
                answer.filter(|(status, _)| *status == 202)?.1
            }
        };
        let attempt = body["attempt_id"].as_str()?.to_owned();
        let receipt = body["receipt"].as_str()?.to_owned();
        let position = position(&body)?;
        self.observe(Observation::Taken {
            order,
            attempt: attempt.clone(),
            position,
            receipt,
        });
        Some((attempt, position))
    }

    /// Reads an attempt until it is decided.
    async fn follow(&self, n: usize, attempt: &str, at_least: Option<(u32, i64)>) {
        let mut path = format!("/api/attempts/{attempt}?wait=3");
        if let Some((partition, offset)) = at_least {
            path = format!("{path}&at_least={partition}:{offset}");
        }
        for round in n.. {
            let query_api = self.query_apis[round % self.query_apis.len()];
            match self.call(query_api, "GET", &path, &[], None).await {
                Some((200, body)) => {
                    let is_decided = body["status"] != "queued";
                    let attempt = attempt.to_owned();
                    self.observe(Observation::Attempt {
                        attempt,
                        body,
                        at_least,
                        at_the_end: false,
                    });
                    if is_decided {
                        return;
                    }
                }
                // A cancel may come before the product's sale, and its attempt after it.
                Some((404, _)) => {
                    let attempt = attempt.to_owned();
                    return self.observe(Observation::Unknown { attempt, at_least });
                }
                Some((503 | 504, _)) | None => {}
                Some((status, body)) => {
                    self.observe(Observation::Wrong(format!("{path} got {status}: {body}")))
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    async fn look(&self, n: usize, product: usize, at_the_end: bool) {
        let query_api = self.query_apis[n % self.query_apis.len()];
        let path = format!("/api/flash-sales/{}", PRODUCTS[product]);
        if let Some((200, body)) = self.call(query_api, "GET", &path, &[], None).await {
            self.observe(Observation::Sale { body, at_the_end });
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
        let accepted = self
            .send_until_accepted(n, method, &path, &headers, body)
            .await;
        if let Some(accepted) = accepted {
            self.read_outcome(n, &accepted, &headers).await;
        }
    }

    /// Reads what became of an accepted command until it is decided.
    async fn read_outcome(&self, n: usize, accepted: &Value, headers: &[(&str, &str)]) {
        let Some(at) = position(accepted) else {
            return self.observe(Observation::Wrong(format!("{accepted} has no position")));
        };
        let path = format!("/api/commands/{}-{}?wait=3", at.0, at.1);
        for round in n.. {
            let query_api = self.query_apis[round % self.query_apis.len()];
            match self.call(query_api, "GET", &path, headers, None).await {
                Some((200, body)) => {
                    let is_decided = body["status"] != "pending";
                    self.observe(Observation::Command { at, body });
                    if is_decided {
                        return;
                    }
                }
                Some((503 | 504, _)) | None => {}
                Some((status, body)) => {
                    self.observe(Observation::Wrong(format!("{path} got {status}: {body}")));
                    return;
                }
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// Sends a command until it is accepted, to one command API after the other. None when it
    /// cannot be: there is no such sale yet, or its window is over.
    async fn send_until_accepted(
        &self,
        n: usize,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) -> Option<Value> {
        for round in n.. {
            let command_api = self.command_apis[round % self.command_apis.len()];
            match self
                .call(command_api, method, path, headers, body.clone())
                .await
            {
                Some((202, body)) => return Some(body),
                Some((404 | 422, _)) => return None,
                Some((429 | 503 | 504, _)) | None => {}
                Some((status, body)) => {
                    self.observe(Observation::Wrong(format!("{path} got {status}: {body}")));
                    return None;
                }
            }
            sleep(Duration::from_millis(100 + 50 * (round as u64 % 5))).await;
        }
        None
    }

    /// The attempts that were accepted.
    fn accepted_attempts(&self) -> BTreeSet<String> {
        let observations = self.observations.lock();
        let accepted = observations.iter().filter_map(|(_, seen)| match seen {
            Observation::Taken { attempt, .. } => Some(attempt.clone()),
            _ => None,
        });
        accepted.collect()
    }

    /// Reads every attempt and every sale once more, from every query API.
    async fn read_at_the_end(&self) {
        let attempts = self.accepted_attempts();
        for &query_api in &self.query_apis {
            for attempt in &attempts {
                let path = format!("/api/attempts/{attempt}");
                let (status, body) = self.read_until_answered(query_api, &path).await;
                let attempt = attempt.clone();
                self.observe(match status {
                    200 => Observation::Attempt {
                        attempt,
                        body,
                        at_least: None,
                        at_the_end: true,
                    },
                    404 => Observation::Unknown {
                        attempt,
                        at_least: None,
                    },
                    _ => Observation::Wrong(format!("in the end {path} got {status}: {body}")),
                });
            }
        }
        for product in 0..PRODUCTS.len() {
            for query_api in 0..self.query_apis.len() {
                self.look(query_api, product, true).await;
            }
        }
    }

    /// Reads until there is an answer.
    async fn read_until_answered(&self, query_api: Node, path: &str) -> (u16, Value) {
        loop {
            match self.call(query_api, "GET", path, &[], None).await {
                Some((503 | 504, _)) | None => sleep(Duration::from_millis(100)).await,
                Some(answer) => return answer,
            }
        }
    }

    fn attempt_of(&self, of: (usize, u32, u32)) -> Option<String> {
        let observations = self.observations.lock();
        observations
            .iter()
            .find_map(|(_, observation)| match observation {
                Observation::Taken { order, attempt, .. } if *order == of => Some(attempt.clone()),
                _ => None,
            })
    }

    fn observe(&self, observation: Observation) {
        let now = self.world.now();
        self.observations.lock().push((now, observation));
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
        let answer = async {
            match headers.contains(&HALF_CLOSING_BUYER) {
                true => request_and_half_close(node, method, path, headers, body).await,
                false => request(node, method, path, headers, body).await,
            }
        };
        timeout(ANSWER_TIMEOUT, answer).await.ok()?.ok()
    }
}

/// Writes a request, closes this side of the connection, and reads the answer.
async fn request_and_half_close(
    node: Node,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: Option<Value>,
) -> anyhow::Result<(u16, Value)> {
    let mut stream = TcpStream::connect((node.to_string(), PORT)).await?;
    let body = body.map_or_else(String::new, |body| body.to_string());
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: shop\r\n");
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    let length = body.len();
    request += &format!("content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await?;
    stream.shutdown().await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no answer")?;
    let status = head.split(' ').nth(1).context("no status")?.parse()?;
    Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
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
    let mut request = hyper::Request::builder()
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
