//! Which shards a memtable or the file has attempts of.

use std::collections::BTreeMap;
use std::ops::Bound;

use redb::{ReadableDatabase, ReadableTable};
use schemas::ids::AttemptId;

use crate::memtables::Memtable;
use crate::rows::{ATTEMPT_KEY_BYTES, Shard, Table};
use crate::tables::definition;

pub(crate) const LEAST: AttemptId = AttemptId::from_bytes([0; 16]);
pub(crate) const GREATEST: AttemptId = AttemptId::from_bytes([0xff; 16]);

/// A key of [`Table::Attempts`].
pub(crate) type Key = [u8; ATTEMPT_KEY_BYTES];
/// The key of the last row up to a key.
type LastKey = Result<Option<Vec<u8>>, redb::Error>;

/// The shards that a memtable has rows of, newest first.
pub(crate) fn of_memtable(memtable: &Memtable) -> Result<Vec<Shard>, redb::Error> {
    list(last_in_memory(memtable.rows(Table::Attempts)))
}

/// The shards that the file has rows of, newest first.
pub(crate) fn of_file(file: &redb::Database) -> Result<Vec<Shard>, redb::Error> {
    let file = file.begin_read()?;
    let file = file.open_table(definition(Table::Attempts))?;
    list(last_in_file(&file))
}

/// Looks up the last row of each shard in turn, which leads to the next lower shard.
fn list(last_up_to: impl Fn(&Key) -> LastKey) -> Result<Vec<Shard>, redb::Error> {
    let mut shards = Vec::new();
    let mut up_to = Some(Shard::LAST);
    while let Some(shard) = up_to {
        let last = last_up_to(&shard.key(GREATEST))?;
        let found = last.and_then(|key| Shard::of_key(&key));
        shards.extend(found.map(|(shard, _)| shard));
        up_to = found.and_then(|(shard, _)| shard.before());
    }
    Ok(shards)
}

fn last_in_memory(rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> impl Fn(&Key) -> LastKey {
    |key| {
        let up_to = (Bound::Unbounded, Bound::Included(key.as_slice()));
        let last = rows.range::<[u8], _>(up_to).next_back();
        Ok(last.map(|(key, _)| key.clone()))
    }
}

fn last_in_file(
    file: &impl ReadableTable<&'static [u8], &'static [u8]>,
) -> impl Fn(&Key) -> LastKey {
    |key| {
        let last = file.range::<&[u8]>(..=key.as_slice())?.next_back();
        let last = last.transpose()?;
        Ok(last.map(|(key, _)| key.value().to_vec()))
    }
}
