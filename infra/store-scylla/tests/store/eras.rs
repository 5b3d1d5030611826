//! How lists are split into partitions by era, and merged again.

use std::collections::BTreeSet;

use ports::ReadStore;
use ports::read_store::{AttemptRow, Row};
use schemas::ids::{Offset, Partition, Position};
use store_scylla::ScyllaStore;

use crate::support::{Keyspace, apply, attempt};

/// Rows on both sides of the boundaries of eras, and in distant eras, in several log partitions.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_span_eras() {
    let keyspace = Keyspace::new().await;
    let store = keyspace.store().await;
    let era = 65_536;
    let mut expected = Vec::new();
    for partition in [0, 1, 7] {
        for offset in [0, era - 1, era, 2 * era - 1, 2 * era, 9 * era + 1, 1 << 40] {
            expected.push(attempt(partition, offset, 1));
        }
    }
    let rows = |attempts: &[AttemptRow]| {
        let both = |a: &AttemptRow| [Row::Order(a.clone()), Row::Intent(a.clone())];
        attempts.iter().flat_map(both).collect::<Vec<_>>()
    };
    // Written in two calls by two writers; the second one must list the eras as well.
    apply(&store, &rows(&expected[10..]), 1).await;
    let second = keyspace.store().await;
    apply(&second, &rows(&expected[..10]), 1).await;

    for limit in [1, 2, 3, 20, 21, 22] {
        assert_eq!(
            all_orders(&store, limit).await,
            expected,
            "pages of {limit}"
        );
    }
    let (ann, lamp) = ("ann".parse().unwrap(), "lamp".parse().unwrap());
    assert_eq!(store.intents(&lamp, None, 500).await, Ok(expected.clone()));
    // From the middle of an era, from between eras, and from after the last row of a partition.
    for (partition, offset) in [
        (0, era),
        (0, era + 5),
        (0, 5 * era),
        (1, (1 << 40) + 1),
        (3, 3),
    ] {
        let after = Position {
            partition: Partition(partition),
            offset: Offset(offset),
        };
        let rest = expected.iter().filter(|row| row.position > after).cloned();
        assert_eq!(
            store.orders(&ann, Some(after), 500).await,
            Ok(rest.collect()),
            "{after}"
        );
    }

    let cql = "SELECT log_partition, era, log_offset FROM ks.orders";
    let rows = keyspace.cql(cql).await.into_rows_result().unwrap();
    let mut eras = BTreeSet::new();
    for row in rows.rows::<(i64, i64, i64)>().unwrap() {
        let (partition, number, offset) = row.unwrap();
        assert_eq!(number, offset / era);
        eras.insert((partition, number));
    }
    assert_eq!(eras.len(), 15, "three partitions with five eras each");
    let cql = "SELECT log_partition, era FROM ks.order_eras WHERE buyer_id = 'ann'";
    let listed = keyspace.cql(cql).await.into_rows_result().unwrap();
    let listed: BTreeSet<(i64, i64)> = listed.rows().unwrap().map(Result::unwrap).collect();
    assert_eq!(listed, eras);
    drop((store, second));
    keyspace.drop().await;
}

/// More eras than one query returns, with one row in each.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_span_many_eras() {
    let keyspace = Keyspace::new().await;
    let store = keyspace.store().await;
    let expected: Vec<_> = (0..200).map(|era| attempt(0, era << 16, 1)).collect();
    let rows: Vec<_> = expected.iter().cloned().map(Row::Order).collect();
    apply(&store, &rows, 1).await;
    for limit in [63, 64, 65, 200, 201] {
        assert_eq!(
            all_orders(&store, limit).await,
            expected,
            "pages of {limit}"
        );
    }
    drop(store);
    keyspace.drop().await;
}

/// Each writer lists an era once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_writer_lists_an_era_once() {
    let keyspace = Keyspace::new().await;
    let store = keyspace.store().await;
    let listed = async || {
        let rows = keyspace.cql("SELECT era FROM ks.order_eras").await;
        rows.into_rows_result().unwrap().rows_num()
    };
    apply(&store, &[Row::Order(attempt(0, 1, 1))], 1).await;
    assert_eq!(listed().await, 1);
    keyspace.cql("TRUNCATE ks.order_eras").await;
    apply(&store, &[Row::Order(attempt(0, 2, 1))], 2).await;
    assert_eq!(listed().await, 0, "the same writer does not list it again");
    let other = keyspace.store().await;
    apply(&other, &[Row::Order(attempt(0, 3, 1))], 3).await;
    assert_eq!(listed().await, 1);
    drop((store, other));
    keyspace.drop().await;
}

async fn all_orders(store: &ScyllaStore, limit: usize) -> Vec<AttemptRow> {
    let mut found: Vec<AttemptRow> = Vec::new();
    loop {
        let after = found.last().map(|row| row.position);
        let buyer = "ann".parse().unwrap();
        let page = store.orders(&buyer, after, limit).await.unwrap();
        let last = page.len() < limit;
        found.extend(page);
        if last {
            return found;
        }
    }
}
