//! What a rehearsal saw from outside: every attempt with its receipt and answers, and how long
//! they took.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use schemas::ids::{AttemptId, Position};
use tokio::time::Instant;

use super::client::{CallError, Client};
use super::said::{Answer, Receipt, Sale};

/// One sale of the rehearsal.
#[derive(Debug, Clone, Default)]
pub struct SaleSeen {
    /// The product.
    pub product_id: Arc<str>,
    /// Units offered.
    pub stock: u32,
    /// Most units one buyer may have; none: no limit.
    pub limit_per_buyer: Option<u32>,
    /// The attempts, each buyer's in the order of posting; where one client posts all, all.
    pub attempts: Vec<AttemptSeen>,
    /// The sale as it was read at the end.
    pub at_end: Option<Sale>,
}

/// One attempt.
#[derive(Debug, Clone)]
pub struct AttemptSeen {
    /// Whose it is.
    pub buyer: Arc<str>,
    /// Units asked for.
    pub quantity: u32,
    /// What the door gave for it.
    pub receipt: Receipt,
    /// What the door gave for the same key sent once more on purpose.
    pub repeated: Option<Receipt>,
    /// The first answer; none when it never came.
    pub answer: Option<Answer>,
    /// What the door gave for giving it back.
    pub cancel: Option<Receipt>,
    /// The answer as it was read at the end.
    pub at_end: Option<Answer>,
}

impl SaleSeen {
    /// The last place in line that this rehearsal took for the sale.
    pub fn last_position(&self) -> Option<Position> {
        let receipts = self.attempts.iter().flat_map(|attempt| {
            let others = [attempt.repeated, attempt.cancel];
            others.into_iter().flatten().chain([attempt.receipt])
        });
        receipts.map(|receipt| receipt.position).max()
    }
}

/// A rehearsal under way: its client, its clocks and what went wrong at the door.
pub struct Run {
    /// The door.
    pub client: Client,
    /// What people watch while they wait.
    pub progress: ProgressBar,
    /// From sending an order to its receipt, and to its answer.
    pub latencies: Latencies,
    /// Orders and cancellings that the door turned away.
    pub turned_away: Complaints,
    give_up: AtomicBool,
}

/// Latencies in microseconds, up to ten minutes, to three digits.
pub struct Latencies {
    /// From sending an order to the receipt.
    pub acceptance: Mutex<Histogram<u64>>,
    /// From sending an order to knowing the answer.
    pub answer: Mutex<Histogram<u64>>,
}

/// How many things went wrong, and the first of them.
#[derive(Default)]
pub struct Complaints {
    count: AtomicU64,
    first: Mutex<Option<String>>,
}

impl Run {
    /// A rehearsal through this client.
    pub fn new(client: Client, progress: ProgressBar) -> Self {
        let histogram = || {
            let histogram = Histogram::new_with_bounds(1, 600_000_000, 3);
            Mutex::new(histogram.expect("the bounds are constants that hdrhistogram takes"))
        };
        Self {
            client,
            progress,
            latencies: Latencies {
                acceptance: histogram(),
                answer: histogram(),
            },
            turned_away: Complaints::default(),
            give_up: AtomicBool::new(false),
        }
    }

    /// Sends an order; none when the door turned it away. `since` is when its buyer decided.
    pub async fn order(
        &self,
        product: &str,
        buyer: &str,
        key: &str,
        quantity: u32,
        since: Instant,
    ) -> Result<Option<Receipt>, CallError> {
        let receipt = self.client.order(product, buyer, key, quantity).await;
        let receipt = self.unless_turned_away(receipt)?;
        if receipt.is_some() {
            record(&self.latencies.acceptance, since);
        }
        Ok(receipt)
    }

    /// Gives an order back; none when the door turned that away.
    pub async fn cancel(
        &self,
        product: &str,
        buyer: &str,
        attempt: AttemptId,
    ) -> Result<Option<Receipt>, CallError> {
        self.unless_turned_away(self.client.cancel(product, buyer, attempt).await)
    }

    /// Waits for an answer. When one never comes the rehearsal gives up: it sends no more.
    pub async fn answer(
        &self,
        attempt: AttemptId,
        since: Instant,
    ) -> Result<Option<Answer>, CallError> {
        let answer = self.client.answer(attempt).await?;
        match answer {
            Some(_) => record(&self.latencies.answer, since),
            None => self.give_up.store(true, Ordering::Relaxed),
        }
        Ok(answer)
    }

    /// Whether an answer never came, so that nothing more is to be sent.
    pub fn gave_up(&self) -> bool {
        self.give_up.load(Ordering::Relaxed)
    }

    fn unless_turned_away(
        &self,
        receipt: Result<Receipt, CallError>,
    ) -> Result<Option<Receipt>, CallError> {
        match receipt {
            Ok(receipt) => Ok(Some(receipt)),
            Err(error @ CallError::Refused { .. }) => {
                self.turned_away.add(error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Complaints {
    /// Counts one, and keeps it when it is the first.
    pub fn add(&self, what: String) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut first = self.first.lock().unwrap_or_else(|held| held.into_inner());
        first.get_or_insert(what);
    }

    /// How many there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The first one.
    pub fn first(&self) -> Option<String> {
        let first = self.first.lock().unwrap_or_else(|held| held.into_inner());
        first.clone()
    }
}

fn record(histogram: &Mutex<Histogram<u64>>, since: Instant) {
    let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    let mut histogram = histogram.lock().unwrap_or_else(|held| held.into_inner());
    histogram.saturating_record(micros);
}
