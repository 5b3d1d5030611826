//! Load on the HTTP doors: one task a connection, in a closed loop or by a timetable.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// The sale that the load is on.
pub const PRODUCT: &str = "hot";
/// The admin token of the servers that are started here.
pub const TOKEN: &str = "benchmark";

/// One attempt in so many is followed to its answer when latency is measured.
const FOLLOW_EVERY: u64 = 20;

/// Where orders go, and where outcomes are asked for.
#[derive(Clone, Copy)]
pub struct Doors {
    pub orders: SocketAddr,
    pub questions: SocketAddr,
}

impl From<SocketAddr> for Doors {
    /// One server for both.
    fn from(address: SocketAddr) -> Self {
        Self {
            orders: address,
            questions: address,
        }
    }
}

/// What a load came to.
pub struct Outcome {
    pub answered: u64,
    pub took: Duration,
    /// From the moment a request was due to its 202, in microseconds.
    pub accepted_us: Histogram<u64>,
    /// From an attempt's 202 to its outcome in the hands of the client, in microseconds.
    pub visible_us: Histogram<u64>,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }
}

/// How load arrives.
#[derive(Clone, Copy)]
pub enum Arrival {
    /// Each connection sends its next attempt when the last was answered.
    Closed,
    /// So many attempts a second, whatever the answers do; latency counts from when each was
    /// due, so that a slow answer cannot hide the ones queued behind it.
    Open { per_second: f64 },
}

/// Places attempts for a while over so many connections, following some when `follow`.
pub async fn run(
    doors: Doors,
    connections: u64,
    arrival: Arrival,
    during: Duration,
    follow: bool,
) -> anyhow::Result<Outcome> {
    let ticket = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(connection(
            doors,
            ticket.clone(),
            arrival,
            began,
            during,
            follow,
        ));
    }
    let mut all = Outcome {
        answered: 0,
        took: Duration::ZERO,
        accepted_us: histogram(),
        visible_us: histogram(),
    };
    while let Some(done) = tasks.join_next().await {
        let done = done??;
        all.answered += done.answered;
        all.accepted_us.add(&done.accepted_us)?;
        all.visible_us.add(&done.visible_us)?;
    }
    all.took = began.elapsed();
    Ok(all)
}

async fn connection(
    doors: Doors,
    ticket: Arc<AtomicU64>,
    arrival: Arrival,
    began: Instant,
    during: Duration,
    follow: bool,
) -> anyhow::Result<Outcome> {
    let mut line = Line::open(doors.orders).await?;
    let mut questions = match doors.questions == doors.orders {
        true => None,
        false => Some(Line::open(doors.questions).await?),
    };
    let mut done = Outcome {
        answered: 0,
        took: Duration::ZERO,
        accepted_us: histogram(),
        visible_us: histogram(),
    };
    loop {
        let number = ticket.fetch_add(1, Ordering::Relaxed);
        let due = match arrival {
            Arrival::Closed => Instant::now(),
            Arrival::Open { per_second } => {
                let due = began + Duration::from_secs_f64(number as f64 / per_second);
                tokio::time::sleep_until(due.into()).await;
                due
            }
        };
        if due.duration_since(began) > during {
            return Ok(done);
        }
        let attempt_id = line.order(number).await?;
        let accepted = Instant::now();
        done.answered += 1;
        done.accepted_us
            .saturating_record((accepted - due).as_micros() as u64);
        if follow && number.is_multiple_of(FOLLOW_EVERY) {
            let line = questions.as_mut().unwrap_or(&mut line);
            line.outcome(&attempt_id).await?;
            done.visible_us
                .saturating_record(accepted.elapsed().as_micros() as u64);
        }
    }
}

/// Puts the sale on, with a thousand units.
pub async fn open_sale(address: SocketAddr) -> anyhow::Result<()> {
    let mut line = Line::open(address).await?;
    let bearer = format!("Bearer {TOKEN}");
    let headers = [("authorization", bearer.as_str())];
    let terms = Bytes::from_static(
        br#"{"name":"Hot","price":{"minor":100,"currency":"EUR"},"stock":1000}"#,
    );
    let path = format!("/api/admin/flash-sales/{PRODUCT}");
    let (status, body) = line.send(Method::PUT, &path, &headers, terms).await?;
    ensure!(
        status == StatusCode::ACCEPTED,
        "the sale got {status}: {body:?}"
    );
    Ok(())
}

/// Waits until the sale is seen and everything accepted is decided, so that one run does not
/// pay for another.
pub async fn settled(address: SocketAddr) -> anyhow::Result<()> {
    let mut line = Line::open(address).await?;
    let patience = Instant::now() + Duration::from_secs(60);
    let path = format!("/api/flash-sales/{PRODUCT}");
    let mut before = None;
    loop {
        let (status, body) = line.send(Method::GET, &path, &[], Bytes::new()).await?;
        let sale = serde_json::from_slice::<Sale>(&body).ok();
        let now = sale.map(|sale| sale.version);
        if status == StatusCode::OK && now == before {
            return Ok(());
        }
        before = now;
        ensure!(
            Instant::now() < patience,
            "the server does not settle within a minute"
        );
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

/// Prints quantiles in milliseconds.
pub fn print_latencies(outcome: &Outcome) {
    println!(
        "{:>22} {:>8} {:>8} {:>8} {:>8}",
        "", "p50", "p90", "p99", "p99.9"
    );
    for (what, histogram) in [
        ("due to accepted", &outcome.accepted_us),
        ("accepted to visible", &outcome.visible_us),
    ] {
        let ms = |quantile| histogram.value_at_quantile(quantile) as f64 / 1000.0;
        let (p50, p90, p99, p999) = (ms(0.5), ms(0.9), ms(0.99), ms(0.999));
        println!("{what:>22} {p50:>8.2} {p90:>8.2} {p99:>8.2} {p999:>8.2}");
    }
}

/// From 1 microsecond to a minute, three digits.
fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid")
}

/// A connection that is kept open.
pub struct Line {
    address: SocketAddr,
    sender: SendRequest<Full<Bytes>>,
}

#[derive(Deserialize)]
struct Sale {
    version: u64,
}

#[derive(Deserialize)]
struct Receipt {
    attempt_id: String,
}

#[derive(Deserialize)]
struct Answer {
    status: String,
}

impl Line {
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .context("cannot connect")?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { address, sender })
    }

    /// Sends a request; gives the status and the whole body back.
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

    /// Places the attempt of this number; each is another buyer's.
    async fn order(&mut self, number: u64) -> anyhow::Result<String> {
        let buyer = format!("buyer-{number}");
        let headers = [("x-buyer-id", buyer.as_str())];
        let path = format!("/api/flash-sales/{PRODUCT}/order");
        let body = Bytes::from_static(br#"{"quantity":1}"#);
        let (status, body) = self.send(Method::POST, &path, &headers, body).await?;
        ensure!(
            status == StatusCode::ACCEPTED,
            "an order got {status}: {body:?}"
        );
        Ok(serde_json::from_slice::<Receipt>(&body)?.attempt_id)
    }

    /// Waits for an attempt's outcome.
    async fn outcome(&mut self, attempt_id: &str) -> anyhow::Result<()> {
        let path = format!("/api/attempts/{attempt_id}?wait=10");
        let (status, body) = self.send(Method::GET, &path, &[], Bytes::new()).await?;
        ensure!(
            status == StatusCode::OK,
            "an attempt's answer got {status}: {body:?}"
        );
        let answer: Answer = serde_json::from_slice(&body)?;
        ensure!(
            answer.status != "queued",
            "an attempt was not decided within ten seconds"
        );
        Ok(())
    }
}
