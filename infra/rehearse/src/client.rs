//! A client of the HTTP API: orders, answers, cancellations, administration.
//!
//! A call that ends with a full queue (429, 503), a timeout or a lost connection is sent again,
//! unchanged, until the client's patience is exhausted. Orders carry an `Idempotency-Key`, so that
//! sending one again never buys twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue, RETRY_AFTER};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use schemas::ids::{AttemptId, Position};
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;

use crate::address::{Address, path_segment};
use crate::api_types::{
    Answer, AttemptJson, CommandJson, PositionJson, ProblemJson, Receipt, ReceiptJson, Sale,
    SalesJson,
};

/// How long one request may take before it counts as lost; longer than any long poll.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a long poll lets the instance wait, in seconds.
const POLL_SECONDS: u32 = 10;
/// The longest body read, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;
/// The pauses before sending again grow from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LAST_PAUSE: Duration = Duration::from_millis(500);

/// A client of one instance. Each call uses one connection, which is kept alive between calls.
/// The caller bounds how many calls run at once.
pub struct Client {
    http: legacy::Client<HttpConnector, Full<Bytes>>,
    /// Where orders and administration are sent.
    commands: Address,
    /// Where queries are sent.
    queries: Address,
    authorization: Option<HeaderValue>,
    patience: Duration,
    resent: AtomicU64,
}

/// An order to send.
#[derive(Debug, Clone, Copy)]
pub struct OrderRequest<'a> {
    /// The product.
    pub product: &'a str,
    /// The buyer.
    pub buyer: &'a str,
    /// The `Idempotency-Key`.
    pub key: &'a str,
    /// Units requested.
    pub quantity: u32,
}

/// Why a call has no usable response.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The instance was unreachable, or overloaded, for longer than the client's patience.
    #[error("{call}: no response within {} s; the last failure: {last}", .patience.as_secs_f32())]
    Unavailable {
        /// The call.
        call: String,
        /// How long the client tried.
        patience: Duration,
        /// The last failure.
        last: String,
    },
    /// The instance refused the call, and sending it again cannot help.
    #[error("{call}: {status} {code}: {detail}")]
    Refused {
        /// The call.
        call: String,
        /// HTTP status.
        status: u16,
        /// Code of the problem document, or empty.
        code: String,
        /// Its detail, or the body as received.
        detail: String,
    },
    /// The response does not have the documented form.
    #[error("{call}: the response cannot be read: {what}")]
    Unreadable {
        /// The call.
        call: String,
        /// What is wrong with it.
        what: String,
    },
}

/// One request, so that it can be sent again unchanged.
struct Call<'a> {
    method: Method,
    path: String,
    buyer: Option<&'a str>,
    key: Option<&'a str>,
    admin: bool,
    body: Bytes,
}

impl Client {
    /// A client of the instance at `target`, such as `http://127.0.0.1:8080`. Fails with a message
    /// to print if the address is not one of plain HTTP.
    pub fn new(
        target: &str,
        admin_token: Option<&str>,
        patience: Duration,
    ) -> Result<Self, String> {
        let address = Address::parse(target)?;
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(Duration::from_secs(5)));
        let authorization = admin_token
            .map(|token| HeaderValue::from_str(&format!("Bearer {token}")))
            .transpose()
            .map_err(|_| "the admin token has characters that are not allowed in an HTTP header")?;
        Ok(Self {
            http: legacy::Client::builder(TokioExecutor::new()).build(connector),
            commands: address.clone(),
            queries: address,
            authorization,
            patience,
            resent: AtomicU64::new(0),
        })
    }

    /// The same client, which sends its queries to another process.
    pub fn with_queries_at(mut self, target: &str) -> Result<Self, String> {
        self.queries = Address::parse(target)?;
        Ok(self)
    }

    /// The instance's address.
    pub fn target(&self) -> &str {
        &self.commands.base
    }

    /// How many times a request was sent again so far.
    pub fn resent(&self) -> u64 {
        self.resent.load(Ordering::Relaxed)
    }

    /// Orders units. The same key names the same attempt.
    pub async fn order(&self, order: OrderRequest<'_>) -> Result<Receipt, CallError> {
        let mut call = Call::new(Method::POST, order_path(order.product));
        (call.buyer, call.key) = (Some(order.buyer), Some(order.key));
        call.body = format!("{{\"quantity\":{}}}", order.quantity).into();
        self.receipt(&call).await
    }

    /// Cancels an order.
    pub async fn cancel(
        &self,
        product: &str,
        buyer: &str,
        attempt: AttemptId,
    ) -> Result<Receipt, CallError> {
        let path = format!("{}/{attempt}/cancel", order_path(product));
        let mut call = Call::new(Method::POST, path);
        call.buyer = Some(buyer);
        self.receipt(&call).await
    }

    /// Waits for the answer to an attempt by long poll; `None` if the attempt is still queued, or
    /// still unknown, when the client's patience is exhausted.
    pub async fn answer(&self, attempt: AttemptId) -> Result<Option<Answer>, CallError> {
        let path = format!("/api/attempts/{attempt}?wait={POLL_SECONDS}");
        let call = Call::new(Method::GET, path);
        let begun = Instant::now();
        loop {
            match self.call::<AttemptJson>(&call).await {
                Ok((json, _)) if json.status != "queued" => {
                    return json
                        .answer()
                        .map(Some)
                        .map_err(|what| call.unreadable(what));
                }
                // Just after a restart the instance may not know its last attempts yet.
                Ok(_) => {}
                Err(CallError::Refused { code, .. }) if code == "unknown_attempt" => {}
                Err(error) => return Err(error),
            }
            if begun.elapsed() > self.patience {
                return Ok(None);
            }
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }

    /// Creates a sale, or changes its terms; `terms` is the documented body. Returns the position
    /// of the command.
    pub async fn put_sale(&self, product: &str, terms: &Value) -> Result<Position, CallError> {
        let path = format!("/api/admin/flash-sales/{}", path_segment(product));
        let mut call = Call::new(Method::PUT, path);
        call.admin = true;
        call.body = terms.to_string().into();
        let (json, _) = self.call::<PositionJson>(&call).await?;
        Ok(json.position)
    }

    /// Waits until a change of a sale is decided, and returns why it was refused; `None` if it was
    /// carried out. Needs the admin token.
    pub async fn refusal(&self, at: Position) -> Result<Option<String>, CallError> {
        let (partition, offset) = (at.partition, at.offset);
        let path = format!("/api/commands/{partition}-{offset}?wait={POLL_SECONDS}");
        let mut call = Call::new(Method::GET, path);
        call.admin = true;
        let begun = Instant::now();
        loop {
            let (json, _) = self.call::<CommandJson>(&call).await?;
            if json.status != "pending" {
                return json.refusal().map_err(|what| call.unreadable(what));
            }
            if begun.elapsed() > self.patience {
                return Err(CallError::Unavailable {
                    call: call.name(),
                    patience: self.patience,
                    last: "it is not decided yet".into(),
                });
            }
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }

    /// A sale, no older than a position; `None` if there is no such sale.
    pub async fn sale(
        &self,
        product: &str,
        at_least: Option<Position>,
    ) -> Result<Option<Sale>, CallError> {
        let mut path = format!("/api/flash-sales/{}", path_segment(product));
        if let Some(position) = at_least {
            path.push_str(&format!("?at_least={position}"));
        }
        match self.call(&Call::new(Method::GET, path)).await {
            Ok((sale, _)) => Ok(Some(sale)),
            Err(CallError::Refused { code, .. }) if code == "unknown_product" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The instance's time, RFC 3339.
    pub async fn server_time(&self) -> Result<String, CallError> {
        let call = Call::new(Method::GET, "/api/flash-sales?limit=1".into());
        let (json, _) = self.call::<SalesJson>(&call).await?;
        Ok(json.server_time)
    }

    /// Whether the instance reports that it is ready; sent once, to its listener for operations.
    pub async fn is_ready(&self) -> bool {
        let call = Call::new(Method::GET, "/readyz".into());
        matches!(self.send(&call).await, Ok(reply) if reply.status.is_success())
    }

    async fn receipt(&self, call: &Call<'_>) -> Result<Receipt, CallError> {
        let (json, resent) = self.call::<ReceiptJson>(call).await?;
        let attempt_id = json
            .attempt_id
            .parse()
            .map_err(|error| call.unreadable(format!("attempt_id {error}")))?;
        Ok(Receipt {
            attempt_id,
            position: json.position,
            resent,
        })
    }

    /// Sends until the response is final, and reads it. The flag is true if the call was sent more
    /// than once.
    async fn call<T: DeserializeOwned>(&self, call: &Call<'_>) -> Result<(T, bool), CallError> {
        let begun = Instant::now();
        let mut pause = FIRST_PAUSE;
        let mut resent = false;
        loop {
            let (last, wait) = match self.send(call).await {
                Ok(reply) if reply.status.is_success() => {
                    let json = serde_json::from_slice(&reply.body)
                        .map_err(|error| call.unreadable(error.to_string()))?;
                    return Ok((json, resent));
                }
                Ok(reply) if reply.is_transient() => (
                    reply.problem(),
                    reply.retry_after.unwrap_or_default().max(pause),
                ),
                Ok(reply) => return Err(call.refused(&reply)),
                Err(error) => (error, pause),
            };
            if begun.elapsed() + wait > self.patience {
                return Err(CallError::Unavailable {
                    call: call.name(),
                    patience: self.patience,
                    last,
                });
            }
            tokio::time::sleep(wait).await;
            pause = (pause * 2).min(LAST_PAUSE);
            resent = true;
            self.resent.fetch_add(1, Ordering::Relaxed);
        }
    }

    async fn send(&self, call: &Call<'_>) -> Result<Reply, String> {
        let request = self.request(call).map_err(|error| error.to_string())?;
        let exchange = async {
            let response = self.http.request(request).await.map_err(|e| reasons(&e))?;
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
            let body = body.map_err(|error| error.to_string())?.to_bytes();
            let seconds = parts.headers.get(RETRY_AFTER).and_then(|value| {
                let text = value.to_str().ok()?;
                text.parse().ok()
            });
            Ok(Reply {
                status: parts.status,
                retry_after: seconds.map(Duration::from_secs),
                body,
            })
        };
        tokio::time::timeout(REQUEST_TIMEOUT, exchange)
            .await
            .unwrap_or_else(|_| {
                Err(format!(
                    "no response within {} s",
                    REQUEST_TIMEOUT.as_secs()
                ))
            })
    }

    fn request(&self, call: &Call<'_>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let address = match call.method {
            Method::GET => &self.queries,
            _ => &self.commands,
        };
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(format!("{}{}", address.base, call.path))
            .header(HOST, address.host.clone());
        if let Some(buyer) = call.buyer {
            request = request.header("x-buyer-id", buyer);
        }
        if let Some(key) = call.key {
            request = request.header("idempotency-key", key);
        }
        if let (true, Some(authorization)) = (call.admin, &self.authorization) {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        if !call.body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        request.body(Full::new(call.body.clone()))
    }
}

struct Reply {
    status: StatusCode,
    retry_after: Option<Duration>,
    body: Bytes,
}

impl Reply {
    fn is_transient(&self) -> bool {
        matches!(self.status.as_u16(), 408 | 429 | 502 | 503 | 504)
    }

    fn problem(&self) -> String {
        let ProblemJson { code, detail } = self.problem_json();
        format!("{} {code} {detail}", self.status.as_u16())
    }

    fn problem_json(&self) -> ProblemJson {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| ProblemJson {
            code: String::new(),
            detail: String::from_utf8_lossy(&self.body[..self.body.len().min(200)]).into_owned(),
        })
    }
}

impl Call<'_> {
    fn new(method: Method, path: String) -> Self {
        Self {
            method,
            path,
            buyer: None,
            key: None,
            admin: false,
            body: Bytes::new(),
        }
    }

    fn name(&self) -> String {
        format!("{} {}", self.method, self.path)
    }

    fn unreadable(&self, what: String) -> CallError {
        CallError::Unreadable {
            call: self.name(),
            what,
        }
    }

    fn refused(&self, reply: &Reply) -> CallError {
        let ProblemJson { code, detail } = reply.problem_json();
        CallError::Refused {
            call: self.name(),
            status: reply.status.as_u16(),
            code,
            detail,
        }
    }
}

fn order_path(product: &str) -> String {
    format!("/api/flash-sales/{}/order", path_segment(product))
}

/// An error with its sources, which have the details that the outermost error lacks.
fn reasons(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
