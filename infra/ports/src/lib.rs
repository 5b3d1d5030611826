//! The ports the services name. Adapters implement them, and one conformance suite holds
//! every adapter to what is written here.

pub mod event_log;
pub mod read_store;

pub mod clock;

pub use clock::Clock;
pub use event_log::{AppendError, EventLog, Group, LogReader, LogRecord, NewRecord, ReadError};
pub use read_store::{ReadStore, StoreError};
