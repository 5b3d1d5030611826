//! The name and the description of every metric. The process's own figures (`process_…`) come from
//! the crate `metrics-process`.

use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};

/// Always 1. Label: `version`.
pub const BUILD_INFO: &str = "doorbuster_build_info";
/// 1 while `/readyz` answers 200, else 0.
pub const READY: &str = "doorbuster_ready";
/// 1 while `/healthz` answers 200, else 0.
pub const ALIVE: &str = "doorbuster_alive";
/// 1 while the component does its work, else 0. Label: `component`.
pub const COMPONENT_READY: &str = "doorbuster_component_ready";
/// 1 while the component does only a part of its work, or fails and others can do without it.
/// Label: `component`.
pub const COMPONENT_DEGRADED: &str = "doorbuster_component_degraded";
/// Requests answered, or given up. Labels: `route`, or `none`; `method`, or `none`; `status`, or
/// `aborted`.
pub const HTTP_REQUESTS: &str = "doorbuster_http_requests_total";
/// Time from a request's head to its answer. Labels: `route`, `method`.
pub const HTTP_SECONDS: &str = "doorbuster_http_request_duration_seconds";
/// Attempts appended to `purchase-attempts`.
pub const ATTEMPTS_ACCEPTED: &str = "doorbuster_attempts_appended_total";
/// Appends of requests that were refused or failed. Label: `reason`, one of [`APPEND_FAILURES`].
pub const APPENDS_FAILED: &str = "doorbuster_appends_failed_total";
/// The reasons of [`APPENDS_FAILED`]. `timed_out`: the request ended before the log answered.
pub const APPEND_FAILURES: [&str; 7] = [
    "full",
    "too_large",
    "unavailable",
    "unknown",
    "stopped",
    "timed_out",
    "another_log",
];
/// Decisions appended to `stock-decisions`. Labels: `partition`, `outcome`.
pub const DECISIONS: &str = "doorbuster_decisions_total";
/// Time from the append of a command to that of its decision. Label: `partition`.
pub const DECISION_SECONDS: &str = "doorbuster_decision_delay_seconds";
/// Records of `purchase-attempts` not yet decided. Label: `partition`.
pub const DECIDER_LAG: &str = "doorbuster_decider_lag_records";
/// Claims that took effect. Label: `partition`.
pub const CLAIMS: &str = "doorbuster_decider_claims_total";
/// Decisions that a reader dropped at the fence. Labels: `reader`, `partition`.
pub const DECISIONS_DROPPED: &str = "doorbuster_decisions_dropped_total";
/// Records of `purchase-attempts` that were skipped because they cannot be decoded. Label: `partition`.
pub const RECORDS_SKIPPED: &str = "doorbuster_records_skipped_total";
/// Checkpoints written. Label: `partition`.
pub const CHECKPOINTS: &str = "doorbuster_checkpoints_total";
/// Time from a decider's claim until it is ready to decide. Label: `partition`.
pub const RECOVERY_SECONDS: &str = "doorbuster_decider_recovery_duration_seconds";
/// Decisions not yet in the read models. Label: `partition`.
pub const PROJECTOR_LAG: &str = "doorbuster_projector_lag_records";
/// Rows written to the read models.
pub const ROWS: &str = "doorbuster_projector_rows_total";
/// Decisions not yet read by the live tail. Label: `partition`.
pub const TAIL_LAG: &str = "doorbuster_tail_lag_records";
/// Records of `purchase-attempts` without a decision, as the read side sees them, whether or not a
/// decider runs. Label: `partition`.
pub const UNDECIDED: &str = "doorbuster_undecided_attempts";
/// For how long the oldest of them has waited, in seconds. Label: `partition`.
pub const UNDECIDED_SECONDS: &str = "doorbuster_oldest_undecided_seconds";
/// Requests that wait for the outcome of an attempt.
pub const WAITERS: &str = "doorbuster_query_waiters";
/// Errors that Kafka's client reported, also while it was trying again. Label: `kind`.
pub const KAFKA_ERRORS: &str = "doorbuster_kafka_client_errors_total";
/// Appends that the brokers did not acknowledge in time, and that were given up.
pub const KAFKA_TIMEOUTS: &str = "doorbuster_kafka_appends_timed_out_total";
/// Requests to the CQL store that failed, and attempts to connect that did. Label: `kind`.
pub const CQL_ERRORS: &str = "doorbuster_cql_client_errors_total";
/// Requests that the CQL store's client sent again.
pub const CQL_RETRIES: &str = "doorbuster_cql_client_retries_total";
/// Lines of the log that could not be written to standard error.
pub const LOG_LINES_LOST: &str = "doorbuster_log_lines_lost_total";

/// The gauges that end, each with its description: those of partitions, which a process works on
/// only for a while, and those of components. See [`crate::gauges`].
pub(crate) const ENDING_GAUGES: [(&str, &str); 9] = [
    (READY, "1 while /readyz answers 200, else 0."),
    (ALIVE, "1 while /healthz answers 200, else 0."),
    (
        COMPONENT_READY,
        "1 while the component does its work, else 0.",
    ),
    (
        COMPONENT_DEGRADED,
        "1 while the component does only a part of its work, or fails and others can do without it.",
    ),
    (
        DECIDER_LAG,
        "Records of purchase-attempts not yet decided, by the partition's decider.",
    ),
    (PROJECTOR_LAG, "Decisions not yet in the read models."),
    (TAIL_LAG, "Decisions not yet read by the live tail."),
    (
        UNDECIDED,
        "Records of purchase-attempts without a decision, by the read side.",
    ),
    (
        UNDECIDED_SECONDS,
        "For how long the oldest record without a decision has waited, in seconds.",
    ),
];

/// Registers the description of every metric with the recorder, and begins at zero what has no
/// label that is known only later: a rate over a counter that appears with its first event misses
/// that event.
pub fn describe() {
    describe_gauge!(BUILD_INFO, "Always 1; the label is the version.");
    gauge!(BUILD_INFO, "version" => env!("CARGO_PKG_VERSION")).set(1.0);
    for reason in APPEND_FAILURES {
        counter!(APPENDS_FAILED, "reason" => reason).increment(0);
    }
    for counted in [ATTEMPTS_ACCEPTED, ROWS, LOG_LINES_LOST] {
        counter!(counted).increment(0);
    }
    gauge!(WAITERS).increment(0.0);
    describe_counter!(HTTP_REQUESTS, "Requests answered, or given up.");
    describe_histogram!(
        HTTP_SECONDS,
        Unit::Seconds,
        "Time from a request's head to its answer."
    );
    describe_counter!(ATTEMPTS_ACCEPTED, "Attempts appended to purchase-attempts.");
    describe_counter!(APPENDS_FAILED, "Appends refused or failed, by reason.");
    describe_counter!(
        DECISIONS,
        "Decisions appended to stock-decisions, by outcome."
    );
    describe_histogram!(
        DECISION_SECONDS,
        Unit::Seconds,
        "Time from the append of a command to that of its decision."
    );
    describe_counter!(CLAIMS, "Claims taken by deciders.");
    describe_counter!(
        DECISIONS_DROPPED,
        "Decisions dropped at the fence, by reader."
    );
    describe_counter!(
        RECORDS_SKIPPED,
        "Records of purchase-attempts skipped because they cannot be decoded."
    );
    describe_counter!(CHECKPOINTS, "Checkpoints written by deciders.");
    describe_histogram!(
        RECOVERY_SECONDS,
        Unit::Seconds,
        "Time from a decider's claim until it is ready to decide."
    );
    describe_counter!(ROWS, "Rows written to the read models.");
    describe_gauge!(WAITERS, "Requests that wait for the outcome of an attempt.");
    describe_counter!(KAFKA_ERRORS, "Errors reported by Kafka's client, by kind.");
    describe_counter!(
        KAFKA_TIMEOUTS,
        "Appends that the brokers did not acknowledge in time."
    );
    describe_counter!(
        CQL_ERRORS,
        "Requests to the CQL store that failed, by kind."
    );
    describe_counter!(CQL_RETRIES, "Requests sent again to the CQL store.");
    describe_counter!(
        LOG_LINES_LOST,
        "Lines of the log that could not be written to standard error."
    );
}
