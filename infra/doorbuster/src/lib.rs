//! The one binary that people start, as a library for the tests.

pub mod serve;

#[cfg(feature = "distributed")]
pub mod distributed;

pub mod audit_source;
pub mod skip;

mod clock_health;
pub mod demo;
pub mod file_limit;
pub mod instance;
pub mod routes;
mod start;

/// Why a program without the feature `distributed` cannot do something.
pub const EMBEDDED_ONLY: &str = "this program was built for the embedded engine only; build it for \
    Kafka and ScyllaDB with: cargo build --release --features distributed";

/// The folder of the log in a data directory.
pub(crate) const LOG_DIR: &str = "log";
/// The file of the read models in a data directory.
pub(crate) const READ_MODELS: &str = "read-models.redb";
