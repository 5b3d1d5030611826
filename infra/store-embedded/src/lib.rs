//! The read store on redb.
//!
//! Rows are applied to a memtable, where reads see them at once. At most twice a second, and less
//! often the more there is to write, a thread flushes the memtable to the file in one durable
//! transaction, sorted by key:
//!
//! ```text
//! apply --> active memtable --> memtable being flushed --> redb (file)
//!                 \__________________\___________________\__ reads
//! ```
//!
//! A read looks in all three and takes the highest version that it finds. That is the version rule
//! of the port, so `apply` need not read the file, and a row that changes thousands of times a
//! second, as a hot sale's does, is written to the file twice a second at most.
//!
//! Each memtable is written with its progress in one transaction, so the file never has progress
//! without its rows. A crash loses what was still in memory: the last four seconds at most, and the
//! flush under way. The topic `stock-decisions` has all of it, and the projector resumes from the
//! progress that it finds.
//!
//! Measured on two shared cores, with an attempt row under a random key and an order row for each
//! attempt:
//!
//! | | to a file of 250 MiB | to 1 GiB | longest call |
//! |---|---|---|---|
//! | this store, as fast as it goes | 270,000 rows/s | 170,000 rows/s | waits for the disk |
//! | this store, at 100,000 rows/s | | holds; p99 0.2 ms | 12 ms |
//! | a transaction for each batch, made durable every second | 118,000-170,000 rows/s | 72,000-85,000 rows/s | 250-500 ms |
//!
//! The last line is the straightforward alternative, with redb's `Durability::None` in between. It
//! copies a path of pages for every batch, and all calls wait while a second's worth is made durable.

mod rows;
mod tables;

mod memtables;
mod throttle;
mod throttled_file;

mod contents;
mod shards;

mod attempts;
mod lookups;
mod reads;

mod flush;

mod open;
mod store;

#[cfg(test)]
mod tests;

pub use open::OpenError;
pub use store::EmbeddedStore;
