//! What every service shares: settings, telemetry, health, problem documents, drain.

pub mod settings;
pub mod telemetry;

pub mod drain;
pub mod health;
pub mod operations;
pub mod server;

pub mod auth;
pub mod extract;
pub mod problem;
pub mod receipt;
pub mod rfc3339;
pub mod trace;

pub mod metrics;
pub mod partitions;
