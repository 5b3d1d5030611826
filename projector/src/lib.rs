//! Builds the read models from the decisions.
//!
//! [`views`] says which rows a decision makes; [`run`] reads log 2, writes them to the read
//! store by product version, and then the progress.

pub mod views;

pub mod run;

pub use run::run;
