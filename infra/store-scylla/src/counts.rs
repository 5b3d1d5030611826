//! What went wrong between this process and the nodes, counted since the store was opened.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use scylla::errors::{DbError, ExecutionError, RequestAttemptError};
use scylla::policies::retry::{
    DefaultRetryPolicy, RequestInfo, RetryDecision, RetryPolicy, RetrySession,
};

/// The kinds of failed requests and attempts to connect, as they are counted.
pub const ERROR_KINDS: [&str; 3] = ["timeout", "unreachable", "other"];

/// How many requests and attempts to connect failed, by kind, and how many requests were sent again.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    errors: [AtomicU64; ERROR_KINDS.len()],
    retries: AtomicU64,
}

impl Counts {
    pub(crate) fn failed(&self, error: &ExecutionError) {
        match error {
            ExecutionError::RequestTimeout(_)
            | ExecutionError::LastAttemptError(RequestAttemptError::DbError(
                DbError::ReadTimeout { .. } | DbError::WriteTimeout { .. },
                _,
            )) => self.timed_out(),
            ExecutionError::EmptyPlan
            | ExecutionError::ConnectionPoolError(_)
            | ExecutionError::LastAttemptError(
                RequestAttemptError::BrokenConnectionError(_)
                | RequestAttemptError::DbError(DbError::Unavailable { .. }, _),
            ) => self.unreachable(),
            _ => self.count(2),
        }
    }

    pub(crate) fn timed_out(&self) {
        self.count(0);
    }

    pub(crate) fn unreachable(&self) {
        self.count(1);
    }

    fn count(&self, kind: usize) {
        self.errors[kind].fetch_add(1, Relaxed);
    }

    /// The number of errors of each kind.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.errors.iter().map(|count| count.load(Relaxed));
        ERROR_KINDS.into_iter().zip(counts)
    }

    pub(crate) fn retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }
}

/// The driver's own policy, which counts how often a request is sent again.
#[derive(Debug)]
pub(crate) struct CountedRetries(pub(crate) Arc<Counts>);

struct CountedSession {
    decides: Box<dyn RetrySession>,
    counts: Arc<Counts>,
}

impl RetryPolicy for CountedRetries {
    fn new_session(&self) -> Box<dyn RetrySession> {
        Box::new(CountedSession {
            decides: DefaultRetryPolicy::new().new_session(),
            counts: self.0.clone(),
        })
    }
}

impl RetrySession for CountedSession {
    fn decide_should_retry(&mut self, request: RequestInfo) -> RetryDecision {
        let decision = self.decides.decide_should_retry(request);
        if let RetryDecision::RetrySameTarget(_) | RetryDecision::RetryNextTarget(_) = decision {
            self.counts.retries.fetch_add(1, Relaxed);
        }
        decision
    }

    fn reset(&mut self) {
        self.decides.reset();
    }
}
