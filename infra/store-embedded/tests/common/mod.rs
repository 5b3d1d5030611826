//! Rows that derive from a number, so that a test can check that the file has every row that its
//! progress covers.

use std::collections::BTreeMap;

use ports::ReadStore;
use ports::read_store::{AttemptRow, AttemptStatus, Progress, Row};
use schemas::ids::{AttemptId, Offset, Partition, Position};
use store_embedded::EmbeddedStore;

/// Attempts in a batch. Each attempt is also an order.
pub const BATCH: i64 = 20;

pub fn attempt(partition: u32, number: i64) -> AttemptRow {
    // Spread evenly, as real ids are, and distinct, since the factor is odd.
    let spread = (number as u128 + (u128::from(partition) << 64))
        .wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    AttemptRow {
        attempt_id: AttemptId::from_bytes(spread.to_be_bytes()),
        product_id: format!("product {partition}").parse().unwrap(),
        buyer_id: format!("buyer {}", number % 97).parse().unwrap(),
        quantity: 1,
        position: Position {
            partition: Partition(partition),
            offset: Offset(number),
        },
        status: AttemptStatus::Sold,
        decided_at_ms: number,
        hold_until_ms: None,
        version: number as u64 + 1,
        trace_id: None,
        price: None,
    }
}

pub async fn apply_batch(store: &EmbeddedStore, partition: u32, batch: i64) {
    let mut rows = Vec::new();
    for number in batch * BATCH..(batch + 1) * BATCH {
        let attempt = attempt(partition, number);
        rows.extend([Row::Order(attempt.clone()), Row::Attempt(attempt)]);
    }
    let next = Offset((batch + 1) * BATCH);
    let progress = Progress {
        next,
        claim: Offset(0),
        answered: next,
        log: None,
    };
    store
        .apply(Partition(partition), rows, progress)
        .await
        .unwrap();
}

/// Reads everything and returns how far each partition is. Fails when a row that the progress covers
/// is missing, or differs from what was written.
pub async fn check(store: &EmbeddedStore) -> Result<BTreeMap<u32, i64>, String> {
    let mut found = BTreeMap::new();
    for (partition, progress) in store.progress().await.map_err(|e| e.to_string())? {
        for number in 0..progress.next.0 {
            let expected = attempt(partition.0, number);
            let row = store
                .attempt(expected.attempt_id)
                .await
                .map_err(|e| e.to_string())?;
            if row.as_ref() != Some(&expected) {
                return Err(format!("{partition}:{number} of {progress:?} is {row:?}"));
            }
        }
        found.insert(partition.0, progress.next.0);
    }
    let (mut wrong, mut orders, mut attempts) = (None, 0, 0);
    let (report, counted) = std::sync::mpsc::channel();
    let visit = move |row: Row| {
        let (row, count) = match row {
            Row::Order(row) => (row, &mut orders),
            Row::Attempt(row) => (row, &mut attempts),
            other => {
                wrong = Some(format!("{other:?}"));
                return report.send((orders, attempts, wrong.clone())).is_ok();
            }
        };
        *count += 1;
        if row != attempt(row.position.partition.0, row.position.offset.0) {
            wrong = Some(format!("{row:?}"));
        }
        report.send((orders, attempts, wrong.clone())).is_ok()
    };
    store
        .visit(Box::new(visit))
        .await
        .map_err(|e| e.to_string())?;
    let (orders, attempts, wrong) = counted.iter().last().unwrap_or_default();
    let expected: i64 = found.values().sum();
    match wrong {
        Some(wrong) => Err(wrong),
        None if (orders, attempts) != (expected, expected) => Err(format!(
            "{orders} orders, {attempts} attempts, progress {found:?}"
        )),
        None => Ok(found),
    }
}
