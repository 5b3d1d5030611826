//! What every service shares, whether or not it serves HTTP: settings, telemetry, health, drain,
//! one task a partition, and trying again. What serves HTTP is in the crate `web`.

pub mod settings;

pub mod metrics;
pub mod telemetry;

pub mod health;
pub mod retry;

pub mod drain;
pub mod partitions;
