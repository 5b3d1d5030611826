//! The read models follow from the decisions alone, however often and by however many projectors
//! they are written.

#[path = "../deciders/support.rs"]
#[allow(dead_code, reason = "the deciders' tests use the rest of it")]
mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use kit::MemoryStore;
use ports::read_store::{AttemptRow, CommandRow, Progress, Row, SaleRow};
use ports::{ReadStore, StoreError};
use projector::run::Projector;
use runtime::health::Health;
use schemas::ids::{AttemptId, BuyerId, Partition, Position, ProductId};
use schemas::topics::Topic;
use store_embedded::EmbeddedStore;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use support::{BEGIN_MS, Bench, PARTITION, Shoppers};

/// The log of random commands and their decisions.
async fn history(seed: u64, commands: usize) -> Bench {
    let bench = Bench::new();
    let mut shoppers = Shoppers::new(seed);
    for _ in 0..commands {
        bench.put(shoppers.next(BEGIN_MS));
    }
    let decider = bench.start("one", bench.log.clone(), 1_000_000);
    bench.all_answered().await;
    decider.stop().await;
    bench
}

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
    health: Health,
}

impl Running {
    /// Waits until the projector is unready for this reason.
    async fn fails_with(&self, reason: &str) {
        for _ in 0..2_000 {
            let report = self.health.report();
            let first = report.first();
            if first.is_some_and(|part| part.detail.contains(reason)) {
                assert!(!self.health.is_ready(), "{report:?}");
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("no failure with {reason:?}: {:?}", self.health.report());
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn project(bench: &Bench, store: Arc<dyn ReadStore>) -> Running {
    let health = Health::default();
    let projector = Projector {
        log: bench.log.clone(),
        store,
        codec: bench.codec.clone(),
        health: health.clone(),
    };
    let stop = CancellationToken::new();
    let task = tokio::spawn(projector::run(projector, stop.clone()));
    Running { stop, task, health }
}

/// Waits until all of `stock-decisions` is projected.
async fn caught_up(bench: &Bench, store: &dyn ReadStore) {
    let end = bench.log.records(Topic::StockDecisions, PARTITION).len() as i64;
    for _ in 0..2_000 {
        let progress = store.progress().await.unwrap();
        if progress
            .get(&PARTITION)
            .is_some_and(|progress| progress.next.0 == end)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the projector does not catch up");
}

/// Every row, in a fixed order.
async fn rows(store: &dyn ReadStore) -> BTreeSet<String> {
    let (sender, receiver) = std::sync::mpsc::channel();
    let visit = move |row: Row| sender.send(format!("{row:?}")).is_ok();
    store.visit(Box::new(visit)).await.unwrap();
    receiver.into_iter().collect()
}

/// A store without progress, so that everything is projected again.
struct Forgetful(Arc<dyn ReadStore>);

#[async_trait]
impl ReadStore for Forgetful {
    async fn apply(&self, p: Partition, rows: Vec<Row>, at: Progress) -> Result<(), StoreError> {
        self.0.apply(p, rows, at).await
    }
    async fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError> {
        Ok(BTreeMap::new())
    }
    async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        self.0.attempt(id).await
    }
    async fn command(&self, at: Position) -> Result<Option<CommandRow>, StoreError> {
        self.0.command(at).await
    }
    async fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError> {
        self.0.sale(product).await
    }
    async fn sales(&self, a: Option<&ProductId>, n: usize) -> Result<Vec<SaleRow>, StoreError> {
        self.0.sales(a, n).await
    }
    async fn orders(
        &self,
        buyer: &BuyerId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        self.0.orders(buyer, after, limit).await
    }
    async fn intents(
        &self,
        product: &ProductId,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        self.0.intents(product, after, limit).await
    }
    async fn visit(&self, visit: Box<dyn FnMut(Row) -> bool + Send>) -> Result<(), StoreError> {
        self.0.visit(visit).await
    }
}

#[tokio::test]
async fn replaying_everything_over_a_live_store_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let embedded = EmbeddedStore::open(&dir.path().join("read-models.redb")).unwrap();
    let stores: [Arc<dyn ReadStore>; 2] = [Arc::new(embedded), Arc::new(MemoryStore::default())];
    let bench = history(1, 2_000).await;
    let mut by_store = Vec::new();
    for store in stores {
        let first = project(&bench, store.clone());
        caught_up(&bench, &*store).await;
        let before = rows(&*store).await;
        assert!(before.len() > 1_000, "{} rows", before.len());

        // A second projector starts from the beginning while the first still runs.
        let again = project(&bench, Arc::new(Forgetful(store.clone())));
        for _ in 0..200 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(rows(&*store).await, before, "in the middle of the replay");
            if again.health.is_ready() && !again.health.report().is_empty() {
                break;
            }
        }
        caught_up(&bench, &*store).await;
        assert!(again.health.is_ready(), "{:?}", again.health.report());
        assert_eq!(rows(&*store).await, before);
        first.stop().await;
        again.stop().await;
        by_store.push(before);
    }
    assert_eq!(by_store[0], by_store[1], "both stores have the same rows");
}

#[tokio::test]
async fn the_projector_catches_up_when_a_failed_store_is_back() {
    let bench = history(2, 500).await;
    let whole = Arc::new(MemoryStore::default());
    let undisturbed = project(&bench, whole.clone());
    caught_up(&bench, &*whole).await;
    undisturbed.stop().await;

    let store = Arc::new(MemoryStore::default());
    store.fail(true);
    let projector = project(&bench, store.clone());
    projector.fails_with("the test made it fail").await;
    store.fail(false);
    caught_up(&bench, &*store).await;
    assert!(projector.health.is_ready());
    projector.stop().await;
    assert_eq!(rows(&*store).await, rows(&*whole).await);
}

/// Waits until only an operator can mend the projector, for this reason.
async fn broken_by(projector: &Running, reason: &str) {
    projector.fails_with(reason).await;
    let report = projector.health.report();
    assert!(!projector.health.is_alive(), "{report:?}");
}

/// Read models that were projected from one log, over another or over what is left of it.
#[tokio::test]
async fn read_models_of_another_log_are_refused() {
    let (bench, other) = (history(4, 300).await, history(5, 400).await);
    let store = Arc::new(MemoryStore::default());
    let projector = project(&bench, store.clone());
    caught_up(&bench, &*store).await;
    projector.stop().await;
    let before = rows(&*store).await;
    let progress = store.progress().await.unwrap();

    let projector = project(&other, store.clone());
    broken_by(&projector, "the read models are of log").await;
    projector.stop().await;

    bench.log.lose(Topic::StockDecisions, PARTITION, 100);
    let projector = project(&bench, store.clone());
    broken_by(&projector, "has lost its end").await;
    projector.stop().await;

    // A log that was restored to an earlier state and has continued since is longer again.
    let continued = bench.start("two", bench.log.clone(), 1_000_000);
    bench.all_answered().await;
    for seed in 6..8 {
        let mut shoppers = Shoppers::new(seed);
        for _ in 0..200 {
            bench.put(shoppers.next(BEGIN_MS));
        }
        bench.all_answered().await;
    }
    continued.stop().await;
    let projector = project(&bench, store.clone());
    broken_by(&projector, "has continued differently since").await;
    projector.stop().await;
    assert_eq!(rows(&*store).await, before, "nothing was written");
    assert_eq!(store.progress().await.unwrap(), progress);
}

#[tokio::test]
async fn a_log_that_is_lost_under_a_projector_stops_it_for_good() {
    let bench = history(4, 300).await;
    let store = Arc::new(MemoryStore::default());
    let projector = project(&bench, store.clone());
    caught_up(&bench, &*store).await;
    bench.log.lose(Topic::StockDecisions, PARTITION, 0);
    broken_by(&projector, "has lost its end").await;
    let again = bench.start("two", bench.log.clone(), 1_000_000);
    bench.all_answered().await;
    again.stop().await;
    broken_by(&projector, "has lost its end").await;
    projector.stop().await;
    let projector = project(&bench, store.clone());
    broken_by(&projector, "the read models are of log").await;
    projector.stop().await;
}

/// Read models that an older version wrote name no log. They are adopted once, if the log has all
/// that they were made from.
#[tokio::test]
async fn read_models_without_a_log_are_adopted() {
    let (bench, other) = (history(4, 300).await, history(5, 100).await);
    let store = Arc::new(MemoryStore::default());
    let projector = project(&bench, store.clone());
    caught_up(&bench, &*store).await;
    projector.stop().await;
    let marked = store.progress().await.unwrap()[&PARTITION];
    let unmarked = Progress {
        log: None,
        ..marked
    };
    store.apply(PARTITION, vec![], unmarked).await.unwrap();

    let projector = project(&other, store.clone());
    broken_by(&projector, "has lost its end").await;
    projector.stop().await;
    assert_eq!(store.progress().await.unwrap()[&PARTITION], unmarked);

    let projector = project(&bench, store.clone());
    for _ in 0..2_000 {
        if store.progress().await.unwrap()[&PARTITION] == marked {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(store.progress().await.unwrap()[&PARTITION], marked);
    projector.stop().await;
}

#[tokio::test]
async fn the_lag_is_measured_while_the_store_is_away() {
    let bench = history(4, 50).await;
    let store = Arc::new(MemoryStore::default());
    let projector = project(&bench, store.clone());
    caught_up(&bench, &*store).await;
    let done = bench.log.records(Topic::StockDecisions, PARTITION).len();
    store.fail(true);
    let mut shoppers = Shoppers::new(5);
    for _ in 0..20 {
        bench.put(shoppers.next(BEGIN_MS));
    }
    let decider = bench.start("two", bench.log.clone(), 1_000_000);
    bench.all_answered().await;
    decider.stop().await;
    projector.fails_with("the test made it fail").await;
    let end = bench.log.records(Topic::StockDecisions, PARTITION).len();
    let expected = (end - done) as u64;
    for _ in 0..2_000 {
        if projector.health.report()[0].lag_records == expected {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let report = projector.health.report();
    assert_eq!(report[0].lag_records, expected, "{report:?}");
    assert!(!report[0].ready, "{report:?}");
    store.fail(false);
    caught_up(&bench, &*store).await;
    projector.stop().await;
}

#[tokio::test]
async fn a_missing_decision_stops_the_projection() {
    let bench = history(3, 300).await;
    let store = Arc::new(MemoryStore::default());
    // Progress beyond the rows: the decisions in between were never written.
    let progress = Progress {
        next: schemas::ids::Offset(200),
        claim: schemas::ids::Offset(0),
        answered: bench.counting()[198].answers,
        log: None,
    };
    let projector = project(&bench, store.clone());
    caught_up(&bench, &*store).await;
    projector.stop().await;
    let first: Vec<SaleRow> = store.sales(None, 10).await.unwrap();
    assert!(!first.is_empty());

    let behind = Arc::new(MemoryStore::default());
    let early: Vec<Row> = {
        let decision = &bench.counting()[..150];
        let mut sales = BTreeMap::new();
        for decision in decision {
            let product = decision.product_id.clone();
            if let Some(sale) = views::next_sale(sales.get(&product), decision) {
                sales.insert(product, sale);
            }
        }
        sales.into_values().map(Row::Sale).collect()
    };
    assert!(!early.is_empty(), "the first decisions include a sale");
    behind.apply(PARTITION, early, progress).await.unwrap();
    let projector = project(&bench, behind);
    projector.fails_with("decisions are missing").await;
    projector.stop().await;
}
