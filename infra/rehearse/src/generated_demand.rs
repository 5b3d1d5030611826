//! Generated demand: a crowd of visitors at the opening of a sale, who comes when, for what, and
//! how impatiently.
//!
//! The plan depends on the seed alone and is the same every time. How the requests of the
//! visitors interleave is not.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use schemas::decision::RefusalReason;
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until};

use crate::api_types::Status;
use crate::client::{CallError, OrderRequest};
use crate::observations::{AttemptObservation, Run, SaleObservation};
use crate::sales;

/// The most visitors at once. While there are as many, later visitors wait and come late.
const MAX_PRESENT: usize = 20_000;
/// How many times a visitor who came too early orders.
const MAX_EARLY_TRIES: u32 = 20;
/// How long before its opening a sale is created, and how much earlier for each product.
const LEAD: Duration = Duration::from_secs(2);
const LEAD_PER_PRODUCT: Duration = Duration::from_millis(2);

/// How many visitors come, and what is on sale.
#[derive(Debug, Clone, Copy)]
pub struct Crowd {
    /// How many buyers.
    pub buyers: u32,
    /// How many products, each one sale.
    pub products: u32,
    /// Units of each.
    pub stock: u32,
    /// The seed of the plan.
    pub seed: u64,
    /// How long they take to come, evenly; `None` for the rush of an opening.
    pub over: Option<Duration>,
}

/// What one buyer is going to do. Times are in milliseconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visitor {
    /// The buyer's number, from 1.
    pub buyer: u32,
    /// The product wanted, from 0.
    pub product: usize,
    /// When the buyer comes, after the opening; negative if too early.
    pub comes_ms: i64,
    /// How long after the first sending the same order is sent again, with the same key.
    pub repeats_after_ms: Option<u64>,
    /// How long after the answer the buyer orders another unit, with a new key.
    pub wants_more_after_ms: Option<u64>,
}

impl Crowd {
    /// The visitors in the order in which they come: one in a hundred too early, the others
    /// with an exponential tail of 0.4 s on average, cut at 3 s, so that nine of ten come in
    /// the first second, or evenly over the given time. One in ten sends the order twice; one in
    /// twenty wants more than the one unit that the sale allows. The n-th product is wanted 1/n
    /// times as much as the first.
    pub fn plan(&self) -> Vec<Visitor> {
        let mut rng = StdRng::seed_from_u64(self.seed);
        let popularity: Vec<f64> = (1..=self.products)
            .scan(0.0, |sum, rank| {
                *sum += 1.0 / f64::from(rank);
                Some(*sum)
            })
            .collect();
        let most = popularity.last().copied().unwrap_or(1.0);
        let mut visitors: Vec<Visitor> = (1..=self.buyers)
            .map(|buyer| {
                let wanted = rng.random_range(0.0..most);
                let share = rng.random_range(0.0..1.0_f64);
                let late = match self.over {
                    Some(over) => share * over.as_millis() as f64,
                    None => (-400.0 * (1.0 - share).ln()).min(3000.0),
                };
                let comes_ms = match rng.random_bool(0.01) {
                    true => rng.random_range(-1500..-100),
                    false => late as i64,
                };
                let repeats = rng.random_bool(0.1).then(|| rng.random_range(0..200));
                let more = rng.random_bool(0.05).then(|| rng.random_range(0..500));
                Visitor {
                    buyer,
                    product: popularity.partition_point(|sum| *sum <= wanted),
                    comes_ms,
                    repeats_after_ms: repeats,
                    wants_more_after_ms: more,
                }
            })
            .collect();
        visitors.sort_by_key(|visitor| visitor.comes_ms);
        visitors
    }

    /// The product ids, which depend on the seed.
    pub fn product_ids(&self) -> impl Iterator<Item = Arc<str>> {
        let seed = self.seed;
        (1..=self.products).map(move |n| format!("rehearsal-{seed}-{n}").into())
    }
}

/// Creates the sales and sends the orders of the crowd, on at most `connections` at once for
/// orders and as many for waiting. Returns the observations and how long it took from the first
/// visitor on.
pub async fn drive(
    run: &Arc<Run>,
    crowd: Crowd,
    connections: usize,
) -> anyhow::Result<(Vec<SaleObservation>, Duration)> {
    let mut sales: Vec<SaleObservation> =
        crowd.product_ids().map(|id| new_sale(id, crowd)).collect();
    let opening = create_sales(run, crowd, &sales, connections).await?;
    let shared = Arc::new(Shared {
        run: run.clone(),
        seed: crowd.seed,
        products: crowd.product_ids().collect(),
        opening,
        ordering: Semaphore::new(connections),
        waiting: Semaphore::new(connections),
    });
    let begun = Instant::now();
    let mut present: JoinSet<Visit> = JoinSet::new();
    for visitor in crowd.plan() {
        sleep_until(shared.time(visitor.comes_ms)).await;
        if run.gave_up() {
            break;
        }
        while present.len() >= MAX_PRESENT {
            add(present.join_next().await, &mut sales)?;
        }
        present.spawn(visit(shared.clone(), visitor));
    }
    while !present.is_empty() {
        add(present.join_next().await, &mut sales)?;
    }
    Ok((sales, begun.elapsed()))
}

type Visit = Result<(usize, Vec<AttemptObservation>), CallError>;

/// Adds the attempts of a finished visit to its sale.
fn add(
    visit: Option<Result<Visit, tokio::task::JoinError>>,
    sales: &mut [SaleObservation],
) -> anyhow::Result<()> {
    if let Some(visit) = visit {
        let (product, attempts) =
            visit.context("the task of a visitor ended without a result")??;
        sales[product].attempts.extend(attempts);
    }
    Ok(())
}

fn new_sale(product_id: Arc<str>, crowd: Crowd) -> SaleObservation {
    SaleObservation {
        product_id,
        stock: crowd.stock,
        limit_per_buyer: Some(1),
        ..SaleObservation::default()
    }
}

/// Creates the sales, which all open at one moment a little later by the instance's clock, and
/// returns that moment.
async fn create_sales(
    run: &Run,
    crowd: Crowd,
    sales: &[SaleObservation],
    connections: usize,
) -> anyhow::Result<Instant> {
    let lead = LEAD + LEAD_PER_PRODUCT * crowd.products;
    let opens_at = (time_of(&run.client.server_time().await?)? + lead).format(&Rfc3339)?;
    let terms = |index: usize| {
        json!({
            "name": format!("Rehearsal {}, product {}", crowd.seed, index + 1),
            "price": { "minor": 1999, "currency": "EUR" },
            "stock": crowd.stock,
            "limit_per_buyer": 1,
            "opens_at": opens_at,
        })
    };
    sales::create_all(run, sales, terms, connections).await?;
    let sale = sales::read(&run.client, &sales[0].product_id).await?;
    let left = time_of(&sale.opens_at)? - time_of(&sale.server_time)?;
    Ok(Instant::now() + Duration::try_from(left).unwrap_or_default())
}

fn time_of(text: &str) -> anyhow::Result<OffsetDateTime> {
    OffsetDateTime::parse(text, &Rfc3339).with_context(|| format!("{text:?} is not a time"))
}

/// What all visitors share.
struct Shared {
    run: Arc<Run>,
    seed: u64,
    products: Vec<Arc<str>>,
    opening: Instant,
    ordering: Semaphore,
    waiting: Semaphore,
}

impl Shared {
    fn time(&self, after_opening_ms: i64) -> Instant {
        let distance = Duration::from_millis(after_opening_ms.unsigned_abs());
        match after_opening_ms < 0 {
            true => self.opening.checked_sub(distance).unwrap_or(self.opening),
            false => self.opening + distance,
        }
    }

    /// One attempt for one unit, followed to its answer; `None` if the API rejects the order.
    async fn attempt(
        &self,
        visitor: &Visitor,
        try_number: u32,
        repeats_after_ms: Option<u64>,
    ) -> Result<Option<AttemptObservation>, CallError> {
        let product = &self.products[visitor.product];
        let buyer: Arc<str> = format!("buyer-{}", visitor.buyer).into();
        let key = format!("rehearsal-{}-{buyer}-{try_number}", self.seed);
        let since = Instant::now();
        let order = async |since| {
            let _permit = self.ordering.acquire().await;
            let order = OrderRequest {
                product,
                buyer: &buyer,
                key: &key,
                quantity: 1,
            };
            self.run.order(order, since).await
        };
        let again = async {
            let Some(pause) = repeats_after_ms else {
                return Ok(None);
            };
            sleep(Duration::from_millis(pause)).await;
            order(Instant::now()).await
        };
        let (receipt, repeated) = tokio::try_join!(order(since), again)?;
        let Some(receipt) = receipt else {
            return Ok(None);
        };
        let answer = {
            let _permit = self.waiting.acquire().await;
            self.run.answer(receipt.attempt_id, since).await?
        };
        self.run.progress.inc(1);
        Ok(Some(AttemptObservation {
            buyer,
            quantity: 1,
            receipt,
            repeated,
            answer,
            cancel: None,
            at_end: None,
        }))
    }
}

/// One visit: orders, orders again if the sale was not open yet, and perhaps orders more.
async fn visit(shared: Arc<Shared>, visitor: Visitor) -> Visit {
    let mut attempts = Vec::new();
    let mut repeats = visitor.repeats_after_ms;
    for try_number in 1..=MAX_EARLY_TRIES {
        let attempt = shared.attempt(&visitor, try_number, repeats.take()).await?;
        let status = attempt
            .as_ref()
            .and_then(|attempt| Some(attempt.answer.as_ref()?.status));
        attempts.extend(attempt);
        if status != Some(Status::Refused(RefusalReason::NotOpenYet)) {
            break;
        }
        let pause = shared.opening.saturating_duration_since(Instant::now());
        sleep(pause + Duration::from_millis(50)).await;
    }
    if let Some(pause) = visitor.wants_more_after_ms {
        sleep(Duration::from_millis(pause)).await;
        attempts.extend(shared.attempt(&visitor, MAX_EARLY_TRIES + 1, None).await?);
    }
    Ok((visitor.product, attempts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(buyers: u32, products: u32, seed: u64) -> Crowd {
        Crowd {
            buyers,
            products,
            stock: 10,
            seed,
            over: None,
        }
    }

    #[test]
    fn a_seed_determines_the_plan() {
        assert_eq!(crowd(1000, 5, 1).plan(), crowd(1000, 5, 1).plan());
        assert_ne!(crowd(1000, 5, 1).plan(), crowd(1000, 5, 2).plan());
    }

    #[test]
    fn most_come_in_the_first_second_and_a_few_too_early() {
        let plan = crowd(10_000, 1, 1).plan();
        let count = |test: fn(&Visitor) -> bool| plan.iter().filter(|v| test(v)).count();
        assert!((9000..9500).contains(&count(|v| (0..1000).contains(&v.comes_ms))));
        assert!((50..200).contains(&count(|v| v.comes_ms < 0)));
        assert!((800..1200).contains(&count(|v| v.repeats_after_ms.is_some())));
        assert!((400..600).contains(&count(|v| v.wants_more_after_ms.is_some())));
        assert!(plan.iter().all(|v| (-1500..=3000).contains(&v.comes_ms)));
        assert!(plan.is_sorted_by_key(|v| v.comes_ms));
        let mut buyers: Vec<_> = plan.iter().map(|v| v.buyer).collect();
        buyers.sort_unstable();
        assert!(buyers.into_iter().eq(1..=10_000));
    }

    #[test]
    fn a_crowd_may_come_evenly() {
        let even = Crowd {
            over: Some(Duration::from_secs(20)),
            ..crowd(10_000, 1, 1)
        };
        let mut seconds = [0; 20];
        for visitor in even.plan().iter().filter(|v| v.comes_ms >= 0) {
            seconds[visitor.comes_ms as usize / 1000] += 1;
        }
        assert!(
            seconds.iter().all(|n| (400..600).contains(n)),
            "{seconds:?}"
        );
    }

    #[test]
    fn popularity_falls_with_the_rank() {
        let plan = crowd(11_000, 4, 7).plan();
        let mut wanted = [0_i64; 4];
        for visitor in &plan {
            wanted[visitor.product] += 1;
        }
        // 1 + 1/2 + 1/3 + 1/4 = 25/12, so 11,000 split into 5280, 2640, 1760 and 1320.
        for (found, expected) in wanted.into_iter().zip([5280, 2640, 1760, 1320]) {
            assert!((found - expected).abs() < 200, "{wanted:?}");
        }
    }
}
