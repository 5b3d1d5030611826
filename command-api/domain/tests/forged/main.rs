//! One good history, forged by hand in many ways: the ledger names each forgery.

mod history;

mod chain;
mod orders;
mod sale;
mod time;
