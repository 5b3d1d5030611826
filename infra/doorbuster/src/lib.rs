//! The one binary people start, as a library for the tests.

pub mod serve;

pub mod demo;
pub mod routes;

pub mod rehearse;

pub mod audit;
