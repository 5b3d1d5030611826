//! What lies outside the services: the log and the store that all nodes share, the time, and
//! each node's line to them. All of it rolls one set of dice, so that a seed repeats a run.
//!
//! What a node sends is a letter on its way. It arrives later or not at all, also when the node
//! that sent it is dead by then, and the node may be told otherwise.

mod connection;
mod disk;
mod log;
mod store;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};
use ports::read_store::{Progress, Row};
use ports::{AppendError, Clock, Group, NewRecord, StoreError};
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use tokio::sync::{oneshot, watch};

pub use self::connection::Connection;
use self::disk::Disk;
use self::log::Log;
use self::store::Store;

/// Milliseconds since a run began.
pub type Ms = u64;

/// The time of day at which every run begins.
pub const BEGIN_MS: TimestampMs = 1_800_000_000_000;

/// What a node is there for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It takes orders.
    Door,
    /// It decides.
    Decider,
    /// It writes the read models.
    Projector,
    /// It answers questions.
    Query,
    /// It is all of these in one process.
    Shop,
}

/// A node by its role and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Node(pub Role, pub usize);

impl fmt::Display for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let role = match self.0 {
            Role::Door => "door",
            Role::Decider => "decider",
            Role::Projector => "projector",
            Role::Query => "query",
            Role::Shop => "shop",
        };
        write!(f, "{role}-{}", self.1)
    }
}

/// How often the lines misbehave, each in thousandths of the calls.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    /// A call waits, on its way there or back.
    pub slow: u32,
    /// The longest such wait.
    pub longest_ms: Ms,
    /// An append or a write fails and never arrives.
    pub lost: u32,
    /// It fails, but arrived.
    pub unsaid: u32,
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
    dice: StdRng,
    weather: Weather,
    log: Log,
    /// What the embedded log has on disk; none when the log is a distributed one.
    disk: Option<Disk>,
    store: Store,
    /// By the time of their arrival, then in the order they were sent.
    letters: BTreeMap<(Ms, u64), Letter>,
    sent: u64,
    /// The last arrival of what a node sent to a place: two appends of one node keep their
    /// order.
    last_arrival: BTreeMap<(Node, Topic, Partition), Ms>,
    frozen_until: BTreeMap<Node, Ms>,
    skew_ms: BTreeMap<Node, i64>,
    log_skew_ms: i64,
    assigned: BTreeMap<Node, watch::Sender<BTreeSet<Partition>>>,
    settled: BTreeMap<(Topic, Partition), Offset>,
}

/// Something on its way.
enum Letter {
    Append {
        topic: Topic,
        partition: Partition,
        records: Vec<NewRecord>,
        answer: Option<oneshot::Sender<Result<Offset, AppendError>>>,
    },
    Rows {
        partition: Partition,
        rows: Vec<Row>,
        /// None when it does not arrive with the rows.
        progress: Option<Progress>,
        answer: Option<oneshot::Sender<Result<(), StoreError>>>,
    },
}

impl World {
    /// A world with an empty log. An embedded one also keeps it on a disk.
    pub fn new(seed: u64, partitions: u32, weather: Weather, embedded: bool) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::new(Inner {
                now: 0,
                dice: StdRng::seed_from_u64(seed),
                weather,
                log: Log::new(partitions),
                disk: embedded.then(|| Disk::new(partitions)),
                store: Store::default(),
                letters: BTreeMap::new(),
                sent: 0,
                last_arrival: BTreeMap::new(),
                frozen_until: BTreeMap::new(),
                skew_ms: BTreeMap::new(),
                log_skew_ms: 0,
                assigned: BTreeMap::new(),
                settled: BTreeMap::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock()
    }

    /// A node's line to the log and the store, and its clock.
    pub fn connect(self: &Arc<Self>, node: Node) -> Arc<Connection> {
        Arc::new(Connection::new(self.clone(), node))
    }

    /// How long the run has gone on.
    pub fn now(&self) -> Ms {
        self.lock().now
    }

    /// Lets time come to `now`: what is due arrives.
    pub fn advance(&self, now: Ms) {
        let mut inner = self.lock();
        inner.now = now;
        inner.store.remember(now);
        while let Some(next) = inner
            .letters
            .first_entry()
            .filter(|next| next.key().0 <= now)
        {
            let letter = next.remove();
            inner.arrive(letter);
        }
    }

    /// From now on the lines are as good as this.
    pub fn set_weather(&self, weather: Weather) {
        self.lock().weather = weather;
    }

    /// Nothing comes from or to the node until then: it is paused, or split off.
    pub fn freeze(&self, node: Node, until: Ms) {
        self.lock().frozen_until.insert(node, until);
    }

    /// Whether the node is frozen.
    pub fn is_frozen(&self, node: Node) -> bool {
        let inner = self.lock();
        inner.thaws_at(node) > inner.now
    }

    /// Steps the clock of a node.
    pub fn step_clock(&self, node: Node, by_ms: i64) {
        *self.lock().skew_ms.entry(node).or_default() += by_ms;
    }

    /// Steps the clock that stamps the records.
    pub fn step_log_clock(&self, by_ms: i64) {
        self.lock().log_skew_ms += by_ms;
    }

    /// The node's clock shows what the log's does.
    pub fn set_clock_right(&self, node: Node) {
        let mut inner = self.lock();
        let log_skew_ms = inner.log_skew_ms;
        inner.skew_ms.insert(node, log_skew_ms);
    }

    /// The store does not answer until then.
    pub fn silence_store(&self, until: Ms) {
        self.lock().store.silent_until = until;
    }

    /// The partitions that the node is a member for.
    pub fn assign(&self, node: Node, partitions: BTreeSet<Partition>) {
        let inner = self.lock();
        if let Some(assigned) = inner.assigned.get(&node) {
            assigned.send_if_modified(|now| {
                let differs = *now != partitions;
                *now = partitions;
                differs
            });
        }
    }

    /// The power of a machine with everything in one process goes: what was on its way is torn
    /// or lost, the disk is as a cut leaves it, and the store has lost its last moments. Fails
    /// when the log cannot be opened on what is left.
    pub fn cut_power(&self) -> Result<(), String> {
        self.lock().cut_power()
    }

    /// What is kept at the end, for the checker.
    pub fn end_state(&self) -> EndState {
        let inner = self.lock();
        EndState {
            partitions: inner.log.partitions(),
            records: inner.log.all(),
            acknowledged: inner.log.acknowledged.clone(),
            rows: inner.store.rows(),
            progress: inner.store.progress().clone(),
            settled: inner.settled.clone(),
            log_now_ms: BEGIN_MS + inner.now as i64 + inner.log_skew_ms,
        }
    }

    /// Notes how far the logs are: all that is in them has come to its end, and what people
    /// are told from now on is no older.
    pub fn settle(&self) {
        let mut inner = self.lock();
        inner.settled = inner.log.ends();
    }

    /// Whether nothing is on its way and the store has all that log 2 has.
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
        inner.letters.is_empty() && (0..inner.log.partitions()).map(Partition).all(is_projected)
    }
}

/// What is kept at the end of a run.
pub struct EndState {
    /// Partitions of every topic.
    pub partitions: u32,
    /// Every record that readers see.
    pub records: BTreeMap<(Topic, Partition), Vec<ports::LogRecord>>,
    /// Every place where an append was told to end, and its last record's value.
    pub acknowledged: Vec<(Topic, Partition, Offset, bytes::Bytes)>,
    /// Every row of the store.
    pub rows: Vec<Row>,
    /// How far the store is.
    pub progress: BTreeMap<Partition, Progress>,
    /// Where the logs ended when people began to ask for the last time; empty when they did not.
    pub settled: BTreeMap<(Topic, Partition), Offset>,
    /// The log's clock at the end.
    pub log_now_ms: TimestampMs,
}

impl Inner {
    fn thaws_at(&self, node: Node) -> Ms {
        self.frozen_until.get(&node).copied().unwrap_or(0)
    }

    fn happens(&mut self, thousandths: u32) -> bool {
        self.dice.random_range(0..1000) < thousandths
    }

    /// How long a call takes one way.
    fn way_ms(&mut self) -> Ms {
        let Weather {
            slow, longest_ms, ..
        } = self.weather;
        match self.happens(slow) {
            true => self.dice.random_range(1..=longest_ms.max(1)),
            false => self.dice.random_range(0..3),
        }
    }

    fn post(&mut self, arrives: Ms, letter: Letter) {
        self.sent += 1;
        self.letters.insert((arrives, self.sent), letter);
    }

    fn arrive(&mut self, letter: Letter) {
        match letter {
            Letter::Append {
                topic,
                partition,
                records,
                answer,
            } => {
                let mut stamp = BEGIN_MS + self.now as i64 + self.log_skew_ms;
                if let Some(disk) = &mut self.disk {
                    // The embedded log lets no partition's time go back.
                    stamp = stamp.max(self.log.last_stamp(topic, partition));
                    disk.append(topic, partition, &records, stamp);
                }
                let last = self.log.append(topic, partition, records, stamp);
                if let Some(answer) = answer
                    && answer.send(Ok(last)).is_ok()
                {
                    self.log.acknowledge(topic, partition, last);
                }
            }
            Letter::Rows {
                partition,
                mut rows,
                progress,
                answer,
            } => {
                rows.shuffle(&mut self.dice);
                self.store.write(partition, rows, progress);
                if let Some(answer) = answer {
                    // Whoever no longer waits does not care.
                    let _ = answer.send(Ok(()));
                }
            }
        }
    }

    fn cut_power(&mut self) -> Result<(), String> {
        let letters = std::mem::take(&mut self.letters);
        let disk = self.disk.take().ok_or("only an embedded log has a disk")?;
        // What the writer was at when the power went: the first append that was on its way.
        let torn = letters.into_values().find_map(|letter| match letter {
            Letter::Append {
                topic,
                partition,
                records,
                ..
            } => Some((topic, partition, records)),
            Letter::Rows { .. } => None,
        });
        // Older than any other: the log lets no partition's time go back.
        let stamp = BEGIN_MS;
        let (disk, found) = disk.cut(torn, stamp, &mut self.dice)?;
        self.disk = Some(disk);
        self.log.replace(found);
        self.store.forget_last(&mut self.dice);
        Ok(())
    }
}

impl Clock for Connection {
    fn now_ms(&self) -> TimestampMs {
        let inner = self.world.lock();
        let skew = inner.skew_ms.get(&self.node).copied().unwrap_or(0);
        BEGIN_MS + inner.now as i64 + skew
    }
}

/// The group's partitions that a node is a member for. A node is in one group, or, with all
/// services in one process, has all partitions in both.
fn assignment(world: &World, node: Node, _group: Group) -> watch::Receiver<BTreeSet<Partition>> {
    let mut inner = world.lock();
    inner.assigned.entry(node).or_default().subscribe()
}
