//! Deciders over a log that fails, on tokio's paused time: one seed, one run.

mod overlap;
mod recovery;
mod support;
