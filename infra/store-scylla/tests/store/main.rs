//! Tests of this adapter on a real node: connecting, tables, partitions, versions. The conformance suite
//! tests what every read store must do.

mod support;

mod away;
mod eras;
mod schema;
mod secure;
mod versions;
