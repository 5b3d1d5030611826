//! What went wrong between this process and the brokers, counted since the log was opened.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use rdkafka::error::RDKafkaErrorCode;

/// The kinds of errors that librdkafka reports, as they are counted.
pub const ERROR_KINDS: [&str; 5] = [
    "all_brokers_down",
    "connection",
    "timeout",
    "login",
    "other",
];

/// How often each kind of error was reported, and how many appends timed out.
#[derive(Default)]
pub(crate) struct Counts {
    errors: [AtomicU64; ERROR_KINDS.len()],
    appends_timed_out: AtomicU64,
}

impl Counts {
    pub(crate) fn error(&self, code: Option<RDKafkaErrorCode>) {
        use RDKafkaErrorCode as E;
        let kind = match code {
            Some(E::AllBrokersDown) => 0,
            Some(E::BrokerTransportFailure | E::Resolve) => 1,
            Some(E::OperationTimedOut | E::RequestTimedOut | E::MessageTimedOut) => 2,
            Some(E::Authentication | E::SaslAuthenticationFailed | E::SSL) => 3,
            _ => 4,
        };
        self.errors[kind].fetch_add(1, Relaxed);
    }

    pub(crate) fn append_timed_out(&self) {
        self.appends_timed_out.fetch_add(1, Relaxed);
    }

    /// The number of errors of each kind.
    pub(crate) fn errors(&self) -> impl Iterator<Item = (&'static str, u64)> {
        let counts = self.errors.iter().map(|count| count.load(Relaxed));
        ERROR_KINDS.into_iter().zip(counts)
    }

    pub(crate) fn appends_timed_out_so_far(&self) -> u64 {
        self.appends_timed_out.load(Relaxed)
    }
}
