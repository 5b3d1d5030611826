//! A store under test, and rows to put into it.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use ports::LogMark;
use ports::read_store::{
    AttemptRow, AttemptStatus, CommandOutcome, CommandRow, Progress, ReadStore, Row, SalePhase,
    SaleRow,
};
use schemas::command::SaleTerms;
use schemas::decision::{CommandKind, Stock, Tally};
use schemas::ids::{AttemptId, Money, Offset, Partition, Position, RecordHash};

use super::Open;

/// A store under test, and the directory in which it is kept.
pub(super) struct Subject {
    pub(super) dir: tempfile::TempDir,
    pub(super) open: Open,
    pub(super) store: Option<Arc<dyn ReadStore>>,
}

impl Subject {
    pub(super) fn store(&self) -> &Arc<dyn ReadStore> {
        self.store.as_ref().unwrap()
    }

    /// Closes the store, as dropping it must, and opens it again.
    pub(super) async fn reopen(&mut self) {
        let store = self.store.take().unwrap();
        assert_eq!(Arc::strong_count(&store), 1, "a task still uses the store");
        drop(store);
        self.store = Some((self.open)(self.dir.path()).await);
    }

    pub(super) async fn apply(&self, partition: u32, rows: &[Row], next: i64) {
        let applied = self
            .store()
            .apply(Partition(partition), rows.to_vec(), progress(next));
        assert_eq!(applied.await, Ok(()));
    }

    /// All rows by a text that identifies them.
    pub(super) async fn content(&self) -> BTreeMap<String, Row> {
        let content = Arc::new(Mutex::new(BTreeMap::new()));
        let visited = content.clone();
        let visit = move |row: Row| {
            let before = visited.lock().insert(key(&row), row);
            assert!(before.is_none(), "{before:?} was passed twice");
            true
        };
        self.store().visit(Box::new(visit)).await.unwrap();
        let content = content.lock();
        content.clone()
    }
}

/// The rows that remain after these writes: the highest version of each.
pub(super) fn content_of<'a>(rows: impl IntoIterator<Item = &'a Row>) -> BTreeMap<String, Row> {
    let version = |row: &Row| match row {
        Row::Sale(row) => row.version,
        Row::Attempt(row) | Row::Order(row) | Row::Intent(row) => row.version,
        Row::Command(_) => 1,
    };
    let mut content: BTreeMap<String, Row> = BTreeMap::new();
    for row in rows {
        let highest = content.entry(key(row)).or_insert_with(|| row.clone());
        if version(row) > version(highest) {
            *highest = row.clone();
        }
    }
    content
}

/// Asserts that two contents are the same, and names the first row that differs instead of printing
/// both.
pub(super) fn assert_same(found: &BTreeMap<String, Row>, expected: &BTreeMap<String, Row>) {
    for key in found.keys().chain(expected.keys()) {
        assert_eq!(found.get(key), expected.get(key), "{key}");
    }
}

fn key(row: &Row) -> String {
    match row {
        Row::Sale(row) => format!("sale {}", row.product_id),
        Row::Attempt(row) => format!("attempt {}", row.attempt_id),
        Row::Order(row) => format!("order {} {}", row.buyer_id, row.position),
        Row::Intent(row) => format!("intent {} {}", row.product_id, row.position),
        Row::Command(row) => format!("command {}", row.position),
    }
}

pub(super) fn id<I: std::str::FromStr<Err: std::fmt::Debug>>(text: &str) -> I {
    text.parse().unwrap()
}

pub(super) fn attempt_id(number: u64) -> AttemptId {
    // Spread as real ids are, so that the order of the ids differs from that of the numbers.
    let spread = u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    AttemptId::from_bytes(spread.to_be_bytes())
}

pub(super) fn attempt(product: &str, buyer: &str, number: i64, version: u64) -> AttemptRow {
    AttemptRow {
        attempt_id: attempt_id(number as u64),
        product_id: id(product),
        buyer_id: id(buyer),
        quantity: 1,
        position: Position {
            partition: Partition(0),
            offset: Offset(number),
        },
        status: AttemptStatus::Sold,
        decided_at_ms: 1_790_000_000_000 + number % 1000,
        hold_until_ms: None,
        version,
        trace_id: None,
        price: (number % 2 == 0).then(|| Money {
            minor: 1999 + number,
            currency: "GBP".into(),
        }),
    }
}

pub(super) fn command(partition: u32, offset: i64) -> CommandRow {
    CommandRow {
        position: Position {
            partition: Partition(partition),
            offset: Offset(offset),
        },
        product_id: Some(id("lamp")),
        kind: Some(CommandKind::SetStock),
        buyer_id: None,
        attempt_id: None,
        quantity: None,
        outcome: CommandOutcome::Done,
        decided_at_ms: 1_790_000_000_000 + offset % 1000,
        trace_id: None,
    }
}

pub(super) fn sale(product: &str, version: u64) -> SaleRow {
    SaleRow {
        product_id: id(product),
        version,
        round: 1,
        terms: SaleTerms {
            name: "Lamp, à la mode".into(),
            price: Money {
                minor: 1999,
                currency: "GBP".into(),
            },
            stock: 100,
            limit_per_buyer: None,
            hold_ms: None,
            opens_at_ms: -5,
            closes_at_ms: None,
        },
        phase: SalePhase::Open,
        stock: Stock {
            total: 100,
            available: 97,
            reserved: 1,
            sold: 2,
        },
        tally: Tally {
            accepted: version,
            refused: 1 << 40,
            cancelled: 0,
            expired: 3,
        },
        decided_at_ms: 1_790_000_000_000,
        sale_version: (!version.is_multiple_of(3)).then_some(version),
    }
}

pub(super) fn progress(next: i64) -> Progress {
    Progress {
        next: Offset(next),
        claim: Offset(0),
        answered: Offset(next - 1),
        log: Some(mark(next)),
    }
}

/// The mark of a log at the record before `next`.
pub(super) fn mark(next: i64) -> LogMark {
    let hash = |value: &[u8]| RecordHash::of(Offset(next), 0, value);
    LogMark {
        log: hash(b"first"),
        offset: Offset(next - 1),
        record: hash(b"last"),
    }
}
