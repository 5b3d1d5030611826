//! What `apply` promises: rows by version, then progress.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use ports::read_store::{
    AttemptStatus, CommandOutcome, CommandRefusal, CommandRow, MAX_PAGE, Progress, Row, SalePhase,
};
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use schemas::decision::{CommandKind, RefusalReason, ReleaseCause};
use schemas::ids::{Offset, Partition, Position, TraceId};

use super::subject::{
    Subject, assert_same, attempt, attempt_id, command, content_of, id, mark, progress, sale,
};

pub(super) async fn rows_read_as_written(subject: &mut Subject) {
    let mut rows = Vec::new();
    let phases = [
        SalePhase::Scheduled,
        SalePhase::Open,
        SalePhase::Paused,
        SalePhase::Closed,
    ];
    for (n, phase) in phases.into_iter().enumerate() {
        let mut sale = sale(&format!("product {n}"), 1 + n as u64);
        sale.phase = phase;
        if n == 0 {
            sale.terms.limit_per_buyer = Some(u32::MAX);
            sale.terms.hold_ms = Some(600_000);
            sale.terms.closes_at_ms = Some(i64::MAX);
            // More decisions than any product will have.
            sale.version = 1 << 50;
        }
        if n == 2 {
            sale.terms.limit_per_buyer = Some(0);
            sale.terms.hold_ms = Some(0);
            sale.terms.closes_at_ms = Some(-1);
        }
        rows.push(Row::Sale(sale));
    }
    let refused = RefusalReason::ALL
        .iter()
        .map(|reason| AttemptStatus::Refused(*reason));
    let released = ReleaseCause::ALL
        .iter()
        .map(|cause| AttemptStatus::Released(*cause));
    let statuses = [AttemptStatus::Reserved, AttemptStatus::Sold].into_iter();
    for (n, status) in statuses.chain(refused).chain(released).enumerate() {
        let mut attempt = attempt("lamp", "ann", n as i64, 7);
        attempt.status = status;
        attempt.quantity = u32::MAX - n as u32;
        attempt.hold_until_ms = [None, Some(-1), Some(0)][n % 3];
        attempt.trace_id = TraceId::from_bytes([n as u8; 16]);
        rows.extend([Row::Attempt(attempt.clone()), Row::Order(attempt.clone())]);
        rows.push(Row::Intent(attempt));
    }
    rows.extend(commands().into_iter().map(Row::Command));
    subject.apply(0, &rows, 1).await;

    for _ in 0..2 {
        for row in &rows {
            match row {
                Row::Sale(sale) => {
                    let found = subject.store().sale(&sale.product_id).await;
                    assert_eq!(found, Ok(Some(sale.clone())));
                }
                Row::Attempt(attempt) => {
                    let found = subject.store().attempt(attempt.attempt_id).await;
                    assert_eq!(found, Ok(Some(attempt.clone())));
                }
                Row::Command(command) => {
                    let found = subject.store().command(command.position).await;
                    assert_eq!(found, Ok(Some(command.clone())));
                }
                Row::Order(_) | Row::Intent(_) => {}
            }
        }
        let orders = rows.iter().filter_map(|row| match row {
            Row::Order(attempt) => Some(attempt.clone()),
            _ => None,
        });
        let attempts: Vec<_> = orders.collect();
        let orders = subject.store().orders(&id("ann"), None, MAX_PAGE).await;
        assert_eq!(orders.as_ref(), Ok(&attempts));
        let intents = subject.store().intents(&id("lamp"), None, MAX_PAGE).await;
        assert_eq!(intents.as_ref(), Ok(&attempts));
        assert_same(&subject.content().await, &content_of(&rows));
        subject.reopen().await;
    }
}

/// A command of every kind and of every outcome, with each field there and not there.
fn commands() -> Vec<CommandRow> {
    let refusals = CommandRefusal::all().map(CommandOutcome::Refused);
    let outcomes: Vec<_> = [CommandOutcome::Done].into_iter().chain(refusals).collect();
    let kinds = CommandKind::ALL.iter().copied().map(Some).chain([None]);
    let kinds: Vec<_> = kinds.collect();
    let row = |n: usize| CommandRow {
        product_id: (n % 5 != 4).then(|| id("lamp")),
        kind: kinds[n % kinds.len()],
        buyer_id: n.is_multiple_of(3).then(|| id("ann")),
        attempt_id: n.is_multiple_of(2).then(|| attempt_id(n as u64)),
        quantity: [None, Some(0), Some(u32::MAX)][n % 3],
        outcome: outcomes[n % outcomes.len()],
        trace_id: TraceId::from_bytes([n as u8; 16]),
        // Positions on both sides of the bounds of an era.
        ..command(n as u32 % 3, [0, 65_535, 65_536][n % 3] + 65_536 * n as i64)
    };
    (0..kinds.len() * outcomes.len()).map(row).collect()
}

pub(super) async fn commands_by_position(subject: &mut Subject) {
    let at = |partition, offset| Position {
        partition: Partition(partition),
        offset: Offset(offset),
    };
    let rows = [(0, 0), (0, 7), (1, 0), (0, 1 << 40), (0, 65_536)];
    let rows = rows.map(|(partition, offset)| command(partition, offset));
    let written: Vec<_> = rows.iter().cloned().map(Row::Command).collect();
    subject.apply(0, &written, 1).await;
    // Again, as a projector that starts over writes them.
    subject.apply(0, &written[..2], 1).await;
    for _ in 0..2 {
        for row in &rows {
            let found = subject.store().command(row.position).await;
            assert_eq!(found, Ok(Some(row.clone())));
        }
        for (partition, offset) in [(0, 1), (1, 7), (2, 0), (0, i64::MAX), (u32::MAX, 0)] {
            let found = subject.store().command(at(partition, offset)).await;
            assert_eq!(found, Ok(None), "{partition}:{offset}");
        }
        assert_same(&subject.content().await, &content_of(&written));
        subject.reopen().await;
    }
}

pub(super) async fn missing_is_empty(subject: &mut Subject) {
    for _ in 0..2 {
        let store = subject.store();
        assert_eq!(store.progress().await, Ok(BTreeMap::new()));
        assert_eq!(store.attempt(attempt_id(1)).await, Ok(None));
        assert_eq!(store.sale(&id("lamp")).await, Ok(None));
        assert_eq!(store.sales(None, 10).await, Ok(vec![]));
        assert_eq!(store.orders(&id("ann"), None, 10).await, Ok(vec![]));
        assert_eq!(store.intents(&id("lamp"), None, 10).await, Ok(vec![]));
        assert_eq!(subject.content().await, BTreeMap::new());
        subject.reopen().await;
    }
    // Nor does a row of one table show in another.
    subject
        .apply(0, &[Row::Attempt(attempt("lamp", "ann", 1, 1))], 1)
        .await;
    assert_eq!(
        subject.store().orders(&id("ann"), None, 10).await,
        Ok(vec![])
    );
    assert_eq!(
        subject.store().intents(&id("lamp"), None, 10).await,
        Ok(vec![])
    );
    assert_eq!(subject.store().sale(&id("lamp")).await, Ok(None));
}

pub(super) async fn lower_version_changes_nothing(subject: &mut Subject) {
    let rows = |version: u64| {
        let mut attempt = attempt("lamp", "ann", 1, version);
        attempt.decided_at_ms = version as i64;
        let (order, intent) = (attempt.clone(), attempt.clone());
        let sale = sale("lamp", version);
        [
            Row::Attempt(attempt),
            Row::Order(order),
            Row::Intent(intent),
            Row::Sale(sale),
        ]
    };
    // 300 is above 255, and 65,536 above both, so a comparison of the wrong bytes fails.
    for (written, highest) in [(300, 300), (2, 300), (65_536, 65_536), (300, 65_536)] {
        for reopened in [false, true] {
            subject.apply(0, &rows(written), 1).await;
            assert_same(&subject.content().await, &content_of(&rows(highest)));
            let attempt = subject.store().attempt(attempt_id(1)).await.unwrap();
            assert_eq!(
                attempt.map(|row| row.version),
                Some(highest),
                "{written} {reopened}"
            );
            let sale = subject.store().sale(&id("lamp")).await.unwrap();
            assert_eq!(
                sale.map(|row| row.version),
                Some(highest),
                "{written} {reopened}"
            );
            let orders = subject.store().orders(&id("ann"), None, 10).await.unwrap();
            assert_eq!(
                orders.iter().map(|row| row.version).collect::<Vec<_>>(),
                [highest]
            );
            subject.reopen().await;
            assert_same(&subject.content().await, &content_of(&rows(highest)));
        }
    }
}

/// Histories of several products, applied by several writers at once, each in its own order, with
/// the store reopened in between. The result is that of one writer in order.
pub(super) async fn overlapping_writers(subject: &mut Subject) {
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let mut batches = Vec::new();
    for version in 1..=120 {
        let mut rows = Vec::new();
        for product in ["lamp", "chair", "a lamp"] {
            rows.push(Row::Sale(sale(product, version)));
            let number = random.random_range(0..40);
            let mut attempt = attempt(product, &format!("buyer {}", number % 5), number, version);
            // An attempt belongs to one product and has a position of its own.
            attempt.attempt_id = attempt_id(number as u64 * 100 + product.len() as u64);
            attempt.position.partition = Partition(product.len() as u32);
            attempt.decided_at_ms = random.random();
            rows.push(Row::Attempt(attempt.clone()));
            rows.push(if number % 2 == 0 {
                Row::Order(attempt)
            } else {
                Row::Intent(attempt)
            });
        }
        batches.push(rows);
    }
    let expected = content_of(batches.iter().flatten());

    for batches_each in [40, batches.len()] {
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..3 {
            let store = subject.store().clone();
            let mut batches = batches.clone();
            batches.shuffle(&mut random);
            writers.spawn(async move {
                for rows in batches.into_iter().take(batches_each) {
                    let applied = store.apply(Partition(writer), rows, progress(1)).await;
                    assert_eq!(applied, Ok(()));
                }
            });
        }
        while let Some(writer) = writers.join_next().await {
            writer.unwrap();
        }
        let content = subject.content().await;
        subject.reopen().await;
        assert_same(&subject.content().await, &content);
    }
    assert_same(&subject.content().await, &expected);
}

/// Readers that read all the while never find progress without the rows that it covers, also when
/// several partitions are applied at once.
pub(super) async fn progress_after_rows(subject: &mut Subject) {
    const BATCHES: i64 = 200;
    let done = Arc::new(AtomicBool::new(false));
    let mut readers = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (store, done) = (subject.store().clone(), done.clone());
        readers.spawn(async move {
            let mut reads = 0;
            while !done.load(Ordering::Relaxed) {
                for (partition, progress) in store.progress().await.unwrap() {
                    for number in (progress.next.0 - 3).max(0)..progress.next.0 {
                        let number = number as u64 * 8 + u64::from(partition.0);
                        let found = store.attempt(attempt_id(number)).await.unwrap();
                        assert!(found.is_some(), "{partition} {progress:?} {number}");
                        reads += 1;
                    }
                }
                tokio::task::yield_now().await;
            }
            reads
        });
    }
    let mut writers = tokio::task::JoinSet::new();
    for partition in 0..4 {
        let store = subject.store().clone();
        writers.spawn(async move {
            for batch in 0..BATCHES {
                let mut rows = Vec::new();
                for number in batch * 3..batch * 3 + 3 {
                    let mut attempt = attempt("lamp", "ann", number, 1);
                    attempt.attempt_id = attempt_id(number as u64 * 8 + u64::from(partition));
                    attempt.position.partition = Partition(partition);
                    rows.extend([Row::Order(attempt.clone()), Row::Attempt(attempt)]);
                }
                let progress = progress(batch * 3 + 3);
                store
                    .apply(Partition(partition), rows, progress)
                    .await
                    .unwrap();
                tokio::task::yield_now().await;
            }
        });
    }
    while let Some(writer) = writers.join_next().await {
        writer.unwrap();
    }
    done.store(true, Ordering::Relaxed);
    let mut reads = 0;
    while let Some(reader) = readers.join_next().await {
        reads += reader.unwrap();
    }
    assert!(reads > 0, "the readers must have found rows");

    let rows = subject.content().await.len();
    assert_eq!(rows as i64, 4 * BATCHES * 3 * 2);
    let all: BTreeMap<_, _> = (0..4)
        .map(|p| (Partition(p), progress(BATCHES * 3)))
        .collect();
    assert_eq!(subject.store().progress().await, Ok(all.clone()));
    subject.reopen().await;
    assert_eq!(subject.content().await.len(), rows);
    assert_eq!(subject.store().progress().await, Ok(all));
}

pub(super) async fn progress_by_partition(subject: &mut Subject) {
    let first = Progress {
        next: Offset(1),
        claim: Offset(-1),
        answered: Offset(-1),
        log: None,
    };
    let later = Progress {
        next: Offset(i64::MAX),
        claim: Offset(300),
        answered: Offset(70_000),
        log: Some(mark(i64::MAX)),
    };
    let other = Progress {
        next: Offset(5),
        claim: Offset(0),
        answered: Offset(4),
        log: Some(mark(5)),
    };
    let next_but_one = Progress {
        next: Offset(7),
        ..other
    };
    let mut expected = BTreeMap::new();
    for (partition, progress) in [
        (0, first),
        (256, other),
        (0, later),
        (u32::MAX, first),
        (256, next_but_one),
    ] {
        let applied = subject
            .store()
            .apply(Partition(partition), vec![], progress)
            .await;
        assert_eq!(applied, Ok(()));
        expected.insert(Partition(partition), progress);
        assert_eq!(subject.store().progress().await.as_ref(), Ok(&expected));
        subject.reopen().await;
        assert_eq!(subject.store().progress().await.as_ref(), Ok(&expected));
    }
}
