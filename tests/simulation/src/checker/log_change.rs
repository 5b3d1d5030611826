//! What must hold after the log has changed: nobody works on as if it were the same.

use std::collections::BTreeSet;

use schemas::ids::Partition;

use super::LOGS;
use crate::shoppers::LateAnswer;
use crate::world::EndState;

/// The rules that were broken since the log has changed. `before` is the state right after the change,
/// `knowing` are the partitions whose deciders can know of it.
pub fn after_log_change(
    before: &EndState,
    after: &EndState,
    knowing: &BTreeSet<Partition>,
    answers: &[LateAnswer],
) -> Vec<String> {
    let mut violations = Vec::new();
    if (&before.rows, &before.progress) != (&after.rows, &after.progress) {
        let (before, after) = (&before.progress, &after.progress);
        violations.push(format!(
            "the store was written from another log: it went from {before:?} to {after:?}"
        ));
    }
    for partition in knowing {
        let place = (LOGS.1, *partition);
        let appended = after.records[&place].len() - before.records[&place].len();
        if appended > 0 {
            violations.push(format!(
                "{appended} records were appended to {}, partition {partition}, of another log",
                LOGS.1
            ));
        }
    }
    for LateAnswer { node, path, answer } in answers {
        let is_right = match answer {
            Some((503, body)) => body["code"] == "log_unavailable" || !path.ends_with("/order"),
            Some((200, _)) => path.starts_with("/api/attempts/"),
            _ => false,
        };
        if !is_right {
            violations.push(format!(
                "after the log has changed, {node} answered {path} with {answer:?}"
            ));
        }
    }
    violations
}
