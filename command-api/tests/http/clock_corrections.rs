//! An operator corrects the time.

use ports::ReadStore;
use ports::read_store::Row;
use schemas::command::CommandBody;

use crate::support::{ADMIN, NOW, SALE, world};

const ALL: &str = "/api/admin/clock-corrections";

#[tokio::test]
async fn one_call_corrects_every_product_and_lets_the_log_s_time_fall() {
    let world = world(Some("let-me-in"));
    let products = 1_203;
    let sneaker = world.store.sales(None, 1).await.unwrap().remove(0);
    for n in 1..products {
        let mut sale = sneaker.clone();
        sale.product_id = format!("product {n}").parse().unwrap();
        world.store.put(Row::Sale(sale));
    }

    // The first records are stamped by a clock that is an hour ahead.
    world.clock.step(3_600_000);
    world
        .call("POST", &format!("{SALE}/open"), &[ADMIN], "")
        .await;
    world.clock.step(-3_600_000);
    let answer = world.call("POST", ALL, &[ADMIN], "").await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert_eq!(answer.body["products"], products);
    let now = web::rfc3339::Moment(NOW).to_string();
    assert_eq!(answer.body["now"], now);

    let mut corrected = world.commands();
    corrected.retain(|command| command.body == CommandBody::CorrectClock);
    let mut ids: Vec<_> = corrected
        .into_iter()
        .map(|command| command.product_id)
        .collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), products);
    let appended = world.appended();
    let ahead = appended
        .iter()
        .filter(|(_, record)| record.appended_at_ms > NOW);
    assert_eq!(ahead.count(), 1, "only the record before the correction");
}

#[tokio::test]
async fn one_product_is_corrected_by_itself() {
    let world = world(Some("let-me-in"));
    let path = format!("{SALE}/clock-correction");
    let answer = world.call("POST", &path, &[ADMIN], "").await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    assert!(answer.header("location").starts_with("/api/commands/"));
    let commands = world.commands();
    assert_eq!(commands.len(), 1);
    assert_eq!(commands[0].body, CommandBody::CorrectClock);
    let unknown = "/api/admin/flash-sales/unknown/clock-correction";
    let answer = world.call("POST", unknown, &[ADMIN], "").await;
    assert_eq!(answer.problem(), (404, "unknown_product"));
}

#[tokio::test]
async fn without_the_token_or_the_read_models_nothing_is_corrected() {
    let world = world(Some("let-me-in"));
    assert_eq!(world.call("POST", ALL, &[], "").await.problem().0, 401);
    assert!(world.appended().is_empty());
    world.store.fail(true);
    let answer = world.call("POST", ALL, &[ADMIN], "").await;
    assert_eq!(answer.problem(), (503, "read_model_unavailable"));
    assert!(world.appended().is_empty());
}
