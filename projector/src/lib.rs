//! Builds the read models from the decisions.
//!
//! The `views` crate defines the rows of a decision. A [`Projection`] makes the rows of one
//! partition. [`run`] reads `stock-decisions` and writes the rows to the read store by product
//! version, then the progress.

pub mod projection;
pub mod run;

pub use projection::{ProjectError, Projection};
pub use run::run;
