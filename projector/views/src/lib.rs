//! The rows of a decision: pure functions, the same for the store and for the live tail.

mod attempt;
mod sale;

pub use attempt::attempt_rows;
pub use sale::next_sale;
