//! Builds the read models from the decisions.
//!
//! The `views` crate says which rows a decision makes; a [`Projection`] makes those of a partition;
//! [`run`] reads `stock-decisions`, writes them to the read store by product version, and then the progress.

pub mod projection;

pub mod run;

pub use projection::{ProjectError, Projection};
pub use run::run;
