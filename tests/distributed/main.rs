//! The product as separate processes over real Kafka, a real CQL store and a real registry.

#[path = "../e2e/instance.rs"]
mod instance;

mod cluster;

mod deciders;
