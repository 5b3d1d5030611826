//! A client's connection.

use std::net::SocketAddr;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;

/// A connection that is kept open.
pub struct Connection {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

#[derive(Deserialize)]
struct Receipt {
    attempt_id: String,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
}

impl Connection {
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .context("cannot connect")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { address, sender })
    }

    /// Sends a request; returns the status and the whole body.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> anyhow::Result<(StatusCode, Bytes)> {
        let mut request = Request::builder().method(method).uri(path);
        request = request.header("host", self.address.to_string());
        if !body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.sender.ready().await?;
        let response = self
            .sender
            .send_request(request.body(Full::new(body))?)
            .await?;
        let (head, body) = Response::into_parts(response);
        Ok((head.status, body.collect().await?.to_bytes()))
    }

    /// Places the attempt with this number; each has its own buyer.
    pub async fn order(&mut self, product: &str, number: u64) -> anyhow::Result<String> {
        let buyer = format!("buyer-{number}");
        let headers = [("x-buyer-id", buyer.as_str())];
        let path = format!("/api/flash-sales/{product}/order");
        let body = Bytes::from_static(br#"{"quantity":1}"#);
        let (status, body) = self.send(Method::POST, &path, &headers, body).await?;
        ensure!(
            status == StatusCode::ACCEPTED,
            "an order got {status}: {body:?}"
        );
        Ok(serde_json::from_slice::<Receipt>(&body)?.attempt_id)
    }

    /// Waits for an attempt's outcome.
    pub async fn outcome(&mut self, attempt_id: &str) -> anyhow::Result<()> {
        let known = self.known_outcome(attempt_id).await?;
        ensure!(known, "an attempt that was accepted is unknown");
        Ok(())
    }

    /// Waits for an attempt's outcome; false if no such attempt is known.
    pub async fn known_outcome(&mut self, attempt_id: &str) -> anyhow::Result<bool> {
        let path = format!("/api/attempts/{attempt_id}?wait=10");
        let (status, body) = self.send(Method::GET, &path, &[], Bytes::new()).await?;
        if status == StatusCode::NOT_FOUND {
            return Ok(false);
        }
        ensure!(
            status == StatusCode::OK,
            "an attempt's answer got {status}: {body:?}"
        );
        let answer: Answer = serde_json::from_slice(&body)?;
        ensure!(
            answer.status != "queued",
            "an attempt was not decided within ten seconds"
        );
        Ok(true)
    }
}
