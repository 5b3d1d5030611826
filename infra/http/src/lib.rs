//! What every HTTP API of the product shares: the server and its limits, problem documents,
//! extractors, authorisation, receipts, and the routes for operations.

pub mod server;

pub mod counts;
pub mod limits;
pub mod operations;

pub mod problem;
pub mod problem_page;
pub mod schema;

pub mod auth;
pub mod extract;
pub mod receipt;
pub mod rfc3339;
pub mod trace;
