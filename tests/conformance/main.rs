//! One list of cases for each port, run over every adapter and over the test doubles of `tests/kit`.

mod log_cases;
mod store_cases;
