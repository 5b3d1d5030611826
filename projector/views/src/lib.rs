//! The rows of a decision: pure functions, the same for the store and for the live tail.

mod attempt;
mod command;
mod sale;

pub use attempt::attempt_rows;
pub use command::{command_row, skipped_row};
pub use sale::next_sale;
