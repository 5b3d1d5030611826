//! The ports: the traits through which the services use a log, a read store and a clock. Adapters
//! implement them, and one conformance suite (`tests/conformance`) checks every adapter and every
//! test double against the contracts in these doc comments.

pub mod checked_clock;
pub mod clock;
pub mod event_log;
pub mod log_mark;
pub mod read_store;

mod progress_check;

pub use checked_clock::CheckedClock;
pub use clock::Clock;
pub use event_log::{AppendError, EventLog, Group, LogReader, LogRecord, NewRecord, ReadError};
pub use log_mark::LogMark;
pub use read_store::{ReadStore, StoreError};
