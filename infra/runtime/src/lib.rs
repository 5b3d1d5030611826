//! What every service shares, whether or not it serves HTTP: settings, telemetry, health, drain,
//! one task a partition, and trying again; and what the command-line tools share. What serves HTTP is
//! in the crate `web`.

pub mod settings;

pub mod gauges;
pub mod interruption;
pub mod log_limit;
pub mod metrics;
pub mod telemetry;

mod exposition;
mod log_queue;

pub mod health;
pub mod retry;

pub mod drain;
pub mod partitions;
pub mod shared_answer;

pub mod output;
pub mod private_files;
