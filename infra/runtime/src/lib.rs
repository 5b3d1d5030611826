//! What every service shares: settings, telemetry, health, problem documents, drain.

pub mod health;
pub mod metrics;
