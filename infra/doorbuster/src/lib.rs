//! The one binary that people start, as a library for the tests.

pub mod serve;
pub mod services;

pub mod audit_source;

pub mod demo;
pub mod instance;
pub mod routes;

mod adapter_options;

/// The folder of the log in a data directory.
pub(crate) const LOG_DIR: &str = "log";
/// The file of the read models in a data directory.
pub(crate) const READ_MODELS: &str = "read-models.redb";
