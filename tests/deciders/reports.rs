//! What deciders report of their work.

use runtime::telemetry;
use schemas::topics::Topic;

use crate::support::{Bench, PARTITION, attempt, sale};

/// The value of a metric.
fn metric(bench: &Bench, name_and_labels: &str) -> Option<f64> {
    let text = telemetry::metrics().render(&bench.health);
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name_and_labels))?;
    line.trim().parse().ok()
}

#[tokio::test(start_paused = true)]
async fn the_delay_of_every_command_is_observed() {
    telemetry::metrics();
    let bench = Bench::new();
    let records = (0..20).map(|n| bench.record(attempt("cap", &format!("b-{n}"))));
    let records: Vec<_> = records.collect();
    bench.put(sale("cap", 5, None));
    bench.log.put(Topic::PurchaseAttempts, PARTITION, records);
    let running = bench.start("d", bench.log.clone(), 1_000);
    bench.all_answered().await;
    let observed = metric(
        &bench,
        "doorbuster_decision_delay_seconds_count{partition=\"0\"}",
    );
    assert_eq!(observed, Some(21.0));
    let outcome = |name| {
        let labels = format!("{{partition=\"0\",outcome=\"{name}\"}}");
        metric(&bench, &format!("doorbuster_decisions_total{labels}"))
    };
    assert_eq!(outcome("accepted"), Some(5.0));
    assert_eq!(outcome("refused"), Some(15.0));
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn counts_begin_at_zero() {
    telemetry::metrics();
    let bench = Bench::new();
    let running = bench.start("d", bench.log.clone(), 1_000);
    let begins = async {
        while metric(&bench, "doorbuster_decider_claims_total{partition=\"0\"}") != Some(1.0) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    begins.await;
    for zero in [
        "doorbuster_decisions_total{partition=\"0\",outcome=\"accepted\"}",
        "doorbuster_decisions_dropped_total{reader=\"decider\",partition=\"0\"}",
        "doorbuster_checkpoints_total{partition=\"0\"}",
        "doorbuster_appends_failed_total{reason=\"timed_out\"}",
        "doorbuster_attempts_appended_total",
        "doorbuster_projector_rows_total",
        "doorbuster_log_lines_lost_total",
    ] {
        assert_eq!(metric(&bench, zero), Some(0.0), "{zero}");
    }
    running.stop().await;
}
