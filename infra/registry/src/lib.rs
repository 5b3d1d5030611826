//! Schema ids from a Confluent-compatible registry.
