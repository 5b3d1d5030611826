//! The whole path through the HTTP door, against an endpoint that parses the same body and
//! answers at once. Each server is a process of its own, under the same client.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::post;
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tokio::process::{Child, Command};

use crate::load::{
    self, Arrival, Doors, Line, Outcome, TOKEN, open_sale, print_latencies, settled,
};

/// The argument that makes this program the reference server.
pub const BARE_SERVER: &str = "bare-server";

const CONNECTIONS: u64 = 256;
const WARM_UP: Duration = Duration::from_secs(2);
const RUN: Duration = Duration::from_secs(8);
const ROUNDS: usize = 3;

/// Runs the comparison and prints it. Takes about a minute.
pub async fn run() -> anyhow::Result<()> {
    println!("the HTTP door: {CONNECTIONS} connections, one hot product, two processes");
    println!(
        "{:>6} {:>14} {:>14} {:>7}",
        "round", "attempts/s", "bare/s", "ratio"
    );
    let mut rates = Vec::new();
    for round in 1..=ROUNDS {
        let bare = Server::bare().await?;
        let reference = saturate(&bare).await?.per_second();
        bare.stop().await?;
        let full = Server::doorbuster().await?;
        let rate = saturate(&full).await?.per_second();
        settled(full.address).await?;
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
    let full = Server::doorbuster().await?;
    let doors = Doors::from(full.address);
    load::run(doors, CONNECTIONS, Arrival::Closed, WARM_UP, false).await?;
    settled(full.address).await?;
    let half = Arrival::Open {
        per_second: rate / 2.0,
    };
    let outcome = load::run(doors, CONNECTIONS, half, RUN, true).await?;
    full.stop().await?;
    print_latencies(&outcome);
    println!(
        "(goal: accepted to visible p99 of 5 ms at half load; {:.0}/s here)",
        rate / 2.0
    );
    Ok(())
}

async fn saturate(server: &Server) -> anyhow::Result<Outcome> {
    let doors = Doors::from(server.address);
    load::run(doors, CONNECTIONS, Arrival::Closed, WARM_UP, false).await?;
    load::run(doors, CONNECTIONS, Arrival::Closed, RUN, false).await
}

/// A server in a process of its own.
struct Server {
    child: Child,
    address: SocketAddr,
    _data: tempfile::TempDir,
}

impl Server {
    async fn bare() -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(BARE_SERVER);
        Self::start(command).await
    }

    /// The real one, with its sale open.
    async fn doorbuster() -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name("doorbuster");
        ensure!(
            program.exists(),
            "{} is missing: cargo build --release",
            program.display()
        );
        let mut command = Command::new(program);
        command.arg("serve").env("DOORBUSTER_ADMIN_TOKEN", TOKEN);
        let server = Self::start(command).await?;
        open_sale(server.address).await?;
        settled(server.address).await?;
        Ok(server)
    }

    async fn start(mut command: Command) -> anyhow::Result<Self> {
        let data = tempfile::tempdir()?;
        let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        command
            .args(["--listen", &address.to_string()])
            .arg("--data-dir")
            .arg(data.path());
        let child = command
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let child = child.spawn().context("cannot start the server")?;
        let patience = Instant::now() + Duration::from_secs(20);
        while Line::open(address).await.is_err() {
            ensure!(
                Instant::now() < patience,
                "the server does not listen within 20 seconds"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self {
            child,
            address,
            _data: data,
        })
    }

    async fn stop(mut self) -> anyhow::Result<()> {
        self.child.kill().await.context("cannot end the server")
    }
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

/// Parses what an order has, and answers at once with what a receipt looks like.
async fn take(
    Path(product_id): Path<String>,
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
    // As long as a signed receipt is.
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
