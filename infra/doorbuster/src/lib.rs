//! The one binary people start, as a library for the tests.

pub mod serve;
pub mod services;

pub mod demo;
pub mod routes;
pub mod running;

mod adapter_options;

pub mod rehearse;

pub mod audit;

/// The folder of the log in a data directory.
pub(crate) const LOG_DIR: &str = "log";
/// The file of the read models in a data directory.
pub(crate) const READ_MODELS: &str = "read-models.redb";
