//! The write side: the HTTP API that appends commands, and the decider that answers them.

pub mod http;
pub mod log_watch;

pub mod decider;
mod partition;
