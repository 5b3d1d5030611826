//! The whole path through the HTTP API, compared with an endpoint that parses the same body and
//! answers at once. Each server has its own process, and both have the same client.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::load::{Endpoints, Load, Outcome, PRODUCT, open_sale, print_latencies, settled};
use crate::server::Server;

/// The argument that makes this program the reference server.
pub const BARE_SERVER: &str = "bare-server";

const WARM_UP: Duration = Duration::from_secs(2);
const RUN: Duration = Duration::from_secs(8);
const ROUNDS: usize = 3;

/// Runs the comparison and prints it. Takes about a minute.
pub async fn run() -> anyhow::Result<()> {
    println!("the HTTP API: 256 connections, one hot product, two processes");
    println!(
        "{:>6} {:>14} {:>14} {:>7}",
        "round", "attempts/s", "bare/s", "ratio"
    );
    let mut rates = Vec::new();
    for round in 1..=ROUNDS {
        let bare = bare().await?;
        let reference = saturate(&bare).await?.per_second();
        bare.kill().await?;
        let data = tempfile::tempdir()?;
        let full = doorbuster(data.path()).await?;
        let rate = saturate(&full).await?.per_second();
        settled(full.address, PRODUCT).await?;
        full.stop().await?;
        println!(
            "{round:>6} {rate:>14.0} {reference:>14.0} {:>7.2}",
            rate / reference
        );
        rates.push((rate / reference, rate));
    }
    rates.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (ratio, rate) = rates[ROUNDS / 2];
    println!("median ratio {ratio:.2} (goal: 0.50 or more)\n");

    println!("latency at half load, each from the moment it was due, in milliseconds");
    let data = tempfile::tempdir()?;
    let full = doorbuster(data.path()).await?;
    let endpoints = Endpoints::from(full.address);
    Load::saturating(endpoints, WARM_UP).run().await?;
    settled(full.address, PRODUCT).await?;
    let outcome = Load::steady(endpoints, rate / 2.0, RUN).run().await?;
    full.stop().await?;
    print_latencies(&outcome);
    println!(
        "(goal: accepted to visible p99 of 5 ms at half load; {:.0}/s here)",
        rate / 2.0
    );
    Ok(())
}

async fn saturate(server: &Server) -> anyhow::Result<Outcome> {
    let endpoints = Endpoints::from(server.address);
    Load::saturating(endpoints, WARM_UP).run().await?;
    Load::saturating(endpoints, RUN).run().await
}

async fn bare() -> anyhow::Result<Server> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(BARE_SERVER);
    Server::start(command).await
}

/// The product, with an open sale.
async fn doorbuster(data: &Path) -> anyhow::Result<Server> {
    let server = Server::doorbuster(data).await?;
    open_sale(server.address, PRODUCT, r#""stock":1000"#).await?;
    settled(server.address, PRODUCT).await?;
    Ok(server)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    quantity: u32,
}

#[derive(Serialize)]
struct Taken {
    attempt_id: String,
    product_id: String,
    position: Position,
    receipt: String,
}

#[derive(Serialize)]
struct Position {
    partition: u32,
    offset: u64,
}

/// Parses an order, and answers at once with the form of a receipt.
async fn take(
    axum::extract::Path(product_id): axum::extract::Path<String>,
    headers: HeaderMap,
    Json(order): Json<Order>,
) -> impl IntoResponse {
    let buyer = headers.get("x-buyer-id").map_or(0, |buyer| buyer.len());
    let attempt_id = uuid::Uuid::new_v4().to_string();
    let location = format!("/api/attempts/{attempt_id}");
    let position = Position {
        partition: order.quantity,
        offset: buyer as u64,
    };
    // As long as a signed receipt.
    let receipt = "x".repeat(380);
    let taken = Taken {
        attempt_id,
        product_id,
        position,
        receipt,
    };
    (
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        Json(taken),
    )
}

/// The reference server: the address follows `--listen` in the arguments.
pub async fn serve_bare() -> anyhow::Result<()> {
    let address = std::env::args()
        .nth(3)
        .context("bare-server --listen ADDRESS")?;
    let listener = TcpListener::bind(address).await?;
    let router = Router::new().route("/api/flash-sales/{product_id}/order", post(take));
    Ok(axum::serve(listener, router).await?)
}
