//! Load on the HTTP API: one task per connection, in a closed loop or on a schedule.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use tokio::task::JoinSet;

mod connection;
mod sale;

pub use connection::Connection;
pub use sale::{Stock, open_sale, settled, visible};

/// The sale that the load is on where there is one only.
pub const PRODUCT: &str = "hot";
/// The admin token of the servers that are started here.
pub const TOKEN: &str = "benchmark";

/// The clients that wait at once when the load is at saturation.
const CONNECTIONS: u64 = 256;
/// One attempt in this many is followed to its outcome when latency is measured.
const FOLLOW_EVERY: u64 = 20;

/// The addresses for orders and for reads.
#[derive(Clone, Copy)]
pub struct Endpoints {
    pub orders: SocketAddr,
    pub reads: SocketAddr,
}

impl From<SocketAddr> for Endpoints {
    /// One server for both.
    fn from(address: SocketAddr) -> Self {
        Self {
            orders: address,
            reads: address,
        }
    }
}

/// How load arrives.
#[derive(Clone, Copy)]
pub enum Arrival {
    /// Each connection sends its next attempt once the last was answered.
    Closed,
    /// A fixed rate of attempts, independent of the answers. Latency counts from when each attempt
    /// was due, so that a slow answer cannot hide those queued behind it.
    Open { per_second: f64 },
}

/// Which attempts are followed to their outcome.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    None,
    /// The last of each connection: the load ends when all of it is decided.
    Last,
    /// One in this many, for the latency.
    Some,
}

/// Attempts to be placed. Each is another buyer's, for one unit.
#[derive(Clone)]
pub struct Load {
    pub endpoints: Endpoints,
    pub connections: u64,
    pub arrival: Arrival,
    pub during: Duration,
    /// The numbers of the first attempt and of the first that is no longer placed.
    pub from: u64,
    pub to: u64,
    /// The products of the attempts in turn, repeated when there are more attempts.
    pub products: Arc<[String]>,
    pub follow: Follow,
}

impl Load {
    /// As many attempts as are accepted, on the one hot product.
    pub fn saturating(endpoints: Endpoints, during: Duration) -> Self {
        Self {
            endpoints,
            connections: CONNECTIONS,
            arrival: Arrival::Closed,
            during,
            from: 0,
            to: u64::MAX,
            products: Arc::new([PRODUCT.to_owned()]),
            follow: Follow::None,
        }
    }

    /// A fixed rate of attempts on the one hot product, some of them followed.
    pub fn steady(endpoints: Endpoints, per_second: f64, during: Duration) -> Self {
        Self {
            arrival: Arrival::Open { per_second },
            follow: Follow::Some,
            ..Self::saturating(endpoints, during)
        }
    }

    /// Places the attempts.
    pub async fn run(self) -> anyhow::Result<Outcome> {
        let load = Arc::new(self);
        let ticket = Arc::new(AtomicU64::new(load.from));
        let began = Instant::now();
        let mut tasks = JoinSet::new();
        for _ in 0..load.connections {
            tasks.spawn(connection(load.clone(), ticket.clone(), began));
        }
        let mut all = Outcome::new();
        while let Some(done) = tasks.join_next().await {
            let done = done??;
            all.answered += done.answered;
            all.accepted_us.add(&done.accepted_us)?;
            all.visible_us.add(&done.visible_us)?;
            all.decided_us.add(&done.decided_us)?;
        }
        all.took = began.elapsed();
        Ok(all)
    }
}

/// The result of a load.
pub struct Outcome {
    pub answered: u64,
    pub took: Duration,
    /// From the moment a request was due to its 202, in microseconds.
    pub accepted_us: Histogram<u64>,
    /// From an attempt's 202 to the client's receipt of its outcome, in microseconds.
    pub visible_us: Histogram<u64>,
    /// From the moment an attempt was due to the client's receipt of its outcome, in
    /// microseconds.
    pub decided_us: Histogram<u64>,
}

impl Outcome {
    fn new() -> Self {
        // From 1 microsecond to a minute, three digits.
        let histogram =
            || Histogram::new_with_bounds(1, 60_000_000, 3).expect("the bounds are valid");
        Self {
            answered: 0,
            took: Duration::ZERO,
            accepted_us: histogram(),
            visible_us: histogram(),
            decided_us: histogram(),
        }
    }

    pub fn per_second(&self) -> f64 {
        self.answered as f64 / self.took.as_secs_f64()
    }
}

async fn connection(
    load: Arc<Load>,
    ticket: Arc<AtomicU64>,
    began: Instant,
) -> anyhow::Result<Outcome> {
    let Endpoints { orders, reads } = load.endpoints;
    let mut connection = Connection::open(orders).await?;
    let mut other = match reads == orders {
        true => None,
        false => Some(Connection::open(reads).await?),
    };
    let mut done = Outcome::new();
    let mut last = None;
    loop {
        let number = ticket.fetch_add(1, Ordering::Relaxed);
        if number >= load.to {
            break;
        }
        let due = match load.arrival {
            Arrival::Closed => Instant::now(),
            Arrival::Open { per_second } => {
                let after = (number - load.from) as f64 / per_second;
                let due = began + Duration::from_secs_f64(after);
                tokio::time::sleep_until(due.into()).await;
                due
            }
        };
        if due.duration_since(began) > load.during {
            break;
        }
        let product = &load.products[number as usize % load.products.len()];
        let attempt_id = connection.order(product, number).await?;
        let accepted = Instant::now();
        done.answered += 1;
        record(&mut done.accepted_us, accepted - due);
        if load.follow == Follow::Some && number.is_multiple_of(FOLLOW_EVERY) {
            other
                .as_mut()
                .unwrap_or(&mut connection)
                .outcome(&attempt_id)
                .await?;
            record(&mut done.visible_us, accepted.elapsed());
            record(&mut done.decided_us, due.elapsed());
        }
        last = Some(attempt_id);
    }
    if load.follow == Follow::Last
        && let Some(attempt_id) = last
    {
        other
            .as_mut()
            .unwrap_or(&mut connection)
            .outcome(&attempt_id)
            .await?;
    }
    Ok(done)
}

fn record(histogram: &mut Histogram<u64>, took: Duration) {
    histogram.saturating_record(took.as_micros() as u64);
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
