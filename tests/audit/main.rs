//! The audit: good histories pass, and every way of tampering with one is named for what it
//! is, with its place.

mod directories;
mod histories;
mod logs;
mod receipts;
mod rows;

mod forge;

#[path = "../deciders/support.rs"]
#[allow(dead_code, reason = "the deciders' tests use the rest of it")]
mod support;
