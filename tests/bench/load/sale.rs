//! The sales that the load buys from.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::ensure;
use bytes::Bytes;
use hyper::{Method, StatusCode};
use serde::Deserialize;

use super::{Connection, TOKEN};
use crate::server::eventually;

/// The current state of a sale.
#[derive(PartialEq, Eq, Deserialize)]
pub struct Sale {
    pub stock: Stock,
    version: u64,
}

/// The units of a sale.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub struct Stock {
    pub total: u64,
    pub available: u64,
    pub reserved: u64,
    pub sold: u64,
}

/// Puts a sale on; `terms` are its limit, holds and so on, as JSON of the form `"stock":1000`.
pub async fn open_sale(address: SocketAddr, product: &str, terms: &str) -> anyhow::Result<()> {
    let mut connection = Connection::open(address).await?;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str())];
    let terms = format!(r#"{{"name":"Hot","price":{{"minor":100,"currency":"EUR"}},{terms}}}"#);
    let path = format!("/api/admin/flash-sales/{product}");
    let (status, body) = connection
        .send(Method::PUT, &path, &headers, terms.into())
        .await?;
    ensure!(
        status == StatusCode::ACCEPTED,
        "the sale got {status}: {body:?}"
    );
    Ok(())
}

/// Waits until a sale is visible.
pub async fn visible(address: SocketAddr, product: &str) -> anyhow::Result<Sale> {
    let mut connection = Connection::open(address).await?;
    let path = format!("/api/flash-sales/{product}");
    eventually(&format!("{product} is visible"), async || {
        let (status, body) = connection
            .send(Method::GET, &path, &[], Bytes::new())
            .await?;
        match status {
            StatusCode::OK => Ok(Some(serde_json::from_slice(&body)?)),
            _ => Ok(None),
        }
    })
    .await
}

/// Waits until the sale is visible and every accepted attempt is decided, so that one run does not
/// slow down the next.
pub async fn settled(address: SocketAddr, product: &str) -> anyhow::Result<Sale> {
    let patience = Instant::now() + Duration::from_secs(60);
    let mut before = visible(address, product).await?;
    loop {
        tokio::time::sleep(Duration::from_millis(300)).await;
        let now = visible(address, product).await?;
        if now == before {
            return Ok(now);
        }
        before = now;
        ensure!(
            Instant::now() < patience,
            "the server does not settle within a minute"
        );
    }
}
