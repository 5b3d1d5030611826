//! The audit: good histories pass, and every kind of tampering is reported for what it is, with
//! its place.

mod directories;
mod histories;
mod logs;
mod partitions;
mod receipts;
mod rows;
mod tampering;

mod forge;

#[path = "../deciders/support.rs"]
#[allow(dead_code, reason = "the deciders' tests use the rest of it")]
mod support;
