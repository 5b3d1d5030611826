//! Which of several writes of a row remains.

use ports::ReadStore;
use ports::read_store::{AttemptStatus, Row};
use schemas::decision::ReleaseCause;
use schemas::ids::{Offset, Partition};

use crate::support::{Keyspace, apply, attempt, progress, sale};

/// In whatever order versions are written, in one call or several, the highest remains, complete.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_highest_version_remains() {
    let keyspace = Keyspace::new().await;
    let store = keyspace.store().await;
    let rows = |product: &str, offset: i64, version: u64| {
        let mut attempt = attempt(0, offset, version);
        attempt.product_id = product.parse().unwrap();
        attempt.quantity = 10 - version as u32;
        // The highest version has the fewest values, so that values of other versions would show.
        if version < 3 {
            attempt.hold_until_ms = Some(version as i64);
            attempt.status = AttemptStatus::Released(ReleaseCause::Expired);
        }
        let mut sale = sale(product, version);
        sale.terms.limit_per_buyer = (version < 3).then_some(7);
        sale.terms.hold_ms = (version < 3).then_some(0);
        sale.terms.closes_at_ms = (version < 3).then_some(-1);
        [
            Row::Order(attempt.clone()),
            Row::Intent(attempt.clone()),
            Row::Attempt(attempt),
            Row::Sale(sale),
        ]
    };
    let orders = [
        [1, 2, 3],
        [1, 3, 2],
        [2, 1, 3],
        [2, 3, 1],
        [3, 1, 2],
        [3, 2, 1],
    ];
    for (n, versions) in (0..).zip(orders) {
        for in_one_call in [false, true] {
            let product = format!("lamp {n} {in_one_call}");
            let offset = n * 2 + i64::from(in_one_call);
            let calls = versions.map(|version| rows(&product, offset, version));
            match in_one_call {
                true => apply(&store, &calls.concat(), 1).await,
                false => {
                    for call in calls {
                        apply(&store, &call, 1).await;
                    }
                }
            }
            let [Row::Order(attempt), _, _, Row::Sale(sale)] = rows(&product, offset, 3) else {
                unreachable!()
            };
            let product = &sale.product_id;
            assert_eq!(
                store.sale(product).await,
                Ok(Some(sale.clone())),
                "{versions:?}"
            );
            let found = store.attempt(attempt.attempt_id).await;
            assert_eq!(found, Ok(Some(attempt.clone())), "{versions:?}");
            let intents = store.intents(product, None, 10).await;
            assert_eq!(intents, Ok(vec![attempt.clone()]), "{versions:?}");
            let orders = store.orders(&attempt.buyer_id, None, 500).await.unwrap();
            assert_eq!(orders.last(), Some(&attempt), "{versions:?}");
            assert_eq!(orders.len() as i64, offset + 1);
        }
    }
    drop(store);
    keyspace.drop().await;
}

/// A projector that is behind another does not undo the other's progress.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn progress_does_not_go_back() {
    let keyspace = Keyspace::new().await;
    let store = keyspace.store().await;
    for (next, expected) in [(5, 5), (3, 5), (5, 5), (7, 7), (6, 7)] {
        apply(&store, &[], next).await;
        let found = store.progress().await.unwrap();
        assert_eq!(
            found.get(&Partition(0)),
            Some(&progress(expected)),
            "{next}"
        );
    }
    drop(store);
    keyspace.drop().await;
}

/// Nodes refuse write times in the future, so versions are limited.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_above_the_limit_is_refused() {
    let keyspace = Keyspace::new().await;
    let store = keyspace.store().await;
    for (version, taken) in [(1 << 50, true), ((1 << 50) + 1, false), (u64::MAX, false)] {
        let row = Row::Sale(sale("lamp", version));
        let applied = store.apply(Partition(0), vec![row], progress(1)).await;
        assert_eq!(applied.is_ok(), taken, "{version}: {applied:?}");
        if let Err(refused) = applied {
            assert!(
                refused.to_string().contains(&version.to_string()),
                "{refused}"
            );
        }
    }
    let found = store.sale(&"lamp".parse().unwrap()).await.unwrap();
    assert_eq!(found.map(|sale| sale.version), Some(1 << 50));
    // Nor does progress use write times in the future, however high the offset.
    let far = progress(i64::MAX);
    assert_eq!(store.apply(Partition(1), vec![], far).await, Ok(()));
    let times = keyspace
        .cql("SELECT WRITETIME(next_offset) FROM ks.progress WHERE scope = 'stock-decisions'")
        .await;
    let times = times.into_rows_result().unwrap();
    let times: Vec<(i64,)> = times.rows().unwrap().map(Result::unwrap).collect();
    assert_eq!(times, [(1,), (1 << 50,)]);
    assert_eq!(
        store.progress().await.unwrap()[&Partition(1)].next,
        Offset(i64::MAX)
    );
    drop(store);
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_cannot_be_decoded_is_named() {
    let keyspace = Keyspace::new().await;
    let store = keyspace.store().await;
    let attempt = attempt(0, 1, 1);
    let rows = [Row::Attempt(attempt.clone()), Row::Sale(sale("lamp", 1))];
    apply(&store, &rows, 1).await;
    let id = attempt.attempt_id;
    keyspace
        .cql(&format!(
            "UPDATE ks.attempts SET reason = 'because' WHERE attempt_id = {id}"
        ))
        .await;
    let failed = store.attempt(id).await.unwrap_err().to_string();
    assert!(failed.contains(&id.to_string()), "{failed}");
    let bucket = keyspace.cql("SELECT bucket FROM ks.sales").await;
    let (bucket,): (i32,) = bucket.into_rows_result().unwrap().single_row().unwrap();
    keyspace
        .cql(&format!(
            "UPDATE ks.sales SET stock = -1 WHERE bucket = {bucket} AND product_id = 'lamp'"
        ))
        .await;
    let failed = store.sale(&"lamp".parse().unwrap()).await.unwrap_err();
    assert!(failed.to_string().contains("\"lamp\""), "{failed}");
    assert!(store.visit(Box::new(|_| true)).await.is_err());
    drop(store);
    keyspace.drop().await;
}
