//! The name and the description of every metric.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Requests answered. Labels: `route`, `method`, `status`.
pub const HTTP_REQUESTS: &str = "doorbuster_http_requests_total";
/// Time from a request's head to its answer. Labels: `route`, `method`.
pub const HTTP_SECONDS: &str = "doorbuster_http_request_duration_seconds";
/// Attempts appended to `purchase-attempts`.
pub const ATTEMPTS_ACCEPTED: &str = "doorbuster_attempts_appended_total";
/// Appends that were refused or failed. Label: `reason`.
pub const APPENDS_FAILED: &str = "doorbuster_appends_failed_total";
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
/// Requests that wait for the outcome of an attempt.
pub const WAITERS: &str = "doorbuster_query_waiters";
/// Lines of the log that could not be written to standard error.
pub const LOG_LINES_LOST: &str = "doorbuster_log_lines_lost_total";

/// Registers the description of every metric with the recorder.
pub fn describe() {
    describe_counter!(HTTP_REQUESTS, "Requests answered.");
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
    describe_gauge!(DECIDER_LAG, "Records of purchase-attempts not yet decided.");
    describe_counter!(CLAIMS, "Claims taken by deciders.");
    describe_counter!(
        DECISIONS_DROPPED,
        "Decisions dropped at the fence, by reader."
    );
    describe_counter!(CHECKPOINTS, "Checkpoints written by deciders.");
    describe_histogram!(
        RECOVERY_SECONDS,
        Unit::Seconds,
        "Time from a decider's claim until it is ready to decide."
    );
    describe_gauge!(PROJECTOR_LAG, "Decisions not yet in the read models.");
    describe_counter!(ROWS, "Rows written to the read models.");
    describe_gauge!(TAIL_LAG, "Decisions not yet read by the live tail.");
    describe_gauge!(WAITERS, "Requests that wait for the outcome of an attempt.");
    describe_counter!(
        LOG_LINES_LOST,
        "Lines of the log that could not be written to standard error."
    );
}
