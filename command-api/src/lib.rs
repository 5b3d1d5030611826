//! The write side: the HTTP API that appends commands, and the decider that answers them.

pub mod http;

pub mod decider;
mod partition;
