//! What is the adapter's own, on a real node: connecting, tables, partitions, versions. What
//! every read store must do is in the conformance tests.

mod support;

mod away;
mod eras;
mod schema;
mod secure;
mod versions;
