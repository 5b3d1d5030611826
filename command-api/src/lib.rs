//! The write side: the door that takes attempts, and the decider that answers them.

pub mod http;

pub mod decider;
