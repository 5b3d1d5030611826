//! A node's connection to the log and the store: calls are delayed, fail, or take effect although
//! they fail.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::read_store::{AttemptRow, CommandRow, MAX_PAGE, Progress, Row, SaleRow};
use ports::{
    AppendError, EventLog, Group, LogReader, LogRecord, NewRecord, ReadError, ReadStore, StoreError,
};
use rand::RngExt;
use schemas::ids::{AttemptId, BuyerId, Offset, Partition, Position, ProductId, TimestampMs};
use schemas::topics::Topic;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use super::store::Tables;
use super::{Message, Ms, Node, World};

/// The most records one read returns, so that nodes meet batches of all sizes.
const READ_AT_ONCE: usize = 40;
/// How much later than its failure a late message may arrive.
const LATE_MS: Ms = 4_000;

/// A node's connection to the log and the store, and its clock.
pub struct Connection {
    pub(super) world: Arc<World>,
    pub(super) node: Node,
}

/// What becomes of a message, and the result of its sender.
enum Delivery<T> {
    /// It arrives; the sender gets the result after the delay back.
    Answered(oneshot::Receiver<T>, Ms),
    /// The sender gets a failure after this time, whether or not it arrives.
    Failed(Ms),
}

impl Connection {
    pub(super) fn new(world: Arc<World>, node: Node) -> Self {
        Self { world, node }
    }

    /// Waits while the node is frozen.
    async fn thaw(&self) {
        loop {
            let left = {
                let inner = self.world.lock();
                inner.frozen_until_ms(self.node).saturating_sub(inner.now)
            };
            if left == 0 {
                return;
            }
            sleep(Duration::from_millis(left)).await;
        }
    }

    /// Waits for the delay in one direction.
    async fn travel(&self) {
        let ms = self.world.lock().delay_ms();
        if ms > 0 {
            sleep(Duration::from_millis(ms)).await;
        }
        self.thaw().await;
    }

    /// A call to the log, which may fail.
    async fn log_round_trip(&self) -> Result<(), ReadError> {
        self.travel().await;
        let failed_read = self.world.lock().fault_rates.failed_read;
        match self.world.lock().chance(failed_read) {
            true => Err(ReadError::Unavailable("the line is cut".into())),
            false => Ok(()),
        }
    }

    /// A read of the store. While the store is unavailable it fails, at once or only when the store
    /// is back.
    async fn read_store<T>(&self, answer: impl FnOnce(&Tables) -> T) -> Result<T, StoreError> {
        self.travel().await;
        let (fails, hangs_ms) = {
            let mut inner = self.world.lock();
            let unavailable_ms = inner.store.unavailable_until.saturating_sub(inner.now);
            let failed_read = inner.fault_rates.failed_read;
            let hangs = inner.chance(500);
            (
                unavailable_ms > 0 || inner.chance(failed_read),
                if hangs { unavailable_ms } else { 0 },
            )
        };
        if hangs_ms > 0 {
            sleep(Duration::from_millis(hangs_ms)).await;
        }
        match fails {
            true => Err(StoreError("the store is unavailable".into())),
            false => Ok(answer(&self.world.lock().store.tables)),
        }
    }

    /// Sends an append. Its order among the node's appends is fixed here, before any wait.
    fn send_append(
        &self,
        topic: Topic,
        partition: Partition,
        records: Vec<NewRecord>,
    ) -> Delivery<Result<Offset, AppendError>> {
        let mut inner = self.world.lock();
        let fault_rates = inner.fault_rates;
        let leaves = inner.now.max(inner.frozen_until_ms(self.node));
        let place = (self.node, topic, partition);
        let earliest = inner.last_arrival.get(&place).copied().unwrap_or(0);
        let arrives = (leaves + 1 + inner.delay_ms()).max(earliest);
        let answer_ms = arrives - inner.now + inner.rng.random_range(1..500);
        let message = |records, answer| Message::Append {
            topic,
            partition,
            records,
            answer,
        };
        if inner.chance(fault_rates.lost) {
            return Delivery::Failed(answer_ms);
        }
        if inner.chance(fault_rates.late) {
            // Only the first part of a batch may arrive.
            let whole = records.len();
            let arrived = inner.rng.random_range(1..=whole);
            let records = records.into_iter().take(arrived).collect();
            let late = arrives + inner.rng.random_range(1..LATE_MS);
            inner.send(late, message(records, None));
            return Delivery::Failed(answer_ms);
        }
        inner.last_arrival.insert(place, arrives);
        let doubled = inner.chance(fault_rates.mangled).then(|| records.clone());
        if inner.chance(fault_rates.unacknowledged) {
            inner.send(arrives, message(records, None));
            return Delivery::Failed(answer_ms);
        }
        let (answer, answered) = oneshot::channel();
        inner.send(arrives, message(records, Some(answer)));
        if let Some(again) = doubled {
            inner.send(arrives, message(again, None));
        }
        let back_ms = inner.delay_ms();
        Delivery::Answered(answered, back_ms)
    }

    fn send_rows(
        &self,
        partition: Partition,
        mut rows: Vec<Row>,
        progress: Progress,
    ) -> Delivery<Result<(), StoreError>> {
        let mut inner = self.world.lock();
        let fault_rates = inner.fault_rates;
        let leaves = inner.now.max(inner.frozen_until_ms(self.node));
        let arrives = (leaves + 1 + inner.delay_ms()).max(inner.store.unavailable_until);
        let answer_ms = arrives - inner.now + inner.rng.random_range(1..500);
        let message = |rows, progress, answer| Message::Rows {
            partition,
            rows,
            progress,
            answer,
        };
        if inner.chance(fault_rates.lost) {
            return Delivery::Failed(answer_ms);
        }
        if inner.chance(fault_rates.mangled) {
            let arrived = inner.rng.random_range(0..=rows.len());
            rows.truncate(arrived);
            inner.send(arrives, message(rows, None, None));
            return Delivery::Failed(answer_ms);
        }
        if inner.chance(fault_rates.late) {
            let late = arrives + inner.rng.random_range(1..LATE_MS);
            inner.send(late, message(rows, Some(progress), None));
            return Delivery::Failed(answer_ms);
        }
        if inner.chance(fault_rates.unacknowledged) {
            inner.send(arrives, message(rows, Some(progress), None));
            return Delivery::Failed(answer_ms);
        }
        let (answer, answered) = oneshot::channel();
        inner.send(arrives, message(rows, Some(progress), Some(answer)));
        let back_ms = inner.delay_ms();
        Delivery::Answered(answered, back_ms)
    }

    /// Waits for the sender's result.
    async fn outcome<T, E>(
        &self,
        delivery: Delivery<Result<T, E>>,
        unknown: impl Fn() -> E,
    ) -> Result<T, E> {
        let (answer, ms) = match delivery {
            Delivery::Answered(answered, back_ms) => {
                (answered.await.unwrap_or_else(|_| Err(unknown())), back_ms)
            }
            Delivery::Failed(answer_ms) => (Err(unknown()), answer_ms),
        };
        if ms > 0 {
            sleep(Duration::from_millis(ms)).await;
        }
        self.thaw().await;
        answer
    }
}

#[async_trait]
impl EventLog for Connection {
    fn partitions(&self) -> u32 {
        self.world.lock().log.partitions()
    }

    async fn append(
        &self,
        topic: Topic,
        partition: Partition,
        records: Vec<NewRecord>,
    ) -> Result<Offset, AppendError> {
        records.iter().try_for_each(NewRecord::check_bounds)?;
        if self.world.lock().queue_is_full(self.node) {
            return Err(AppendError::Full);
        }
        let delivery = self.send_append(topic, partition, records);
        let unknown = || AppendError::Unknown("the line was cut".into());
        self.outcome(delivery, unknown).await
    }

    async fn read(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, ReadError> {
        self.log_round_trip().await?;
        let end = self.world.lock().log.end(topic, partition);
        ReadError::check_end(topic, partition, from, end)?;
        let changed = self.world.lock().log.changes(topic, partition);
        Ok(Box::new(Reader {
            connection: Self::new(self.world.clone(), self.node),
            topic,
            partition,
            next: from,
            read: None,
            changed,
        }))
    }

    async fn end(&self, topic: Topic, partition: Partition) -> Result<Offset, ReadError> {
        self.log_round_trip().await?;
        Ok(self.world.lock().log.end(topic, partition))
    }

    async fn offset_at(
        &self,
        topic: Topic,
        partition: Partition,
        time: TimestampMs,
    ) -> Result<Offset, ReadError> {
        self.log_round_trip().await?;
        Ok(self.world.lock().log.offset_at(topic, partition, time))
    }

    fn correct_clock(&self) {
        self.world.correct_log_clock();
    }

    fn assignment(&self, group: Group) -> watch::Receiver<BTreeSet<Partition>> {
        super::assignment(&self.world, self.node, group)
    }

    fn note_progress(&self, _group: Group, _partition: Partition, _next: Offset) {}

    async fn forget(
        &self,
        topic: Topic,
        partition: Partition,
        before: Offset,
    ) -> Result<(), ReadError> {
        self.log_round_trip().await?;
        self.world.lock().log.forget(topic, partition, before);
        Ok(())
    }
}

struct Reader {
    connection: Connection,
    topic: Topic,
    partition: Partition,
    next: Offset,
    /// Records read before the delay, so that a dropped call loses nothing.
    read: Option<Vec<LogRecord>>,
    changed: watch::Receiver<()>,
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        self.connection.log_round_trip().await?;
        while self.read.is_none() {
            self.changed.mark_unchanged();
            let records = {
                let mut inner = self.connection.world.lock();
                let end = inner.log.end(self.topic, self.partition);
                ReadError::check_end(self.topic, self.partition, self.next, end)?;
                let most = inner.rng.random_range(1..=READ_AT_ONCE);
                inner.log.from(self.topic, self.partition, self.next, most)
            };
            if records.is_empty() {
                self.changed
                    .changed()
                    .await
                    .map_err(|_| ReadError::Closed)?;
            } else {
                self.read = Some(records);
            }
        }
        self.connection.travel().await;
        let records = self.read.take().unwrap_or_default();
        if let Some(last) = records.last() {
            self.next = last.offset.next();
        }
        Ok(records)
    }
}

#[async_trait]
impl ReadStore for Connection {
    async fn apply(
        &self,
        partition: Partition,
        rows: Vec<Row>,
        progress: Progress,
    ) -> Result<(), StoreError> {
        let delivery = self.send_rows(partition, rows, progress);
        let unknown = || StoreError("the line was cut".into());
        self.outcome(delivery, unknown).await
    }

    async fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError> {
        self.read_store(|tables| tables.progress.clone()).await
    }

    async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        self.read_store(|tables| tables.attempts.get(&id).cloned())
            .await
    }

    async fn command(&self, at: Position) -> Result<Option<CommandRow>, StoreError> {
        self.read_store(|tables| tables.commands.get(&at).cloned())
            .await
    }

    async fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError> {
        self.read_store(|tables| tables.sales.get(product).cloned())
            .await
    }

    async fn sales(
        &self,
        after: Option<&ProductId>,
        limit: usize,
    ) -> Result<Vec<SaleRow>, StoreError> {
        let after = |id: &ProductId| after.is_none_or(|after| id > after);
        let page = |tables: &Tables| {
            let rows = tables.sales.iter().filter(|(id, _)| after(id));
            rows.take(limit.min(MAX_PAGE))
                .map(|(_, row)| row.clone())
                .collect()
        };
        self.read_store(page).await
    }

    async fn orders(
        &self,
        buyer: &BuyerId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        self.read_store(|tables| listed(&tables.orders, buyer, after, limit))
            .await
    }

    async fn intents(
        &self,
        product: &ProductId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        self.read_store(|tables| listed(&tables.intents, product, after, limit))
            .await
    }

    async fn visit(&self, mut visit: Box<dyn FnMut(Row) -> bool + Send>) -> Result<(), StoreError> {
        let rows = self
            .read_store(|_| ())
            .await
            .map(|()| self.world.lock().store.rows())?;
        let _ = rows.into_iter().all(&mut visit);
        Ok(())
    }
}

/// A page of a list by owner and position.
fn listed<O: Ord>(
    list: &BTreeMap<(O, Position), AttemptRow>,
    owner: &O,
    after: Option<Position>,
    limit: usize,
) -> Vec<AttemptRow> {
    let is_on = |of: &O, at: Position| of == owner && after.is_none_or(|after| at > after);
    let rows = list.iter().filter(|((of, at), _)| is_on(of, *at));
    rows.take(limit.min(MAX_PAGE))
        .map(|(_, row)| row.clone())
        .collect()
}
