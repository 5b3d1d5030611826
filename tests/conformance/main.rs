//! One list of cases per port, run over every adapter.

mod log_cases;
mod store_cases;
