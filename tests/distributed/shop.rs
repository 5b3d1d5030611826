//! A seller and buyers who send single requests to the services.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use serde_json::{Value, json};

use crate::cluster::{Process, eventually, get};
use crate::instance::TOKEN;

/// The longest that a request may take: longer than any wait of a service.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The addresses of the command API and the query API.
#[derive(Clone)]
pub struct Shop {
    command_api: String,
    query_api: String,
}

impl Shop {
    pub fn at(command_api: &Process, query_api: &Process) -> Self {
        Self {
            command_api: command_api.url.clone(),
            query_api: query_api.url.clone(),
        }
    }

    /// Puts a sale on, or changes it.
    pub async fn put(&self, product: &str, mut terms: Value) {
        terms["name"] = product.into();
        terms["price"] = json!({ "minor": 1999, "currency": "EUR" });
        let url = format!("{}/api/admin/flash-sales/{product}", self.command_api);
        self.administer(Method::PUT, &url, Some(terms)).await;
    }

    /// Begins a new round after a closed one.
    pub async fn begin_round(&self, product: &str, mut terms: Value) {
        terms["name"] = product.into();
        terms["price"] = json!({ "minor": 1999, "currency": "EUR" });
        self.change(product, "rounds", Some(terms)).await;
    }

    /// `open`, `pause`, `close` or, with a body, `stock`.
    pub async fn change(&self, product: &str, how: &str, body: Option<Value>) {
        let url = format!("{}/api/admin/flash-sales/{product}/{how}", self.command_api);
        self.administer(Method::POST, &url, body).await;
    }

    async fn administer(&self, method: Method, url: &str, body: Option<Value>) {
        let token = format!("Bearer {TOKEN}");
        let headers = [("authorization", token.as_str())];
        eventually(&format!("{method} {url} is taken"), async || {
            let (status, _) = send(method.clone(), url, &headers, body.as_ref()).await?;
            (status == 202).then_some(())
        })
        .await;
    }

    /// Sends an order once; returns status and body, or none without an answer.
    pub async fn try_order(
        &self,
        product: &str,
        (buyer, key): (&str, &str),
        quantity: u32,
        headers: &[(&str, &str)],
    ) -> Option<(u16, Value)> {
        let url = format!("{}/api/flash-sales/{product}/order", self.command_api);
        let mut all = vec![("x-buyer-id", buyer), ("idempotency-key", key)];
        all.extend(headers);
        let body = json!({ "quantity": quantity });
        send(Method::POST, &url, &all, Some(&body)).await
    }

    /// Sends an order with the buyer's name as the key until it is accepted; returns the attempt's
    /// id.
    pub async fn order(&self, product: &str, buyer: &str, quantity: u32) -> String {
        let what = format!("{buyer}'s order of {product} is taken");
        eventually(&what, async || {
            let answer = self.try_order(product, (buyer, buyer), quantity, &[]);
            let (status, body) = answer.await?;
            (status == 202).then(|| text(&body["attempt_id"]))
        })
        .await
    }

    /// Cancels an order.
    pub async fn cancel(&self, product: &str, buyer: &str, attempt: &str) {
        let url = format!(
            "{}/api/flash-sales/{product}/order/{attempt}/cancel",
            self.command_api
        );
        eventually(&format!("{buyer}'s cancellation is taken"), async || {
            let (status, _) = send(Method::POST, &url, &[("x-buyer-id", buyer)], None).await?;
            (status == 202).then_some(())
        })
        .await;
    }

    /// An attempt as it is now or within three seconds, if it is known.
    pub async fn attempt(&self, attempt: &str) -> Option<Value> {
        let url = format!("{}/api/attempts/{attempt}?wait=3", self.query_api);
        let (status, body) = get(&url).await?;
        (status == 200).then(|| serde_json::from_slice(&body).ok())?
    }

    /// An attempt, once it is decided.
    pub async fn fate(&self, attempt: &str) -> Value {
        eventually(&format!("{attempt} is answered"), async || {
            let body = self.attempt(attempt).await?;
            (body["status"] != "queued").then_some(body)
        })
        .await
    }

    /// What became of the order that was answered with this body, once it is decided.
    pub async fn outcome(&self, order: &Value) -> Value {
        let (id, at) = (text(&order["attempt_id"]), &order["position"]);
        let at_least = format!("{}:{}", at["partition"], at["offset"]);
        let url = format!(
            "{}/api/attempts/{id}?wait=3&at_least={at_least}",
            self.query_api
        );
        eventually(
            &format!("the order at {at_least} is answered"),
            async || {
                let (_, body) = get(&url).await.filter(|(status, _)| *status == 200)?;
                let body: Value = serde_json::from_slice(&body).ok()?;
                (body["status"] != "queued").then_some(body)
            },
        )
        .await
    }

    /// Every sale.
    pub async fn sales(&self) -> Vec<Value> {
        let mut sales = Vec::new();
        let mut after = String::new();
        loop {
            let url = format!("{}/api/flash-sales?limit=500{after}", self.query_api);
            let (status, body) = get(&url).await.expect("the sales are listed");
            assert_eq!(status, 200, "{url}");
            let page: Value = serde_json::from_slice(&body).unwrap();
            sales.extend(page["sales"].as_array().unwrap().iter().cloned());
            match page["next"].as_str() {
                Some(next) => after = format!("&after={next}"),
                None => return sales,
            }
        }
    }
}

/// A text in JSON.
pub fn text(value: &Value) -> String {
    value.as_str().expect("a text").to_owned()
}

/// Sends a request once; returns status and body, or none without an answer.
pub async fn send(
    method: Method,
    url: &str,
    headers: &[(&str, &str)],
    body: Option<&Value>,
) -> Option<(u16, Value)> {
    let client: legacy::Client<_, Full<Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).build_http();
    let mut request = Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    if body.is_some() {
        request = request.header("content-type", "application/json");
    }
    let bytes = body.map(|body| body.to_string().into()).unwrap_or_default();
    let request = request.body(Full::new(bytes)).unwrap();
    let exchange = async {
        let response = client.request(request).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, serde_json::from_slice(&body).unwrap_or_default()))
    };
    tokio::time::timeout(REQUEST_TIMEOUT, exchange).await.ok()?
}
