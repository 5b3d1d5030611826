//! The live answers: what the read store has, and what the tails of both logs have read since.
//!
//! ```text
//! stock-decisions   --> fence --> recent attempts, sales, answered  \
//! purchase-attempts --> queue of what is still to be decided         > questions
//! read store        --> everything older                            /
//! ```
//!
//! The tails begin where the store's progress was at the start, and no recent attempt goes
//! before the store has it, so at any time an answer is in memory or in the store. Nobody is
//! told an outcome that has not been read back from log 2.

mod mark;
mod queue;
mod recent;
mod sales;
mod tail;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::{FuturesUnordered, StreamExt};
use parking_lot::Mutex;
use ports::read_store::{AttemptRow, SaleRow};
use ports::{EventLog, ReadError, ReadStore, StoreError};
use runtime::metrics::WAITERS;
use schemas::codec::Codec;
use schemas::ids::{AttemptId, BuyerId, Offset, Partition, Position, ProductId};
use schemas::topics::Topic;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, timeout, timeout_at};

use self::mark::Mark;
use self::queue::Queue;
use self::recent::Recent;
use self::sales::Sales;

pub use self::tail::run;

/// The longest a read waits for the position it must not be older than.
pub const AT_LEAST_WAIT: Duration = Duration::from_secs(10);
/// The longest an unknown id waits for the tails to reach the ends of the logs.
const CATCH_UP_WAIT: Duration = Duration::from_secs(2);
/// The longest the read store may take to answer.
const STORE_WAIT: Duration = Duration::from_secs(5);

/// How much the live answers may hold. The partitions share each figure evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveSettings {
    /// Decided attempts kept in memory even when the read store has them, about 300 bytes each.
    pub keep_attempts: usize,
    /// Decided attempts kept when the read store falls behind. Past it the oldest are dropped,
    /// and until the store has them an id found nowhere is answered with
    /// `read_model_unavailable`.
    pub max_attempts: usize,
    /// Undecided records kept, about 150 bytes each. Past it the queue is read on only as it
    /// is decided, and an id beyond is answered with `not_caught_up`.
    pub max_undecided: usize,
    /// Requests that may wait at the same time, for a decision or a position. Past it they are
    /// answered with `too_many_waiters`.
    pub max_waiters: usize,
}

impl Default for LiveSettings {
    fn default() -> Self {
        Self {
            keep_attempts: 200_000,
            max_attempts: 2_000_000,
            max_undecided: 1_000_000,
            max_waiters: 20_000,
        }
    }
}

/// Why a question has no answer now; the same question may have one later.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LiveError {
    /// The position asked for was not reached in time.
    #[error("the read side has not reached the position asked for")]
    NotCaughtUp,
    /// As many requests wait as may.
    #[error("too many requests are waiting")]
    TooManyWaiters,
    /// The read store failed, or what is asked about is neither in it nor in memory.
    #[error("the read models cannot be read: {0}")]
    Store(String),
    /// The log could not say how far it goes.
    #[error("the log cannot be read: {0}")]
    Log(#[from] ReadError),
    /// There is no such partition.
    #[error("there are only {partitions} partitions")]
    NoSuchPartition {
        /// How many there are, counted from 0.
        partitions: u32,
    },
}

impl From<StoreError> for LiveError {
    fn from(error: StoreError) -> Self {
        Self::Store(error.0)
    }
}

/// What is known of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub enum Known {
    /// It is decided.
    Decided(AttemptRow),
    /// It waits for its turn.
    Queued(QueuedAttempt),
}

/// An attempt that waits for its turn.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueuedAttempt {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The product asked for.
    pub product_id: ProductId,
    /// For how many units.
    pub quantity: u32,
    /// Its place in line.
    pub position: Position,
    /// How many records of its partition are to be decided before it.
    pub ahead: u64,
}

/// Answers questions from memory where it can, from the read store where it must.
pub struct Live {
    log: Arc<dyn EventLog>,
    store: Arc<dyn ReadStore>,
    codec: Arc<Codec>,
    settings: LiveSettings,
    sales: Sales,
    partitions: Vec<LivePartition>,
    /// Whether the tails have begun; until then nothing can be answered.
    begun: AtomicBool,
    /// Whether the store answered when it was last asked how far it is.
    store_answers: AtomicBool,
    waiters: Semaphore,
}

/// What the tails of one partition have read.
struct LivePartition {
    state: Mutex<PartitionState>,
    /// The last offset of log 1 whose decision has been read.
    answered: Mark,
    /// The next offset of log 1 that the queue will read.
    queued: Mark,
    /// The last offset of log 1 whose decision is in the store.
    stored: Mark,
}

struct PartitionState {
    recent: Recent,
    queue: Queue,
}

/// A request that waits, counted as long as it does.
struct Waiter<'a>(#[expect(dead_code, reason = "held, not read")] SemaphorePermit<'a>);

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        metrics::gauge!(WAITERS).decrement(1.0);
    }
}

impl Live {
    /// Live answers over this log and store, once [`run`] has begun.
    pub fn new(
        log: Arc<dyn EventLog>,
        store: Arc<dyn ReadStore>,
        codec: Arc<Codec>,
        settings: LiveSettings,
    ) -> Arc<Self> {
        let count = log.partitions() as usize;
        let share = |all: usize| (all / count).max(1);
        let partition = || LivePartition {
            state: Mutex::new(PartitionState {
                recent: Recent::new(share(settings.keep_attempts), share(settings.max_attempts)),
                queue: Queue::new(),
            }),
            answered: Mark::new(),
            queued: Mark::new(),
            stored: Mark::new(),
        };
        Arc::new(Self {
            log,
            store,
            codec,
            settings,
            sales: Sales::default(),
            partitions: (0..count).map(|_| partition()).collect(),
            begun: AtomicBool::new(false),
            store_answers: AtomicBool::new(true),
            waiters: Semaphore::new(settings.max_waiters.min(Semaphore::MAX_PERMITS)),
        })
    }

    /// An attempt; waits up to `wait` for its decision. None when no such attempt was made
    /// before the question came.
    pub async fn attempt(&self, id: AttemptId, wait: Duration) -> Result<Option<Known>, LiveError> {
        self.must_have_begun()?;
        let until = Instant::now() + wait;
        let mut known = self.look(id);
        if known.is_none() {
            // Decided long ago, or so new that the tails have not read it.
            if let Ok(Some(row)) = self.stored_attempt(id).await {
                return Ok(Some(Known::Decided(row)));
            }
            known = self.look_when_caught_up(id, until).await?;
        }
        if let Some(Known::Queued(attempt)) = &known
            && !wait.is_zero()
        {
            let Position { partition, offset } = attempt.position;
            let answered = &self.partition(partition)?.answered;
            self.wait_for(answered, offset, until).await?;
            known = self.look(id);
        }
        if let Some(Known::Decided(_)) = known {
            return Ok(known);
        }
        // One that was sent again waits for a turn although its first answer is in the store.
        match (self.stored_attempt(id).await, known) {
            (Ok(Some(row)), _) => Ok(Some(Known::Decided(row))),
            (_, Some(queued)) => Ok(Some(queued)),
            (Ok(None), None) => Ok(None),
            (Err(error), None) => Err(error),
        }
    }

    /// A sale; none when no sale of the product is known.
    pub fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, LiveError> {
        self.must_have_begun()?;
        Ok(self.sales.get(product))
    }

    /// Sales by product id, those after `after`, at most `limit`.
    pub fn sales(
        &self,
        after: Option<&ProductId>,
        limit: usize,
    ) -> Result<Vec<SaleRow>, LiveError> {
        self.must_have_begun()?;
        Ok(self.sales.page(after, limit))
    }

    /// The busiest sales first, at most `limit`: those under way before those that are over,
    /// then by attempts of the round.
    pub fn busiest_sales(&self, limit: usize) -> Result<Vec<SaleRow>, LiveError> {
        self.must_have_begun()?;
        Ok(self.sales.busiest(limit))
    }

    /// How many sales there are.
    pub fn count_sales(&self) -> usize {
        self.sales.len()
    }

    /// A buyer's orders by position, those after `after`, at most `limit`.
    pub async fn orders(
        &self,
        buyer: &BuyerId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, LiveError> {
        in_time(self.store.orders(buyer, after, limit)).await
    }

    /// A product's intents by position, those after `after`, at most `limit`.
    pub async fn intents(
        &self,
        product: &ProductId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, LiveError> {
        in_time(self.store.intents(product, after, limit)).await
    }

    /// Waits until the live answers include the decision upon this position, at most
    /// [`AT_LEAST_WAIT`].
    pub async fn reach(&self, at_least: Position) -> Result<(), LiveError> {
        self.reach_mark(at_least, |partition| &partition.answered)
            .await
    }

    /// Waits until the read store includes the decision upon this position, at most
    /// [`AT_LEAST_WAIT`].
    pub async fn reach_in_store(&self, at_least: Position) -> Result<(), LiveError> {
        self.reach_mark(at_least, |partition| &partition.stored)
            .await
    }

    async fn reach_mark(
        &self,
        at_least: Position,
        mark: impl Fn(&LivePartition) -> &Mark,
    ) -> Result<(), LiveError> {
        let mark = mark(self.partition(at_least.partition)?);
        let until = Instant::now() + AT_LEAST_WAIT;
        match self.wait_for(mark, at_least.offset, until).await? {
            true => Ok(()),
            false => Err(LiveError::NotCaughtUp),
        }
    }

    /// Waits for a mark to reach a place; false when it has not in time.
    async fn wait_for(
        &self,
        mark: &Mark,
        place: Offset,
        until: Instant,
    ) -> Result<bool, LiveError> {
        if mark.at() >= place {
            return Ok(true);
        }
        let _waiter = self.waiter()?;
        Ok(timeout_at(until, mark.reach(place)).await.is_ok())
    }

    fn waiter(&self) -> Result<Waiter<'_>, LiveError> {
        let permit = self
            .waiters
            .try_acquire()
            .map_err(|_| LiveError::TooManyWaiters)?;
        metrics::gauge!(WAITERS).increment(1.0);
        Ok(Waiter(permit))
    }

    /// What memory has of an attempt.
    fn look(&self, id: AttemptId) -> Option<Known> {
        (0..)
            .zip(&self.partitions)
            .find_map(|(n, partition)| partition.look(Partition(n), id))
    }

    /// What memory has of an attempt once the queues have been read up to where log 1 ends
    /// now. Each partition is looked at as soon as it is that far.
    async fn look_when_caught_up(
        &self,
        id: AttemptId,
        until: Instant,
    ) -> Result<Option<Known>, LiveError> {
        let looks = (0..)
            .map(Partition)
            .zip(&self.partitions)
            .map(async |(n, partition)| {
                let end = self.log.end(Topic::PurchaseAttempts, n).await?;
                partition.queued.reach(end).await;
                Ok(partition.look(n, id))
            });
        let mut looks: FuturesUnordered<_> = looks.collect();
        let search = async {
            while let Some(found) = looks.next().await {
                if matches!(found, Err(_) | Ok(Some(_))) {
                    return found;
                }
            }
            Ok(None)
        };
        let _waiter = self.waiter()?;
        let until = until.max(Instant::now() + CATCH_UP_WAIT);
        timeout_at(until, search)
            .await
            .unwrap_or(Err(LiveError::NotCaughtUp))
    }

    /// What the store has of an attempt. It is not asked to speak for decisions that were
    /// dropped from memory before it had them, nor waited for when it is away: an attempt that
    /// memory is about to have would be answered late.
    async fn stored_attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, LiveError> {
        if !self.store_answers.load(Ordering::Relaxed) {
            return Err(LiveError::Store("the read store does not answer".into()));
        }
        let row = in_time(self.store.attempt(id)).await?;
        let of_interest = |n: usize| {
            row.as_ref()
                .is_none_or(|row| row.position.partition.0 as usize == n)
        };
        let behind = self
            .partitions
            .iter()
            .enumerate()
            .any(|(n, partition)| of_interest(n) && partition.state.lock().recent.has_hole());
        match behind {
            true => Err(LiveError::Store("the read store is too far behind".into())),
            false => Ok(row),
        }
    }

    fn partition(&self, partition: Partition) -> Result<&LivePartition, LiveError> {
        let found = self.partitions.get(partition.0 as usize);
        found.ok_or(LiveError::NoSuchPartition {
            partitions: self.log.partitions(),
        })
    }

    fn must_have_begun(&self) -> Result<(), LiveError> {
        match self.begun.load(Ordering::Acquire) {
            true => Ok(()),
            false => Err(LiveError::Store("the read side is starting".into())),
        }
    }
}

impl LivePartition {
    fn look(&self, partition: Partition, id: AttemptId) -> Option<Known> {
        let state = self.state.lock();
        if let Some(row) = state.recent.get(&id) {
            return Some(Known::Decided(row.clone()));
        }
        let (offset, ahead, asked) = state.queue.find(&id)?;
        Some(Known::Queued(QueuedAttempt {
            attempt_id: id,
            product_id: asked.product.clone(),
            quantity: asked.quantity,
            position: Position { partition, offset },
            ahead,
        }))
    }
}

/// A read of the store that takes no longer than it may.
async fn in_time<T>(read: impl Future<Output = Result<T, StoreError>>) -> Result<T, LiveError> {
    match timeout(STORE_WAIT, read).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(LiveError::Store("the read store does not answer".into())),
    }
}
