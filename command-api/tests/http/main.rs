//! The HTTP API's answers to good, malformed, oversized, hostile and repeated requests, and to a
//! log that fails in each way it can.

#[path = "../support/mod.rs"]
mod support;

mod orders;

mod admin;
mod clock_corrections;

mod another_log;
mod hostile;
mod trace;
