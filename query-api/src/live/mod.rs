//! The live answers: what the read store holds, and what the tails of both topics have read
//! since.
//!
//! ```text
//! stock-decisions   --> fence --> recent attempts, sales, watermark \
//! purchase-attempts --> queue of the undecided records               > answers
//! read store        --> everything older                            /
//! ```
//!
//! The tails start from the store's progress, and memory keeps every recent attempt until the
//! store has it. An answer is therefore in memory or in the store at any time. Clients only see
//! decisions that were read back from `stock-decisions` and passed the fence.

mod attempts;
mod commands;
mod waiters;

mod partition;
mod queue;
mod recent;
mod sales;
mod states;
mod watermark;

mod completeness;
mod undecided;

mod feed;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ports::read_store::{AttemptRow, SaleRow};
use ports::{EventLog, ReadError, ReadStore, StoreError};
use schemas::codec::Codec;
use schemas::ids::{BuyerId, Offset, Partition, Position, ProductId};
use schemas::placement::Placement;
use schemas::topics::Topic;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use self::partition::LivePartition;
use self::sales::Sales;

pub use self::feed::run;
pub use self::states::{AttemptState, CommandState, QueuedAttempt, QueuedCommand};

/// The longest that a question about something unknown waits for the tails to reach the ends that the
/// topics had when it arrived.
const CATCH_UP_WAIT: Duration = Duration::from_secs(2);
/// The longest the read store may take to answer.
const STORE_WAIT: Duration = Duration::from_secs(5);

/// How much the live answers may hold. The partitions share each figure evenly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LiveSettings {
    /// Decided attempts kept in memory even when the read store has them, about 300 bytes each. Of
    /// other commands a tenth as many are kept.
    pub keep_attempts: usize,
    /// Decided attempts kept when the read store falls behind. Past it the oldest are dropped.
    /// Until the store has them, an id that is found nowhere is answered with
    /// `read_model_unavailable`.
    pub max_attempts: usize,
    /// Undecided records kept, about 150 bytes each. Past it the queue reads on only as fast as
    /// its records are decided, and an id beyond is answered with `not_caught_up`.
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
    /// The requested position was not reached in time.
    #[error("the read side has not reached the requested position")]
    NotCaughtUp,
    /// The number of waiting requests is at its limit.
    #[error("too many requests are waiting")]
    TooManyWaiters,
    /// The read store failed, or the answer is neither in it nor in memory.
    #[error("the read models cannot be read: {0}")]
    Store(String),
    /// The log could not return its end.
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

/// Answers questions from memory where it can, from the read store where it must.
pub struct Live {
    log: Arc<dyn EventLog>,
    store: Arc<dyn ReadStore>,
    codec: Arc<Codec>,
    settings: LiveSettings,
    sales: Sales,
    partitions: Vec<LivePartition>,
    /// Whether the tails have started; until then nothing can be answered.
    started: AtomicBool,
    /// Whether the store answered its last progress read.
    store_answers: AtomicBool,
    waiters: Semaphore,
}

impl Live {
    /// Live answers over this log and store, once [`run`] has started.
    pub fn new(
        log: Arc<dyn EventLog>,
        store: Arc<dyn ReadStore>,
        codec: Arc<Codec>,
        settings: LiveSettings,
    ) -> Arc<Self> {
        let count = log.partitions() as usize;
        let share = |all: usize| (all / count).max(1);
        let (keep, max) = (share(settings.keep_attempts), share(settings.max_attempts));
        Arc::new(Self {
            log,
            store,
            codec,
            settings,
            sales: Sales::default(),
            partitions: (0..count).map(|_| LivePartition::new(keep, max)).collect(),
            started: AtomicBool::new(false),
            store_answers: AtomicBool::new(true),
            waiters: Semaphore::new(settings.max_waiters.min(Semaphore::MAX_PERMITS)),
        })
    }

    /// A sale; none if the product is absent in the log as it was when this was called or later. Waits
    /// up to [`CATCH_UP_WAIT`] for the tail to be as current as that.
    pub async fn current_sale(&self, product: &ProductId) -> Result<Option<SaleRow>, LiveError> {
        let sale = self.sale(product)?;
        if sale.is_some() {
            return Ok(sale);
        }
        let partition = Placement::new(self.log.partitions()).partition_of(product);
        let live = self.partition(partition)?;
        let end = self.attempts_end(partition, live).await?;
        let until = Instant::now() + CATCH_UP_WAIT;
        let last = Offset(end.0 - 1);
        match self.wait_for(&live.answered, last, until).await? {
            true => self.sale(product),
            false => Err(LiveError::NotCaughtUp),
        }
    }

    /// The end of a partition of `purchase-attempts`, now or later. All who ask at the same time share
    /// one request to the log. Fails if the log is not the one that the tails have read.
    async fn attempts_end(
        &self,
        partition: Partition,
        live: &LivePartition,
    ) -> Result<Offset, ReadError> {
        if let Some(error) = live.another_log.get() {
            return Err(error.clone());
        }
        let (topic, queued) = (Topic::PurchaseAttempts, live.queued.at());
        let end = live.end.get(|| self.log.end(topic, partition)).await?;
        ReadError::check_end(topic, partition, queued, end)?;
        Ok(end)
    }

    /// A sale as far as the tail has come; none when no sale of the product is known there.
    pub fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, LiveError> {
        self.require_started()?;
        Ok(self.sales.get(product))
    }

    /// Sales by product id, those after `after`, at most `limit`.
    pub fn sales(
        &self,
        after: Option<&ProductId>,
        limit: usize,
    ) -> Result<Vec<SaleRow>, LiveError> {
        self.require_all_sales()?;
        Ok(self.sales.page(after, limit))
    }

    /// The busiest sales first, at most `limit`: those under way before those that are over,
    /// then by attempts of the round. Their order was made less than two seconds ago.
    pub fn busiest_sales(&self, limit: usize) -> Result<Vec<SaleRow>, LiveError> {
        self.require_all_sales()?;
        Ok(self.sales.busiest(limit))
    }

    /// How many sales there are.
    pub fn count_sales(&self) -> usize {
        self.sales.len()
    }

    /// A buyer's orders by position, those after `after`, at most `limit`. Fails when some may be
    /// missing.
    pub async fn orders(
        &self,
        buyer: &BuyerId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, LiveError> {
        let orders = within_store_wait(self.store.orders(buyer, after, limit)).await?;
        // A buyer's orders may be in any partition.
        self.partitions.iter().try_for_each(require_rows)?;
        Ok(orders)
    }

    /// A product's intents by position, those after `after`, at most `limit`. Fails when some may be
    /// missing.
    pub async fn intents(
        &self,
        product: &ProductId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, LiveError> {
        let intents = within_store_wait(self.store.intents(product, after, limit)).await?;
        let partition = Placement::new(self.log.partitions()).partition_of(product);
        require_rows(self.partition(partition)?)?;
        Ok(intents)
    }

    fn partition(&self, partition: Partition) -> Result<&LivePartition, LiveError> {
        let found = self.partitions.get(partition.0 as usize);
        found.ok_or(LiveError::NoSuchPartition {
            partitions: self.log.partitions(),
        })
    }

    fn require_all_sales(&self) -> Result<(), LiveError> {
        self.require_started()?;
        let mut partitions = self.partitions.iter();
        match partitions.all(|partition| partition.completeness.has_all_sales()) {
            true => Ok(()),
            false => Err(LiveError::Store("the sales are still being read".into())),
        }
    }

    fn require_started(&self) -> Result<(), LiveError> {
        match self.started.load(Ordering::Acquire) {
            true => Ok(()),
            false => Err(LiveError::Store("the read side is starting".into())),
        }
    }
}

/// Fails if rows of the partition may be missing in the store: then a list would say that something
/// does not exist which does.
fn require_rows(partition: &LivePartition) -> Result<(), LiveError> {
    match partition.completeness.missing(partition.answered.at()) {
        None => Ok(()),
        Some(why) => Err(LiveError::Store(why.into())),
    }
}

/// A read of the store, which fails when it takes longer than [`STORE_WAIT`].
async fn within_store_wait<T>(
    read: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, LiveError> {
    match timeout(STORE_WAIT, read).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(LiveError::Store("the read store does not answer".into())),
    }
}
