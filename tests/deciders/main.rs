//! Deciders over a log that fails, on tokio's paused time, so that a seed repeats a run.

mod another_log;
mod backpressure;
mod log_time;
mod overlap;
mod poison;
mod recovery;
mod reports;
mod support;
