//! Lists and visits: order, pages, owners.

use std::sync::Arc;

use parking_lot::Mutex;
use ports::read_store::{AttemptRow, AttemptStatus, MAX_PAGE, Row, SaleRow};
use schemas::decision::ReleaseCause;
use schemas::ids::{Offset, Partition, Position};

use super::subject::{Subject, attempt, id, sale};

pub(super) async fn lists_are_paged(subject: &mut Subject) {
    // Written in descending order: every second row before the store is reopened, and some of those
    // again afterwards, so that a page merges rows from disk and memory.
    let offsets = [
        0,
        1,
        9,
        10,
        255,
        256,
        257,
        65_535,
        65_536,
        1 << 32,
        i64::MAX,
    ];
    let mut expected = Vec::new();
    for partition in [0, 1, 2, 255, 256, u32::MAX] {
        for offset in offsets {
            let mut attempt = attempt("lamp", "ann", offset, 5);
            attempt.position.partition = Partition(partition);
            expected.push(attempt);
        }
    }
    let rows = |attempts: Vec<AttemptRow>| {
        let both = |a: AttemptRow| [Row::Order(a.clone()), Row::Intent(a)];
        attempts
            .into_iter()
            .rev()
            .flat_map(both)
            .collect::<Vec<_>>()
    };
    let odd = expected.iter().skip(1).step_by(2).cloned().collect();
    subject.apply(0, &rows(odd), 1).await;
    subject.reopen().await;
    for attempt in expected.iter_mut().step_by(3) {
        attempt.version = 6;
        attempt.status = AttemptStatus::Released(ReleaseCause::Expired);
    }
    let changed: Vec<_> = expected.iter().step_by(3).cloned().collect();
    let even: Vec<_> = expected.iter().step_by(2).cloned().collect();
    subject.apply(0, &rows([even, changed].concat()), 2).await;

    for _ in 0..2 {
        for limit in [1, 2, 7, expected.len(), expected.len() + 1] {
            let (mut orders, mut intents) = (Vec::new(), Vec::new());
            for page in expected.chunks(limit) {
                let after = orders.last().map(|row: &AttemptRow| row.position);
                let found = subject
                    .store()
                    .orders(&id("ann"), after, limit)
                    .await
                    .unwrap();
                assert_eq!(found.len(), page.len());
                orders.extend(found);
                let found = subject
                    .store()
                    .intents(&id("lamp"), after, limit)
                    .await
                    .unwrap();
                intents.extend(found);
            }
            assert_eq!(orders, expected, "{limit}");
            assert_eq!(intents, expected, "{limit}");
            let after = orders.last().map(|row| row.position);
            assert_eq!(
                subject.store().orders(&id("ann"), after, limit).await,
                Ok(vec![])
            );
        }
        // A list also continues after a position that no row has.
        let after = Position {
            partition: Partition(0),
            offset: Offset(2),
        };
        let found = subject.store().orders(&id("ann"), Some(after), 1).await;
        assert_eq!(found, Ok(vec![expected[2].clone()]));
        assert_eq!(
            subject.store().orders(&id("ann"), None, 0).await,
            Ok(vec![])
        );
        assert_eq!(
            subject.store().intents(&id("lamp"), None, 0).await,
            Ok(vec![])
        );
        subject.reopen().await;
    }
}

pub(super) async fn pages_are_capped(subject: &mut Subject) {
    let mut rows = Vec::new();
    for number in 0..MAX_PAGE as i64 + 1 {
        let attempt = attempt("lamp", "ann", number, 1);
        rows.extend([Row::Order(attempt.clone()), Row::Intent(attempt)]);
        rows.push(Row::Sale(sale(&format!("product {number}"), 1)));
    }
    subject.apply(0, &rows, 1).await;
    for _ in 0..2 {
        let store = subject.store();
        for limit in [MAX_PAGE + 1, usize::MAX] {
            assert_eq!(
                store.orders(&id("ann"), None, limit).await.unwrap().len(),
                MAX_PAGE
            );
            assert_eq!(
                store.intents(&id("lamp"), None, limit).await.unwrap().len(),
                MAX_PAGE
            );
            assert_eq!(store.sales(None, limit).await.unwrap().len(), MAX_PAGE);
        }
        subject.reopen().await;
    }
}

pub(super) async fn owners_are_apart(subject: &mut Subject) {
    let owners = ["a", "a b", "a-b", "ab", "abc", "A", "b", &"a".repeat(64)];
    let mut rows = Vec::new();
    for (n, owner) in owners.iter().enumerate() {
        for number in 0..3 {
            let mut attempt = attempt(owner, owner, number, 1);
            attempt.quantity = 1 + n as u32;
            rows.extend([Row::Order(attempt.clone()), Row::Intent(attempt)]);
        }
    }
    subject.apply(0, &rows, 1).await;
    for _ in 0..2 {
        for (n, owner) in owners.iter().enumerate() {
            let owners_and_offsets = |rows: Vec<AttemptRow>| {
                rows.iter()
                    .map(|row| (row.quantity as usize, row.position.offset.0))
                    .collect()
            };
            let own: Vec<_> = (0..3).map(|number| (1 + n, number)).collect();
            let orders: Vec<_> =
                owners_and_offsets(subject.store().orders(&id(owner), None, 10).await.unwrap());
            assert_eq!(orders, own, "{owner:?}");
            let intents: Vec<_> =
                owners_and_offsets(subject.store().intents(&id(owner), None, 10).await.unwrap());
            assert_eq!(intents, own, "{owner:?}");
        }
        for none in ["a ba", "aa", "B"] {
            assert_eq!(
                subject.store().orders(&id(none), None, 10).await,
                Ok(vec![])
            );
        }
        subject.reopen().await;
    }
}

pub(super) async fn sales_by_product(subject: &mut Subject) {
    let mut products = ["b", "a", "ab", "a b", "A", "a-b", "a9", "a10"];
    let rows: Vec<_> = products
        .iter()
        .map(|product| Row::Sale(sale(product, 1)))
        .collect();
    subject.apply(0, &rows[..4], 1).await;
    subject.reopen().await;
    subject.apply(0, &rows[4..], 2).await;
    products.sort();
    for _ in 0..2 {
        for limit in [1, 3, 8, 9] {
            let mut found = Vec::new();
            for _ in products.chunks(limit) {
                let after = found.last().map(|sale: &SaleRow| sale.product_id.clone());
                found.extend(subject.store().sales(after.as_ref(), limit).await.unwrap());
            }
            assert_eq!(found, products.map(|product| sale(product, 1)), "{limit}");
        }
        assert_eq!(subject.store().sales(Some(&id("b")), 10).await, Ok(vec![]));
        let after_none_of_them = subject.store().sales(Some(&id("aa")), 1).await;
        assert_eq!(after_none_of_them, Ok(vec![sale("ab", 1)]));
        assert_eq!(subject.store().sales(None, 0).await, Ok(vec![]));
        subject.reopen().await;
    }
}

pub(super) async fn visits_stop(subject: &mut Subject) {
    let mut rows = Vec::new();
    for number in 0..700 {
        let attempt = attempt("lamp", "ann", number, 1);
        rows.extend([Row::Attempt(attempt.clone()), Row::Order(attempt)]);
    }
    subject.apply(0, &rows[..800], 1).await;
    subject.reopen().await;
    subject.apply(0, &rows[600..], 2).await;
    for _ in 0..2 {
        // `content` panics at a row that is passed twice.
        assert_eq!(subject.content().await.len(), rows.len());
        for stop_at in [1, 2, 600, 1_400] {
            let visited = Arc::new(Mutex::new(0));
            let count = visited.clone();
            let visit = move |_| {
                *count.lock() += 1;
                *count.lock() < stop_at
            };
            subject.store().visit(Box::new(visit)).await.unwrap();
            assert_eq!(*visited.lock(), stop_at);
        }
        subject.reopen().await;
    }
}
