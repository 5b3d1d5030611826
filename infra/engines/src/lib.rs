//! Starts real Kafka, Cassandra and a schema registry on loopback, for tests and local work.
