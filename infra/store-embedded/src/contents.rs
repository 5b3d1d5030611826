//! What callers and the flushing thread share: the file, the memtables above it, and the list of
//! the file's shards.

use std::collections::BTreeSet;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::memtables::Memtables;
use crate::rows::Shard;
use crate::shards;

/// The contents of a store.
pub(crate) struct Contents {
    pub(crate) file: redb::Database,
    pub(crate) memtables: Arc<Memtables>,
    /// The shards that the file has attempts of. A shard is added before the memtable with its rows
    /// is dropped.
    pub(crate) shards: RwLock<BTreeSet<Shard>>,
}

impl Contents {
    pub(crate) fn new(
        file: redb::Database,
        memtables: Arc<Memtables>,
    ) -> Result<Self, redb::Error> {
        let shards = shards::of_file(&file)?.into_iter().collect();
        Ok(Self {
            file,
            memtables,
            shards: RwLock::new(shards),
        })
    }
}
