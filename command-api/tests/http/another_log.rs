//! No order is acknowledged by a log that the read models are not made from.

use std::sync::Arc;

use command_api::log_watch::LogWatch;
use ports::read_store::Progress;
use ports::{LogMark, NewRecord, ReadStore};
use runtime::health::Health;
use schemas::codec::Codec;
use schemas::decision::{Claim, DecisionRecord};
use schemas::ids::{Offset, Partition, ProductId};
use schemas::placement::Placement;
use schemas::topics::Topic;
use web::receipt::ReceiptKey;

use crate::support::{self, PARTITIONS, World};

fn world() -> World {
    let mut world = support::world(None);
    world.watched = true;
    world
}

/// The partition of the sneaker.
fn partition() -> Partition {
    let sneaker: ProductId = "sneaker".parse().unwrap();
    Placement::new(PARTITIONS).partition_of(&sneaker)
}

fn watch(world: &World, health: &Health) -> LogWatch {
    LogWatch {
        log: world.log.clone(),
        store: world.store.clone(),
        codec: Arc::new(Codec::embedded()),
        component: health.component("log"),
        state: world.log_state.clone(),
    }
}

fn claim(world: &World, partitions: Option<u32>) {
    let claim = DecisionRecord::Claim(Claim {
        decider: "test".into(),
        partitions,
    });
    let record = NewRecord {
        value: Codec::embedded().encode_decision(claim).into(),
        ..NewRecord::default()
    };
    world
        .log
        .put(Topic::StockDecisions, partition(), vec![record]);
}

async fn project(world: &World) -> Progress {
    let decisions = world.log.records(Topic::StockDecisions, partition());
    let progress = Progress {
        next: Offset(decisions.len() as i64),
        claim: Offset(0),
        answered: Offset(-1),
        log: Some(LogMark::new(decisions[0].hash(), decisions.last().unwrap())),
    };
    let applied = world.store.apply(partition(), vec![], progress).await;
    applied.unwrap();
    progress
}

/// The service refuses the order, appends nothing, and an operator must act.
async fn is_refused(world: &World, health: &Health, reason: &str) {
    let before = world.appended();
    let answer = world
        .order(&[("x-buyer-id", "me")], r#"{"quantity":1}"#)
        .await;
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert_eq!(answer.body["code"], "log_unavailable");
    let detail = answer.body["detail"].as_str().unwrap();
    assert!(detail.contains("was not accepted"), "{detail}");
    assert_eq!(world.appended(), before);
    let report = health.report();
    assert!(!health.is_alive(), "{report:?}");
    assert!(report[0].detail.contains(reason), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_receipt_names_its_log() {
    let (world, health) = (world(), Health::default());
    claim(&world, Some(PARTITIONS));
    let progress = project(&world).await;
    let watch = watch(&world, &health);
    watch.check_all().await;
    assert!(health.is_ready());
    let answer = world
        .order(&[("x-buyer-id", "me")], r#"{"quantity":1}"#)
        .await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    let receipt = answer.body["receipt"].as_str().unwrap();
    let claims = ReceiptKey::new(&[7; 32]).verify(receipt).unwrap();
    assert_eq!(claims.log, Some(progress.log.unwrap().log.to_string()));
}

#[tokio::test(start_paused = true)]
async fn orders_are_refused_while_the_read_models_are_of_another_log() {
    for (begun_again, reason) in [(false, "but this log is empty"), (true, "but this is log")] {
        let (world, health) = (world(), Health::default());
        claim(&world, None);
        project(&world).await;
        world.log.lose(Topic::StockDecisions, partition(), 0);
        if begun_again {
            (0..3).for_each(|_| claim(&world, Some(PARTITIONS)));
        }
        let watch = watch(&world, &health);
        watch.check_all().await;
        is_refused(&world, &health, reason).await;
    }
}

#[tokio::test(start_paused = true)]
async fn orders_are_refused_once_the_log_has_lost_records() {
    let (world, health) = (world(), Health::default());
    claim(&world, Some(PARTITIONS));
    project(&world).await;
    let watch = watch(&world, &health);
    watch.check_all().await;
    let answer = world
        .order(&[("x-buyer-id", "me")], r#"{"quantity":1}"#)
        .await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    watch.check_all().await;
    world.log.lose(Topic::PurchaseAttempts, partition(), 0);
    watch.check_all().await;
    is_refused(&world, &health, "has lost its end").await;
    // It stays so, though the topic has records again.
    let record = NewRecord::default();
    world
        .log
        .put(Topic::PurchaseAttempts, partition(), vec![record; 3]);
    watch.check_all().await;
    is_refused(&world, &health, "has lost its end").await;
}

#[tokio::test(start_paused = true)]
async fn orders_are_refused_when_the_number_of_partitions_has_changed() {
    let (world, health) = (world(), Health::default());
    claim(&world, Some(PARTITIONS / 2));
    let watch = watch(&world, &health);
    watch.check_all().await;
    is_refused(&world, &health, "begun with 4 partitions").await;
}

/// A store or a log that does not answer proves nothing.
#[tokio::test(start_paused = true)]
async fn orders_are_taken_while_the_log_cannot_be_compared() {
    let (world, health) = (world(), Health::default());
    claim(&world, Some(PARTITIONS));
    project(&world).await;
    world.store.fail(true);
    world.log.fail_reads(true);
    let watch = watch(&world, &health);
    watch.check_all().await;
    let answer = world
        .order(&[("x-buyer-id", "me")], r#"{"quantity":1}"#)
        .await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert!(health.is_alive());
}
