//! The read side as its clients meet it: the router in process, over a log and a store in
//! memory on which the test plays door, decider and projector. Time stands still but for waits.

#[path = "../support/mod.rs"]
mod support;

mod attempts;
mod sales;

mod lists;
mod requests;
mod trace;

mod faults;
mod limits;
