//! A node's line to the log and the store: calls wait, fail, or do what they are not said to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use ports::read_store::{AttemptRow, MAX_PAGE, Progress, Row, SaleRow};
use ports::{
    AppendError, EventLog, Group, LogReader, LogRecord, NewRecord, ReadError, ReadStore, StoreError,
};
use rand::RngExt;
use schemas::ids::{AttemptId, BuyerId, Offset, Partition, Position, ProductId, TimestampMs};
use schemas::topics::Topic;
use tokio::sync::{oneshot, watch};
use tokio::time::sleep;

use super::store::Tables;
use super::{Letter, Ms, Node, World};

/// The most records one read returns, so that nodes meet batches of all sizes.
const READ_AT_ONCE: usize = 40;
/// How much later than its failure a late letter may arrive.
const LATE_MS: Ms = 4_000;

/// A node's line to the log and the store, and its clock.
pub struct Connection {
    pub(super) world: Arc<World>,
    pub(super) node: Node,
}

/// How a letter fares, and what its sender is told.
enum Fate<T> {
    /// It arrives; the sender is answered after the way back.
    Answered(oneshot::Receiver<T>, Ms),
    /// Whatever becomes of it, the sender is told after so long that it failed.
    Failed(Ms),
}

impl Connection {
    pub(super) fn new(world: Arc<World>, node: Node) -> Self {
        Self { world, node }
    }

    /// Waits as long as the node is frozen.
    async fn thaw(&self) {
        loop {
            let left = {
                let inner = self.world.lock();
                inner.thaws_at(self.node).saturating_sub(inner.now)
            };
            if left == 0 {
                return;
            }
            sleep(Duration::from_millis(left)).await;
        }
    }

    /// A way to or fro.
    async fn travel(&self) {
        let ms = self.world.lock().way_ms();
        if ms > 0 {
            sleep(Duration::from_millis(ms)).await;
        }
        self.thaw().await;
    }

    /// A question to the log.
    async fn ask_log(&self) -> Result<(), ReadError> {
        self.travel().await;
        let failed_read = self.world.lock().weather.failed_read;
        match self.world.lock().happens(failed_read) {
            true => Err(ReadError::Unavailable("the line is cut".into())),
            false => Ok(()),
        }
    }

    /// A question to the store, which may be away: then it fails, or fails only when it is back.
    async fn ask_store<T>(&self, answer: impl FnOnce(&Tables) -> T) -> Result<T, StoreError> {
        self.travel().await;
        let (fails, hangs_ms) = {
            let mut inner = self.world.lock();
            let away_ms = inner.store.silent_until.saturating_sub(inner.now);
            let failed_read = inner.weather.failed_read;
            let hangs = inner.happens(500);
            (
                away_ms > 0 || inner.happens(failed_read),
                if hangs { away_ms } else { 0 },
            )
        };
        if hangs_ms > 0 {
            sleep(Duration::from_millis(hangs_ms)).await;
        }
        match fails {
            true => Err(StoreError("the store is away".into())),
            false => Ok(answer(&self.world.lock().store.tables)),
        }
    }

    /// Sends an append. Its place in the order is settled here, before anything is waited for.
    fn send_append(
        &self,
        topic: Topic,
        partition: Partition,
        records: Vec<NewRecord>,
    ) -> Fate<Result<Offset, AppendError>> {
        let mut inner = self.world.lock();
        let weather = inner.weather;
        let leaves = inner.now.max(inner.thaws_at(self.node));
        let place = (self.node, topic, partition);
        let earliest = inner.last_arrival.get(&place).copied().unwrap_or(0);
        let arrives = (leaves + 1 + inner.way_ms()).max(earliest);
        let told_ms = arrives - inner.now + inner.dice.random_range(1..500);
        let letter = |records, answer| Letter::Append {
            topic,
            partition,
            records,
            answer,
        };
        if inner.happens(weather.lost) {
            return Fate::Failed(told_ms);
        }
        if inner.happens(weather.late) {
            // A batch that was cut in two may arrive in part.
            let whole = records.len();
            let arrived = inner.dice.random_range(1..=whole);
            let records = records.into_iter().take(arrived).collect();
            let late = arrives + inner.dice.random_range(1..LATE_MS);
            inner.post(late, letter(records, None));
            return Fate::Failed(told_ms);
        }
        inner.last_arrival.insert(place, arrives);
        let doubled = inner.happens(weather.mangled).then(|| records.clone());
        if inner.happens(weather.unsaid) {
            inner.post(arrives, letter(records, None));
            return Fate::Failed(told_ms);
        }
        let (answer, answered) = oneshot::channel();
        inner.post(arrives, letter(records, Some(answer)));
        if let Some(again) = doubled {
            inner.post(arrives, letter(again, None));
        }
        let back_ms = inner.way_ms();
        Fate::Answered(answered, back_ms)
    }

    fn send_rows(
        &self,
        partition: Partition,
        mut rows: Vec<Row>,
        progress: Progress,
    ) -> Fate<Result<(), StoreError>> {
        let mut inner = self.world.lock();
        let weather = inner.weather;
        let leaves = inner.now.max(inner.thaws_at(self.node));
        let arrives = (leaves + 1 + inner.way_ms()).max(inner.store.silent_until);
        let told_ms = arrives - inner.now + inner.dice.random_range(1..500);
        let letter = |rows, progress, answer| Letter::Rows {
            partition,
            rows,
            progress,
            answer,
        };
        if inner.happens(weather.lost) {
            return Fate::Failed(told_ms);
        }
        if inner.happens(weather.mangled) {
            let arrived = inner.dice.random_range(0..=rows.len());
            rows.truncate(arrived);
            inner.post(arrives, letter(rows, None, None));
            return Fate::Failed(told_ms);
        }
        if inner.happens(weather.late) {
            let late = arrives + inner.dice.random_range(1..LATE_MS);
            inner.post(late, letter(rows, Some(progress), None));
            return Fate::Failed(told_ms);
        }
        if inner.happens(weather.unsaid) {
            inner.post(arrives, letter(rows, Some(progress), None));
            return Fate::Failed(told_ms);
        }
        let (answer, answered) = oneshot::channel();
        inner.post(arrives, letter(rows, Some(progress), Some(answer)));
        let back_ms = inner.way_ms();
        Fate::Answered(answered, back_ms)
    }

    /// Waits for what the sender is told.
    async fn told<T, E>(&self, fate: Fate<Result<T, E>>, unknown: impl Fn() -> E) -> Result<T, E> {
        let (answer, ms) = match fate {
            Fate::Answered(answered, back_ms) => {
                (answered.await.unwrap_or_else(|_| Err(unknown())), back_ms)
            }
            Fate::Failed(told_ms) => (Err(unknown()), told_ms),
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
        let fate = self.send_append(topic, partition, records);
        let unknown = || AppendError::Unknown("the line was cut".into());
        self.told(fate, unknown).await
    }

    async fn read(
        &self,
        topic: Topic,
        partition: Partition,
        from: Offset,
    ) -> Result<Box<dyn LogReader>, ReadError> {
        self.ask_log().await?;
        let changed = self.world.lock().log.changes(topic, partition);
        Ok(Box::new(Reader {
            line: Self::new(self.world.clone(), self.node),
            topic,
            partition,
            next: from,
            read: None,
            changed,
        }))
    }

    async fn end(&self, topic: Topic, partition: Partition) -> Result<Offset, ReadError> {
        self.ask_log().await?;
        Ok(self.world.lock().log.end(topic, partition))
    }

    async fn offset_at(
        &self,
        topic: Topic,
        partition: Partition,
        time: TimestampMs,
    ) -> Result<Offset, ReadError> {
        self.ask_log().await?;
        Ok(self.world.lock().log.offset_at(topic, partition, time))
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
        self.ask_log().await?;
        self.world.lock().log.forget(topic, partition, before);
        Ok(())
    }
}

struct Reader {
    line: Connection,
    topic: Topic,
    partition: Partition,
    next: Offset,
    /// What was read before the wait, so that a call given up loses nothing.
    read: Option<Vec<LogRecord>>,
    changed: watch::Receiver<()>,
}

#[async_trait]
impl LogReader for Reader {
    async fn next(&mut self) -> Result<Vec<LogRecord>, ReadError> {
        self.line.ask_log().await?;
        while self.read.is_none() {
            self.changed.mark_unchanged();
            let records = {
                let mut inner = self.line.world.lock();
                let most = inner.dice.random_range(1..=READ_AT_ONCE);
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
        self.line.travel().await;
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
        let fate = self.send_rows(partition, rows, progress);
        let unknown = || StoreError("the line was cut".into());
        self.told(fate, unknown).await
    }

    async fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError> {
        self.ask_store(|tables| tables.progress.clone()).await
    }

    async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        self.ask_store(|tables| tables.attempts.get(&id).cloned())
            .await
    }

    async fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError> {
        self.ask_store(|tables| tables.sales.get(product).cloned())
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
        self.ask_store(page).await
    }

    async fn orders(
        &self,
        buyer: &BuyerId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        self.ask_store(|tables| listed(&tables.orders, buyer, after, limit))
            .await
    }

    async fn intents(
        &self,
        product: &ProductId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        self.ask_store(|tables| listed(&tables.intents, product, after, limit))
            .await
    }

    async fn visit(&self, mut visit: Box<dyn FnMut(Row) -> bool + Send>) -> Result<(), StoreError> {
        let rows = self
            .ask_store(|_| ())
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
