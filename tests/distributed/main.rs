//! The product as separate processes over real Kafka, a real CQL store and a real registry.

#[path = "../e2e/demand.rs"]
mod demand;
#[path = "../e2e/instance.rs"]
mod instance;
#[path = "../e2e/oracle.rs"]
mod oracle;
#[path = "../../infra/doorbuster/tests/support/venv.rs"]
mod venv;

mod cluster;
mod history;
mod shop;

mod brokers;
mod deciders;
mod projectors;

mod command_apis;
mod outage;

mod agree;
mod another_log;
mod interop;
mod poison;
