//! The read side over HTTP: the router in process, over a log and a store in memory. The test
//! plays command API, decider and projector. Time is paused and moves only while a test waits.

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod commands;
mod sales;

mod lists;
mod requests;
mod trace;

mod another_log;
mod faults;
mod limits;
