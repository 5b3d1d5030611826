//! What shoppers request after the log has changed.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{Observation, Shoppers};
use crate::plan::PRODUCTS;
use crate::world::Node;

/// A client's request after the log has changed, and the answer if one came.
pub struct LateAnswer {
    /// Who was asked.
    pub node: Node,
    /// The request's path.
    pub path: String,
    /// The status and the body.
    pub answer: Option<(u16, Value)>,
}

impl Shoppers {
    /// Orders each product at every command API, and reads every attempt that had an outcome at every
    /// query API, after the log has changed.
    pub async fn run_after_log_change(self: Arc<Self>) -> turmoil::Result {
        let headers = [("x-buyer-id", "late"), ("idempotency-key", "late")];
        for &command_api in &self.command_apis {
            for product in PRODUCTS {
                let path = format!("/api/flash-sales/{product}/order");
                let body = Some(json!({"quantity": 1}));
                self.ask_late(command_api, "POST", path, &headers, body)
                    .await;
            }
        }
        for &query_api in &self.query_apis {
            for attempt in self.decided_attempts() {
                let path = format!("/api/attempts/{attempt}");
                self.ask_late(query_api, "GET", path, &[], None).await;
            }
        }
        Ok(())
    }

    async fn ask_late(
        &self,
        node: Node,
        method: &str,
        path: String,
        headers: &[(&str, &str)],
        body: Option<Value>,
    ) {
        let answer = self.call(node, method, &path, headers, body).await;
        let answer = LateAnswer { node, path, answer };
        self.late_answers.lock().push(answer);
    }

    /// The attempts that had an outcome when all work was done.
    fn decided_attempts(&self) -> BTreeSet<String> {
        let observations = self.observations.lock();
        let decided = observations.iter().filter_map(|(_, seen)| match seen {
            Observation::Attempt {
                attempt,
                at_the_end: true,
                ..
            } => Some(attempt.clone()),
            _ => None,
        });
        decided.collect()
    }
}
