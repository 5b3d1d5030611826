//! What is outside the services: the log and the store that all nodes share, the time, and each
//! node's connection to them. All of it draws from one random generator, so that a seed repeats a
//! run.
//!
//! What a node sends is a message in flight. It arrives later or not at all, even after its sender
//! has crashed, and the result that the sender gets may be wrong.

mod connection;
mod disk;
mod log;
mod log_change;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use ports::read_store::{Progress, Row};
use ports::{AppendError, Clock, Group, NewRecord, StoreError};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use runtime::health::{ComponentHealth, Health};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tokio::sync::{oneshot, watch};

pub use self::connection::Connection;
use self::disk::{Disk, SECTOR_BYTES};
use self::log::Log;
pub use self::log_change::LogChange;
use self::store::Store;

/// Milliseconds since the start of a run.
pub type Ms = u64;

/// The Unix time at which every run starts.
pub const BEGIN_MS: TimestampMs = 1_800_000_000_000;

/// The longest that an append queue is full at a time.
const MAX_FULL_MS: Ms = 800;

/// What a node runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It accepts commands.
    CommandApi,
    /// It decides.
    Decider,
    /// It writes the read models.
    Projector,
    /// It answers reads.
    QueryApi,
    /// All of these in one process.
    Shop,
}

/// A node by its role and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node(pub Role, pub usize);

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.0 {
            Role::CommandApi => "command-api",
            Role::Decider => "decider",
            Role::Projector => "projector",
            Role::QueryApi => "query-api",
            Role::Shop => "shop",
        };
        write!(f, "{role}-{}", self.1)
    }
}

/// How often calls go wrong, each in thousandths of the calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct FaultRates {
    /// A call is delayed, on its way there or back.
    pub slow: u32,
    /// The longest such delay.
    pub longest_ms: Ms,
    /// An append finds its node's queue full, and so do all others for a while.
    pub full: u32,
    /// An append or a write fails, and does not arrive.
    pub lost: u32,
    /// It fails, but arrives.
    pub unacknowledged: u32,
    /// It fails, and arrives long after.
    pub late: u32,
    /// An append arrives twice; of rows, only some arrive.
    pub mangled: u32,
    /// A read fails.
    pub failed_read: u32,
}

/// The world outside the services.
pub struct World {
    inner: Mutex<Inner>,
}

struct Inner {
    now: Ms,
    rng: StdRng,
    fault_rates: FaultRates,
    log: Log,
    /// The embedded log's disk; none when the log is distributed.
    disk: Option<Disk>,
    store: Store,
    /// By time of arrival, then in the order in which they were sent.
    in_flight: BTreeMap<(Ms, u64), Message>,
    sent: u64,
    /// The last arrival of a node's appends to a partition: two appends of one node keep their
    /// order.
    last_arrival: BTreeMap<(Node, Topic, Partition), Ms>,
    frozen_until: BTreeMap<Node, Ms>,
    /// Until when each node's append queue is full.
    full_until: BTreeMap<Node, Ms>,
    skew_ms: BTreeMap<Node, i64>,
    log_skew_ms: i64,
    assigned: BTreeMap<Node, watch::Sender<BTreeSet<Partition>>>,
    /// The health of each node since its last start.
    health: BTreeMap<Node, Health>,
    settled: BTreeMap<(Topic, Partition), Offset>,
}

/// An append or a write in flight.
enum Message {
    Append {
        topic: Topic,
        partition: Partition,
        records: Vec<NewRecord>,
        answer: Option<oneshot::Sender<Result<Offset, AppendError>>>,
    },
    Rows {
        partition: Partition,
        rows: Vec<Row>,
        /// None when only the rows arrive.
        progress: Option<Progress>,
        answer: Option<oneshot::Sender<Result<(), StoreError>>>,
    },
}

impl World {
    /// A world with an empty log. An embedded log also has a disk.
    pub fn new(seed: u64, partitions: u32, fault_rates: FaultRates, embedded: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                now: 0,
                rng: StdRng::seed_from_u64(seed),
                fault_rates,
                log: Log::new(partitions),
                disk: embedded.then(|| Disk::new(partitions)),
                store: Store::default(),
                in_flight: BTreeMap::new(),
                sent: 0,
                last_arrival: BTreeMap::new(),
                frozen_until: BTreeMap::new(),
                full_until: BTreeMap::new(),
                skew_ms: BTreeMap::new(),
                log_skew_ms: 0,
                assigned: BTreeMap::new(),
                health: BTreeMap::new(),
                settled: BTreeMap::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// A node's connection to the log and the store, and its clock.
    pub fn connect(self: &Arc<Self>, node: Node) -> Arc<Connection> {
        Arc::new(Connection::new(self.clone(), node))
    }

    /// The simulated time of the run.
    pub fn now(&self) -> Ms {
        self.lock().now
    }

    /// Advances the time to `now`: messages that are due arrive.
    pub fn advance(&self, now: Ms) {
        let mut inner = self.lock();
        inner.now = now;
        inner.store.take_snapshot(now);
        while let Some(next) = inner
            .in_flight
            .first_entry()
            .filter(|next| next.key().0 <= now)
        {
            let message = next.remove();
            inner.arrive(message);
        }
    }

    /// Sets how often calls fail from now on.
    pub fn set_fault_rates(&self, fault_rates: FaultRates) {
        self.lock().fault_rates = fault_rates;
    }

    /// Cuts the node off from everything until then, as if paused or partitioned.
    pub fn freeze(&self, node: Node, until: Ms) {
        self.lock().frozen_until.insert(node, until);
    }

    /// Whether the node is frozen.
    pub fn is_frozen(&self, node: Node) -> bool {
        let inner = self.lock();
        inner.frozen_until_ms(node) > inner.now
    }

    /// Steps the clock of a node.
    pub fn step_clock(&self, node: Node, by_ms: i64) {
        *self.lock().skew_ms.entry(node).or_default() += by_ms;
    }

    /// Steps the log's clock, which sets the records' append times.
    pub fn step_log_clock(&self, by_ms: i64) {
        self.lock().log_skew_ms += by_ms;
    }

    /// Has the log take its clock for right, as far as that is up to it.
    pub fn correct_log_clock(&self) {
        let mut inner = self.lock();
        let (clock_ms, now) = (inner.log_clock_ms(), inner.now);
        if let Some(disk) = &mut inner.disk {
            disk.set_clock(clock_ms, now);
            disk.correct_clock();
        }
    }

    /// Sets the node's clock to the log's.
    pub fn set_clock_right(&self, node: Node) {
        let mut inner = self.lock();
        let log_skew_ms = inner.log_skew_ms;
        inner.skew_ms.insert(node, log_skew_ms);
    }

    /// Appends a record that no node has sent.
    pub fn poison(&self, topic: Topic, partition: Partition, garbage: &'static [u8]) {
        let record = NewRecord {
            value: garbage.into(),
            ..NewRecord::default()
        };
        self.lock().arrive(Message::Append {
            topic,
            partition,
            records: vec![record],
            answer: None,
        });
    }

    /// The health of a node that starts.
    pub fn new_health(&self, node: Node) -> Health {
        let health = Health::default();
        self.lock().health.insert(node, health.clone());
        health
    }

    /// Why parts of a node have stopped until an operator acts.
    pub fn stopped_because(&self, node: Node) -> Vec<String> {
        self.details(node, |component| !component.alive)
    }

    /// Why parts of a node are degraded.
    pub fn degraded_because(&self, node: Node) -> Vec<String> {
        self.details(node, |component| component.degraded)
    }

    fn details(&self, node: Node, of: impl Fn(&ComponentHealth) -> bool) -> Vec<String> {
        let health = self.lock().health.get(&node).cloned();
        let components = health.map_or_else(Vec::new, |health| health.report());
        let components = components.into_iter().filter(of);
        components.map(|component| component.detail).collect()
    }

    /// How many records `purchase-attempts` has.
    pub fn count_attempts(&self) -> i64 {
        let inner = self.lock();
        let partitions = (0..inner.log.partitions()).map(Partition);
        let ends = partitions.map(|partition| inner.log.end(Topic::PurchaseAttempts, partition).0);
        ends.sum()
    }

    /// The partitions that are assigned to a node.
    pub fn assigned(&self, node: Node) -> BTreeSet<Partition> {
        let inner = self.lock();
        let assigned = inner.assigned.get(&node);
        assigned.map_or_else(BTreeSet::new, |assigned| assigned.borrow().clone())
    }

    /// The store does not answer until then.
    pub fn stop_store(&self, until: Ms) {
        self.lock().store.unavailable_until = until;
    }

    /// Sets the partitions that are assigned to the node.
    pub fn assign(&self, node: Node, partitions: BTreeSet<Partition>) {
        let mut inner = self.lock();
        // A node that has not started yet finds them when it does.
        let assigned = inner.assigned.entry(node).or_default();
        assigned.send_if_modified(|now| {
            let differs = *now != partitions;
            *now = partitions;
            differs
        });
    }

    /// Whether an append is in flight that takes more than one sector.
    pub fn writes_several_sectors(&self) -> bool {
        let inner = self.lock();
        let mut in_flight = inner.in_flight.values();
        in_flight.any(|message| {
            matches!(message, Message::Append { records, .. } if bytes_of(records) > SECTOR_BYTES)
        })
    }

    /// Cuts the power of the machine with everything in one process: messages in flight are torn
    /// or lost, and the store loses its last writes. Fails when the log cannot be opened on what
    /// the disk still holds.
    pub fn cut_power(&self) -> Result<(), String> {
        self.lock().cut_power()
    }

    /// The state at the end, for the checker.
    pub fn end_state(&self) -> EndState {
        let inner = self.lock();
        EndState {
            partitions: inner.log.partitions(),
            records: inner.log.all(),
            acknowledged: inner.log.acknowledged.clone(),
            rows: inner.store.rows(),
            progress: inner.store.progress().clone(),
            settled: inner.settled.clone(),
            log_now_ms: inner.log_clock_ms(),
        }
    }

    /// Notes the ends of the logs: everything in them is done, and responses from now on must be no
    /// older.
    pub fn settle(&self) {
        let mut inner = self.lock();
        inner.settled = inner.log.ends();
    }

    /// Whether nothing is in flight and the store has all of `stock-decisions`.
    pub fn is_quiet(&self) -> bool {
        let inner = self.lock();
        let is_projected = |partition| {
            let end = inner.log.end(Topic::StockDecisions, partition);
            let next = inner
                .store
                .progress()
                .get(&partition)
                .map_or(Offset(0), |at| at.next);
            end == next
        };
        inner.in_flight.is_empty() && (0..inner.log.partitions()).map(Partition).all(is_projected)
    }
}

/// The state at the end of a run.
pub struct EndState {
    /// Partitions of every topic.
    pub partitions: u32,
    /// Every record.
    pub records: BTreeMap<(Topic, Partition), Vec<ports::LogRecord>>,
    /// The acknowledged offset of every append, with its last record's value.
    pub acknowledged: Vec<(Topic, Partition, Offset, bytes::Bytes)>,
    /// Every row of the store.
    pub rows: Vec<Row>,
    /// The store's progress.
    pub progress: BTreeMap<Partition, Progress>,
    /// The ends of the logs when the last reads started; empty when they did not start.
    pub settled: BTreeMap<(Topic, Partition), Offset>,
    /// The log's clock at the end.
    pub log_now_ms: TimestampMs,
}

impl Inner {
    fn frozen_until_ms(&self, node: Node) -> Ms {
        self.frozen_until.get(&node).copied().unwrap_or(0)
    }

    fn chance(&mut self, thousandths: u32) -> bool {
        self.rng.random_range(0..1000) < thousandths
    }

    /// Whether the node's append queue is full now.
    fn queue_is_full(&mut self, node: Node) -> bool {
        let full = self.fault_rates.full;
        if full > 0 && self.chance(full) {
            let until = self.now + self.rng.random_range(1..=MAX_FULL_MS);
            self.full_until.insert(node, until);
        }
        self.full_until
            .get(&node)
            .is_some_and(|until| self.now < *until)
    }

    /// The delay of a call in one direction.
    fn delay_ms(&mut self) -> Ms {
        let FaultRates {
            slow, longest_ms, ..
        } = self.fault_rates;
        match self.chance(slow) {
            true => self.rng.random_range(1..=longest_ms.max(1)),
            false => self.rng.random_range(0..3),
        }
    }

    fn send(&mut self, arrives: Ms, message: Message) {
        self.sent += 1;
        self.in_flight.insert((arrives, self.sent), message);
    }

    fn arrive(&mut self, message: Message) {
        match message {
            Message::Append {
                topic,
                partition,
                records,
                answer,
            } => {
                let mut stamp = self.log_clock_ms();
                if let Some(disk) = &mut self.disk {
                    disk.set_clock(stamp, self.now);
                    stamp = disk.append(topic, partition, &records);
                }
                let last = self.log.append(topic, partition, records, stamp);
                if let Some(answer) = answer
                    && answer.send(Ok(last)).is_ok()
                {
                    self.log.acknowledge(topic, partition, last);
                }
            }
            Message::Rows {
                partition,
                mut rows,
                progress,
                answer,
            } => {
                rows.shuffle(&mut self.rng);
                self.store.write(partition, rows, progress);
                if let Some(answer) = answer {
                    // The sender may have given up.
                    let _ = answer.send(Ok(()));
                }
            }
        }
    }

    /// The time by the log's clock.
    fn log_clock_ms(&self) -> TimestampMs {
        BEGIN_MS + self.now as i64 + self.log_skew_ms
    }

    fn cut_power(&mut self) -> Result<(), String> {
        let in_flight = std::mem::take(&mut self.in_flight);
        let disk = self.disk.take().ok_or("only an embedded log has a disk")?;
        // The writer was writing the largest append in flight when the power failed: it has the most
        // sectors that can be torn apart.
        let appends = in_flight.into_values().filter_map(|message| match message {
            Message::Append {
                topic,
                partition,
                records,
                ..
            } => Some((topic, partition, records)),
            Message::Rows { .. } => None,
        });
        let torn = appends.max_by_key(|(_, _, records)| bytes_of(records));
        let (disk, found) = disk.cut(torn, &mut self.rng)?;
        self.disk = Some(disk);
        self.log.replace(found);
        self.store.restore_snapshot(&mut self.rng);
        Ok(())
    }
}

impl Clock for Connection {
    fn now_ms(&self) -> TimestampMs {
        let inner = self.world.lock();
        let skew = inner.skew_ms.get(&self.node).copied().unwrap_or(0);
        BEGIN_MS + inner.now as i64 + skew
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.world.now())
    }
}

fn bytes_of(records: &[NewRecord]) -> usize {
    records.iter().map(NewRecord::bytes).sum()
}

/// The partitions assigned to a node. A node is in one group, or, with all services in one
/// process, has all partitions in both.
fn assignment(world: &World, node: Node, _group: Group) -> watch::Receiver<BTreeSet<Partition>> {
    let mut inner = world.lock();
    inner.assigned.entry(node).or_default().subscribe()
}

#[cfg(test)]
mod tests {
    use ports::EventLog;

    use super::*;

    #[test]
    fn a_node_finds_the_partitions_that_were_assigned_before_its_start() {
        let world = World::new(1, 1, FaultRates::default(), false);
        let (node, all) = (Node(Role::Decider, 0), BTreeSet::from([Partition(0)]));
        world.assign(node, all.clone());
        let assigned = world.connect(node).assignment(Group::Deciders);
        assert_eq!(*assigned.borrow(), all);
    }
}
