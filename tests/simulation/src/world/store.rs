//! The read store that all nodes share: rows by version, like CQL rows by write timestamp.

use std::collections::{BTreeMap, VecDeque};

use ports::read_store::{AttemptRow, CommandRow, Progress, Row, SaleRow};
use rand::RngExt;
use rand::rngs::StdRng;
use schemas::ids::{AttemptId, BuyerId, Partition, Position, ProductId};

use super::Ms;

/// How often a snapshot is taken, which a power cut restores.
const SNAPSHOT_EVERY_MS: Ms = 200;
/// How many snapshots are kept: the port allows a crash to lose the last few seconds.
const SNAPSHOTS: usize = 10;

/// The store.
#[derive(Default)]
pub(super) struct Store {
    pub tables: Tables,
    /// It does not answer before this time.
    pub unavailable_until: Ms,
    snapshots: VecDeque<Tables>,
    last_snapshot: Ms,
}

/// What the store holds.
#[derive(Default, Clone)]
pub(super) struct Tables {
    pub sales: BTreeMap<ProductId, SaleRow>,
    pub attempts: BTreeMap<AttemptId, AttemptRow>,
    pub orders: BTreeMap<(BuyerId, Position), AttemptRow>,
    pub intents: BTreeMap<(ProductId, Position), AttemptRow>,
    pub commands: BTreeMap<Position, CommandRow>,
    pub progress: BTreeMap<Partition, Progress>,
}

impl Store {
    /// Writes rows and progress by version: lower ones change nothing.
    pub fn write(&mut self, partition: Partition, rows: Vec<Row>, progress: Option<Progress>) {
        let tables = &mut self.tables;
        let version = |row: &AttemptRow| row.version;
        for row in rows {
            match row {
                Row::Sale(row) => put(&mut tables.sales, row.product_id.clone(), row, |row| {
                    row.version
                }),
                Row::Attempt(row) => put(&mut tables.attempts, row.attempt_id, row, version),
                Row::Order(row) => put(
                    &mut tables.orders,
                    (row.buyer_id.clone(), row.position),
                    row,
                    version,
                ),
                Row::Intent(row) => put(
                    &mut tables.intents,
                    (row.product_id.clone(), row.position),
                    row,
                    version,
                ),
                Row::Command(row) => put(&mut tables.commands, row.position, row, |_| 0),
            }
        }
        if let Some(progress) = progress {
            put(&mut tables.progress, partition, progress, |at| at.next);
        }
    }

    pub fn progress(&self) -> &BTreeMap<Partition, Progress> {
        &self.tables.progress
    }

    /// Every row.
    pub fn rows(&self) -> Vec<Row> {
        let Tables {
            sales,
            attempts,
            orders,
            intents,
            commands,
            ..
        } = self.tables.clone();
        let sales = sales.into_values().map(Row::Sale);
        let attempts = attempts.into_values().map(Row::Attempt);
        let orders = orders.into_values().map(Row::Order);
        let intents = intents.into_values().map(Row::Intent);
        let commands = commands.into_values().map(Row::Command);
        let lists = orders.chain(intents).chain(commands);
        sales.chain(attempts).chain(lists).collect()
    }

    /// Takes a snapshot when one is due.
    pub fn take_snapshot(&mut self, now: Ms) {
        if now >= self.last_snapshot + SNAPSHOT_EVERY_MS {
            self.last_snapshot = now;
            self.snapshots.push_back(self.tables.clone());
            if self.snapshots.len() > SNAPSHOTS {
                self.snapshots.pop_front();
            }
        }
    }

    /// Restores one of the last snapshots, rows and progress alike.
    pub fn restore_snapshot(&mut self, rng: &mut StdRng) {
        let snapshots = self.snapshots.len();
        if snapshots > 0 {
            self.tables = self.snapshots[rng.random_range(0..snapshots)].clone();
            self.snapshots.clear();
        }
    }
}

/// Writes a row unless a later version is there.
fn put<K: Ord, R, V: Ord>(table: &mut BTreeMap<K, R>, key: K, row: R, version: impl Fn(&R) -> V) {
    if table
        .get(&key)
        .is_none_or(|existing| version(existing) <= version(&row))
    {
        table.insert(key, row);
    }
}
