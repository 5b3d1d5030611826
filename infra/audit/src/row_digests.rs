//! Compares two read stores in bounded memory: first a digest for each stretch of positions in a
//! partition, then the rows of the first stretch whose digests differ.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use ports::read_store::Row;
use ports::{ReadStore, StoreError};
use schemas::ids::{Offset, Partition, Position, ProductId};
use sha2::{Digest, Sha256};

use crate::report::RowDigest;

/// How many positions share a digest. So many rows of a kind are in memory when a digest differs.
const STRETCH: i64 = 4_096;

/// Whether a row is compared.
pub(super) type RowFilter = Arc<dyn Fn(&Row) -> bool + Send + Sync>;

/// The kinds of rows, in the order in which differences are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Kind {
    Sales,
    Attempts,
    Orders,
    Intents,
    Commands,
}

/// A stretch of positions in one kind of rows; all sales are in one stretch.
pub(super) type Stretch = (Kind, Partition, i64);

/// Count and digest of all rows of a store, by stretch.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Digests(BTreeMap<Stretch, Sum>);

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Sum {
    count: u64,
    lanes: [u64; 4],
}

/// A row that is not the same in both stores.
#[derive(Debug)]
pub(super) struct Difference {
    /// `None` for a record that was skipped.
    pub(super) product: Option<ProductId>,
    /// The position of the attempt or the command; `None` for a sale.
    pub(super) position: Option<Position>,
    /// The key of the row and how the row differs.
    pub(super) what: String,
}

impl Digests {
    /// Reads the whole store.
    pub(super) async fn of(store: &dyn ReadStore, filter: RowFilter) -> Result<Self, StoreError> {
        let digests = Arc::new(Mutex::new(Self::default()));
        let filled = digests.clone();
        let add = move |row: Row| {
            if filter(&row) {
                let hash = Sha256::digest(canonical(&row));
                let mut digests = lock(&filled);
                digests.0.entry(stretch(&row)).or_default().add(&hash);
            }
            true
        };
        store.visit(Box::new(add)).await?;
        let mut digests = lock(&digests);
        Ok(std::mem::take(&mut *digests))
    }

    /// The digests of whole kinds, by name.
    pub(super) fn by_kind(&self) -> BTreeMap<&'static str, RowDigest> {
        let mut sums = BTreeMap::new();
        for kind in Kind::ALL {
            sums.insert(kind.name(), Sum::default());
        }
        for ((kind, ..), part) in &self.0 {
            let sum: &mut Sum = sums.entry(kind.name()).or_default();
            sum.count += part.count;
            sum.add_lanes(part.lanes);
        }
        let digests = sums.into_iter().map(|(name, Sum { count, lanes })| {
            let digest = lanes.iter().map(|lane| format!("{lane:016x}")).collect();
            (name, RowDigest { count, digest })
        });
        digests.collect()
    }

    /// The first stretch in which two stores differ.
    pub(super) fn first_difference(&self, other: &Self) -> Option<Stretch> {
        let differs = |stretch: &&Stretch| self.0.get(stretch) != other.0.get(stretch);
        self.0
            .keys()
            .chain(other.0.keys())
            .filter(differs)
            .min()
            .copied()
    }
}

/// The first row in a stretch that is not the same in both stores, of which `expected` has what
/// should be there; `None` if all are the same.
pub(super) async fn first_in(
    stretch_at: Stretch,
    expected: &dyn ReadStore,
    found: &dyn ReadStore,
    filter: RowFilter,
) -> Result<Option<Difference>, StoreError> {
    let rows = Arc::new(Mutex::new(BTreeMap::<String, Row>::new()));
    let (filled, its_filter) = (rows.clone(), filter.clone());
    let keep = move |row: Row| {
        if its_filter(&row) && stretch(&row) == stretch_at {
            lock(&filled).insert(key(&row), row);
        }
        true
    };
    expected.visit(Box::new(keep)).await?;

    let first = Arc::new(Mutex::new(None::<Mismatch>));
    let (expected_rows, least) = (rows.clone(), first.clone());
    let compare = move |row: Row| {
        if !filter(&row) || kind(&row) != stretch_at.0 {
            return true;
        }
        let expected = lock(&expected_rows).remove(&key(&row));
        let differs = match &expected {
            Some(expected) => *expected != row,
            None => stretch(&row) == stretch_at,
        };
        if differs {
            let found = Some(row);
            keep_first(&mut lock(&least), Mismatch { expected, found });
        }
        true
    };
    found.visit(Box::new(compare)).await?;

    let mut first = lock(&first).take();
    let missing = std::mem::take(&mut *lock(&rows));
    for row in missing.into_values() {
        let expected = Some(row);
        let found = None;
        keep_first(&mut first, Mismatch { expected, found });
    }
    Ok(first.and_then(Mismatch::difference))
}

/// Locks the mutex. A visitor that panicked has left nothing half changed.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// A row as it should be and as it was found; one of them may be missing.
struct Mismatch {
    expected: Option<Row>,
    found: Option<Row>,
}

fn keep_first(first: &mut Option<Mismatch>, mismatch: Mismatch) {
    if first
        .as_ref()
        .is_none_or(|first| mismatch.sort_key() < first.sort_key())
    {
        *first = Some(mismatch);
    }
}

impl Mismatch {
    fn sort_key(&self) -> Option<(Option<Position>, String)> {
        let row = self.expected.as_ref().or(self.found.as_ref());
        row.map(|row| (position(row), key(row)))
    }

    fn difference(self) -> Option<Difference> {
        let row = self.expected.as_ref().or(self.found.as_ref())?;
        let key = key(row);
        let show = |row| String::from_utf8_lossy(&canonical(row)).into_owned();
        let what = match (&self.expected, &self.found) {
            (Some(expected), Some(found)) => {
                let (expected, found) = (show(expected), show(found));
                format!("the row of {key} should be {expected}, but is {found}")
            }
            (Some(expected), None) => {
                let expected = show(expected);
                format!("the row of {key} is missing; it should be {expected}")
            }
            (None, found) => {
                let found = found.as_ref().map(show).unwrap_or_default();
                format!("there should be no row of {key}, but there is {found}")
            }
        };
        Some(Difference {
            product: product(row).cloned(),
            position: position(row),
            what,
        })
    }
}

impl Sum {
    fn add(&mut self, hash: &[u8]) {
        self.count += 1;
        let mut lanes = [0; 4];
        for (lane, bytes) in lanes.iter_mut().zip(hash.as_chunks().0) {
            *lane = u64::from_be_bytes(*bytes);
        }
        self.add_lanes(lanes);
    }

    fn add_lanes(&mut self, lanes: [u64; 4]) {
        for (sum, lane) in self.lanes.iter_mut().zip(lanes) {
            *sum = sum.wrapping_add(lane);
        }
    }
}

impl Kind {
    const ALL: [Self; 5] = [
        Self::Sales,
        Self::Attempts,
        Self::Orders,
        Self::Intents,
        Self::Commands,
    ];

    fn name(self) -> &'static str {
        match self {
            Kind::Sales => "sales",
            Kind::Attempts => "attempts",
            Kind::Orders => "orders",
            Kind::Intents => "intents",
            Kind::Commands => "commands",
        }
    }
}

/// A row as bytes: its JSON, whose fields stand in the order of their declaration.
fn canonical(row: &Row) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows have texts for keys, and nothing else makes JSON fail")
}

fn position(row: &Row) -> Option<Position> {
    match row {
        Row::Sale(_) => None,
        Row::Attempt(row) | Row::Order(row) | Row::Intent(row) => Some(row.position),
        Row::Command(row) => Some(row.position),
    }
}

/// The product of a row; `None` for a record that was skipped.
pub(super) fn product(row: &Row) -> Option<&ProductId> {
    match row {
        Row::Sale(sale) => Some(&sale.product_id),
        Row::Attempt(row) | Row::Order(row) | Row::Intent(row) => Some(&row.product_id),
        Row::Command(row) => row.product_id.as_ref(),
    }
}

fn kind(row: &Row) -> Kind {
    match row {
        Row::Sale(_) => Kind::Sales,
        Row::Attempt(_) => Kind::Attempts,
        Row::Order(_) => Kind::Orders,
        Row::Intent(_) => Kind::Intents,
        Row::Command(_) => Kind::Commands,
    }
}

fn stretch(row: &Row) -> Stretch {
    let start = Position {
        partition: Partition(0),
        offset: Offset(0),
    };
    let Position { partition, offset } = position(row).unwrap_or(start);
    (kind(row), partition, offset.0.div_euclid(STRETCH))
}

/// What the row is identified by.
fn key(row: &Row) -> String {
    match row {
        Row::Sale(row) => format!("sale {}", row.product_id),
        Row::Attempt(row) => format!("attempt {}", row.attempt_id),
        Row::Order(row) => format!("order {} {}", row.buyer_id, row.position),
        Row::Intent(row) => format!("intent {} {}", row.product_id, row.position),
        Row::Command(row) => format!("command {}", row.position),
    }
}
