//! What the HTTP API remembers of orders with an `Idempotency-Key`: the round that they are made for,
//! and the quantities of the last ones.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ports::StoreError;
use runtime::shared_answer::SharedAnswer;
use schemas::ids::{AttemptId, ProductId};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::CommandApi;

/// How long a round is relied upon before it is read again. An order that was made for a round which
/// has ended meanwhile is refused, and a retry of it is made for the next one.
const FRESH: Duration = Duration::from_millis(250);
/// The longest an order waits for the round to be read. Without an answer it is made for the last
/// round known, the first one if none is: at worst the core refuses it.
const ROUND_WAIT: Duration = Duration::from_millis(100);
/// The most products whose rounds are remembered, about 150 bytes each.
const MAX_ROUNDS: usize = 100_000;
/// The most orders whose quantities are remembered, in each of the two halves.
const MAX_ORDERS: usize = 65_536;

/// The rounds of sales that orders with a key were made for lately.
#[derive(Default)]
pub struct KnownRounds(Mutex<HashMap<ProductId, Arc<KnownRound>>>);

#[derive(Default)]
struct KnownRound {
    latest: Mutex<Latest>,
    /// All orders that find the round old share a read.
    reading: SharedAnswer<()>,
}

/// The last round known.
#[derive(Clone, Copy, Default)]
struct Latest {
    /// Rounds only grow, so the highest one read. 0 before the first read.
    round: u32,
    /// When it was read, or the store last failed to answer.
    read_at: Option<Instant>,
    /// Whether a command to begin a round has been appended since.
    begins: bool,
}

impl KnownRounds {
    fn of(&self, product: &ProductId) -> Arc<KnownRound> {
        let mut rounds = self.0.lock();
        if let Some(known) = rounds.get(product) {
            return known.clone();
        }
        if rounds.len() >= MAX_ROUNDS {
            rounds.clear();
        }
        rounds.entry(product.clone()).or_default().clone()
    }

    /// Takes the round of a sale that was just read, unless another is about to begin.
    pub(super) fn learn(&self, product: &ProductId, round: u32) {
        let known = self.of(product);
        if !known.latest.lock().begins {
            known.set(round);
        }
    }

    /// Notes that a command to begin a round was appended: the next order waits for its outcome.
    pub(super) fn begins(&self, product: &ProductId) {
        self.of(product).latest.lock().begins = true;
    }
}

impl KnownRound {
    /// The round, unless it must be read again.
    fn fresh(&self) -> Option<u32> {
        let latest = *self.latest.lock();
        let is_fresh = latest.read_at.is_some_and(|at| at.elapsed() < FRESH);
        (is_fresh && !latest.begins).then_some(latest.round.max(1))
    }

    fn set(&self, round: u32) {
        let mut latest = self.latest.lock();
        *latest = Latest {
            round: latest.round.max(round),
            read_at: Some(Instant::now()),
            begins: false,
        };
    }
}

impl CommandApi {
    /// The round that an order is made for, as far as is known. It is part of the attempt's id, and
    /// the core accepts the attempt in that round only. So an id never gets units in two rounds,
    /// however old the answer is.
    pub(super) async fn round(&self, product: &ProductId) -> u32 {
        let known = self.rounds.of(product);
        if let Some(round) = known.fresh() {
            return round;
        }
        let read = known.reading.get(|| self.read_round(product, &known));
        if timeout(ROUND_WAIT, read).await.is_err() {
            debug!(%product, "the store does not answer in time which round it is");
            known.set(0);
        }
        known.latest.lock().round.max(1)
    }

    async fn read_round(&self, product: &ProductId, known: &KnownRound) {
        if known.fresh().is_some() {
            return;
        }
        match self.stored_round(product, known).await {
            Ok(round) => known.set(round),
            Err(error) => {
                debug!(%error, %product, "the store cannot tell which round it is");
                known.set(0);
            }
        }
    }

    async fn stored_round(
        &self,
        product: &ProductId,
        known: &KnownRound,
    ) -> Result<u32, StoreError> {
        let begins = known.latest.lock().begins;
        if begins {
            let partition = self.placement.partition_of(product);
            self.wait_for_store(partition).await?;
        }
        let sale = self.store.sale(product).await?;
        Ok(sale.map_or(1, |sale| sale.round))
    }
}

/// The quantities of the last orders with a key, so that the same key with another quantity is refused
/// at once. An order that is not remembered is compared by the core.
#[derive(Default)]
pub struct RecentOrders(Mutex<Halves>);

/// When the newer half is full, it becomes the older one.
#[derive(Default)]
struct Halves {
    newer: HashMap<AttemptId, u32>,
    older: HashMap<AttemptId, u32>,
}

impl RecentOrders {
    /// The quantity of an order that was appended lately.
    pub(super) fn quantity(&self, attempt: &AttemptId) -> Option<u32> {
        let orders = self.0.lock();
        let found = orders.newer.get(attempt).or(orders.older.get(attempt));
        found.copied()
    }

    /// Remembers an order that was appended, unless it is remembered: the first one counts.
    pub(super) fn remember(&self, attempt: AttemptId, quantity: u32) {
        let mut orders = self.0.lock();
        if orders.newer.contains_key(&attempt) || orders.older.contains_key(&attempt) {
            return;
        }
        if orders.newer.len() >= MAX_ORDERS {
            orders.older = std::mem::take(&mut orders.newer);
        }
        orders.newer.insert(attempt, quantity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_orders_are_remembered_and_no_more() {
        let orders = RecentOrders::default();
        let id = |n: usize| AttemptId::from_bytes((n as u128).to_be_bytes());
        for n in 0..3 * MAX_ORDERS {
            orders.remember(id(n), 1);
        }
        assert_eq!(orders.quantity(&id(0)), None);
        assert_eq!(orders.quantity(&id(2 * MAX_ORDERS - 1)), Some(1));
        assert_eq!(orders.quantity(&id(3 * MAX_ORDERS - 1)), Some(1));
        let halves = orders.0.lock();
        assert!(halves.newer.len() + halves.older.len() <= 2 * MAX_ORDERS);
    }

    #[test]
    fn the_first_quantity_of_an_order_counts() {
        let (orders, id) = (RecentOrders::default(), AttemptId::from_bytes([7; 16]));
        orders.remember(id, 2);
        orders.remember(id, 3);
        assert_eq!(orders.quantity(&id), Some(2));
    }
}
