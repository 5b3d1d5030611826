//! Builds the read models from the decisions.
//!
//! [`views`] says which rows a decision makes; a [`Projection`] makes those of a partition;
//! [`run`] reads log 2, writes them to the read store by product version, and then the progress.

pub mod views;

pub mod projection;

pub mod run;

pub use projection::{ProjectError, Projection};
pub use run::run;
