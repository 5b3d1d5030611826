//! A log whose clock is wrong: the partition is degraded, and an operator's correction sets its products right.

use std::sync::Arc;
use std::time::Duration;

use kit::{ManualClock, MemoryLog};
use ports::EventLog;
use schemas::command::{Command, CommandBody};
use schemas::decision::Event;
use schemas::ids::ProductId;

use crate::support::{BEGIN_MS, Bench, Shoppers};

const HOUR_MS: i64 = 3_600_000;

#[tokio::test(start_paused = true)]
async fn a_log_that_is_ahead_is_degraded_until_its_clock_is_right_and_then_corrected() {
    let bench = Bench::new();
    let log_clock = Arc::new(ManualClock::at(BEGIN_MS + HOUR_MS));
    let bench = Bench {
        log: Arc::new(MemoryLog::new(1, log_clock.clone())),
        ..bench
    };
    let decider = bench.start("one", bench.log.clone(), 1_000);
    let mut shoppers = Shoppers::new(3);
    let is_degraded = |expected: bool| {
        let health = &bench.health;
        async move {
            while health.report()[0].degraded != expected || !health.is_ready() {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
    };
    let product_id: ProductId = "cap".parse().unwrap();
    bench.put(Command {
        product_id: product_id.clone(),
        body: CommandBody::PutSale(shoppers.terms(BEGIN_MS + HOUR_MS)),
        if_version: None,
    });
    bench.all_answered().await;
    is_degraded(true).await;
    let detail = bench.health.report()[0].detail.clone();
    assert!(
        detail.contains("partition 0 3599 s ahead") || detail.contains("partition 0 3600 s ahead"),
        "{detail}"
    );

    log_clock.step(-HOUR_MS);
    bench.log.correct_clock();
    let correction = Command {
        product_id,
        body: CommandBody::CorrectClock,
        if_version: None,
    };
    bench.put(correction);
    bench.all_answered().await;
    is_degraded(false).await;
    let last = bench.counting().pop().unwrap();
    assert!(last.decided_at_ms < BEGIN_MS + HOUR_MS);
    let Some(Event::ClockCorrected(corrected)) = last.events.last() else {
        panic!("{last:?}");
    };
    assert!(corrected.from_ms >= BEGIN_MS + HOUR_MS);
    assert_eq!(corrected.to_ms, last.decided_at_ms);
    decider.stop().await;
}
