//! What a rehearsal observes from outside: every attempt with its receipt and answers, and how
//! long they took.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use hdrhistogram::Histogram;
use indicatif::ProgressBar;
use schemas::ids::{AttemptId, Position};
use tokio::time::Instant;

use crate::api_types::{Answer, Receipt, Sale};
use crate::client::{CallError, Client, OrderRequest};

/// What is known of one sale of the rehearsal.
#[derive(Debug, Clone, Default)]
pub struct SaleObservation {
    /// The product.
    pub product_id: Arc<str>,
    /// Units offered.
    pub stock: u32,
    /// The most units that one buyer may have; `None` if there is no limit.
    pub limit_per_buyer: Option<u32>,
    /// The attempts: those of one buyer in the order of posting; all of them, if one client posts
    /// them all.
    pub attempts: Vec<AttemptObservation>,
    /// The sale as read at the end.
    pub at_end: Option<Sale>,
}

/// What is known of one attempt.
#[derive(Debug, Clone)]
pub struct AttemptObservation {
    /// The buyer.
    pub buyer: Arc<str>,
    /// Units requested.
    pub quantity: u32,
    /// The receipt for the order.
    pub receipt: Receipt,
    /// The receipt for the same key, sent a second time on purpose.
    pub repeated: Option<Receipt>,
    /// The first answer; `None` if there was none.
    pub answer: Option<Answer>,
    /// The receipt for the cancellation.
    pub cancel: Option<Receipt>,
    /// The answer as read at the end.
    pub at_end: Option<Answer>,
}

impl SaleObservation {
    /// The last position that the API gave this rehearsal for the sale.
    pub fn last_position(&self) -> Option<Position> {
        let receipts = self.attempts.iter().flat_map(|attempt| {
            let others = [attempt.repeated, attempt.cancel];
            others.into_iter().flatten().chain([attempt.receipt])
        });
        receipts.map(|receipt| receipt.position).max()
    }
}

/// A running rehearsal: its client, its latencies, and the requests that the API rejected.
pub struct Run {
    /// The client of the API.
    pub client: Client,
    /// The progress bar.
    pub progress: ProgressBar,
    /// From sending an order to its receipt, and to its answer.
    pub latencies: Latencies,
    /// Orders and cancellations that the API rejected.
    pub rejected: Failures,
    give_up: AtomicBool,
}

/// Latencies in microseconds, up to ten minutes, to three digits.
pub struct Latencies {
    /// From sending an order to the receipt.
    pub acceptance: Mutex<Histogram<u64>>,
    /// From sending an order to the answer.
    pub answer: Mutex<Histogram<u64>>,
}

/// How many requests failed, and the first failure.
#[derive(Default)]
pub struct Failures {
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
            rejected: Failures::default(),
            give_up: AtomicBool::new(false),
        }
    }

    /// Sends an order; `None` if the API rejects it. `since` is when its buyer decided to order.
    pub async fn order(
        &self,
        order: OrderRequest<'_>,
        since: Instant,
    ) -> Result<Option<Receipt>, CallError> {
        let receipt = self.unless_rejected(self.client.order(order).await)?;
        if receipt.is_some() {
            record(&self.latencies.acceptance, since);
        }
        Ok(receipt)
    }

    /// Cancels an order; `None` if the API rejects the cancellation.
    pub async fn cancel(
        &self,
        product: &str,
        buyer: &str,
        attempt: AttemptId,
    ) -> Result<Option<Receipt>, CallError> {
        self.unless_rejected(self.client.cancel(product, buyer, attempt).await)
    }

    /// Waits for an answer. If there is none in time, the rehearsal gives up and sends no more.
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

    /// Whether an answer is missing, so that nothing more is sent.
    pub fn gave_up(&self) -> bool {
        self.give_up.load(Ordering::Relaxed)
    }

    fn unless_rejected(
        &self,
        receipt: Result<Receipt, CallError>,
    ) -> Result<Option<Receipt>, CallError> {
        match receipt {
            Ok(receipt) => Ok(Some(receipt)),
            Err(error @ CallError::Refused { .. }) => {
                self.rejected.add(error.to_string());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl Failures {
    /// Counts a failure, and keeps it if it is the first.
    pub fn add(&self, what: String) {
        self.count.fetch_add(1, Ordering::Relaxed);
        let mut first = self
            .first
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        first.get_or_insert(what);
    }

    /// How many failures there were.
    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// The first failure.
    pub fn first(&self) -> Option<String> {
        let first = self
            .first
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        first.clone()
    }
}

fn record(histogram: &Mutex<Histogram<u64>>, since: Instant) {
    let micros = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
    let mut histogram = histogram
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    histogram.saturating_record(micros);
}
