//! The read store on ScyllaDB or Apache Cassandra.
