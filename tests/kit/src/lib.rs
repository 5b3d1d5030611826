//! Test doubles of the ports. They keep the ports' contracts, in memory, and fail where a test lets
//! them fail. The conformance suite (`tests/conformance`) runs over them as over the adapters.

mod calls;
mod clock;
mod faulty_log;
mod memory_log;
mod memory_store;

pub use clock::ManualClock;
pub use faulty_log::{Faults, FaultyLog, QueueBound};
pub use memory_log::{MemoryLog, OnAppend};
pub use memory_store::MemoryStore;
