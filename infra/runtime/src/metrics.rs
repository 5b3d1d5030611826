//! Every metric's name and description.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Requests answered. Labels: `route`, `method`, `status`.
pub const HTTP_REQUESTS: &str = "doorbuster_http_requests_total";
/// Time from a request's head to its answer. Labels: `route`, `method`.
pub const HTTP_SECONDS: &str = "doorbuster_http_request_duration_seconds";
/// Attempts appended to log 1.
pub const ATTEMPTS_ACCEPTED: &str = "doorbuster_attempts_appended_total";
/// Appends that were refused or failed. Label: `reason`.
pub const APPENDS_FAILED: &str = "doorbuster_appends_failed_total";
/// Decisions written. Labels: `partition`, `outcome`.
pub const DECISIONS: &str = "doorbuster_decisions_total";
/// Time from a command's append to its decision's. Label: `partition`.
pub const DECISION_SECONDS: &str = "doorbuster_decision_delay_seconds";
/// Records of log 1 not yet decided. Label: `partition`.
pub const DECIDER_LAG: &str = "doorbuster_decider_lag_records";
/// Claims taken. Label: `partition`.
pub const CLAIMS: &str = "doorbuster_decider_claims_total";
/// Decisions read that do not count. Labels: `reader`, `partition`.
pub const DECISIONS_DROPPED: &str = "doorbuster_decisions_dropped_total";
/// Checkpoints written. Label: `partition`.
pub const CHECKPOINTS: &str = "doorbuster_checkpoints_total";
/// Time a decider took from claim to first decision. Label: `partition`.
pub const RECOVERY_SECONDS: &str = "doorbuster_decider_recovery_duration_seconds";
/// Decisions not yet in the read models. Label: `partition`.
pub const PROJECTOR_LAG: &str = "doorbuster_projector_lag_records";
/// Rows written to the read models.
pub const ROWS: &str = "doorbuster_projector_rows_total";
/// Decisions not yet seen by the live tail. Label: `partition`.
pub const TAIL_LAG: &str = "doorbuster_tail_lag_records";
/// Requests waiting for an attempt's fate.
pub const WAITERS: &str = "doorbuster_query_waiters";

/// Tells the recorder what each metric is.
pub fn describe() {
    describe_counter!(HTTP_REQUESTS, "Requests answered.");
    describe_histogram!(
        HTTP_SECONDS,
        Unit::Seconds,
        "Time from a request's head to its answer."
    );
    describe_counter!(ATTEMPTS_ACCEPTED, "Attempts appended to purchase-attempts.");
    describe_counter!(APPENDS_FAILED, "Appends refused or failed, by reason.");
    describe_counter!(DECISIONS, "Decisions written, by outcome.");
    describe_histogram!(
        DECISION_SECONDS,
        Unit::Seconds,
        "Time from a command's append to its decision's."
    );
    describe_gauge!(DECIDER_LAG, "Records of purchase-attempts not yet decided.");
    describe_counter!(CLAIMS, "Claims taken by deciders.");
    describe_counter!(
        DECISIONS_DROPPED,
        "Decisions read that do not count, by reader."
    );
    describe_counter!(CHECKPOINTS, "Checkpoints written by deciders.");
    describe_histogram!(
        RECOVERY_SECONDS,
        Unit::Seconds,
        "Time a decider took from its claim to being ready to decide."
    );
    describe_gauge!(PROJECTOR_LAG, "Decisions not yet in the read models.");
    describe_counter!(ROWS, "Rows written to the read models.");
    describe_gauge!(TAIL_LAG, "Decisions not yet seen by the live tail.");
    describe_gauge!(WAITERS, "Requests waiting for an attempt's fate.");
}
