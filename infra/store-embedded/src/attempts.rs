//! Reading the attempts by id, which are kept shard by shard.

use std::collections::BTreeMap;
use std::ops::Bound;

use schemas::ids::AttemptId;

use crate::contents::Contents;
use crate::rows::{Shard, Table, newer, version};
use crate::shards::{self, GREATEST, Key, LEAST};
use crate::tables::definition;

/// Attempts by id, as they are stored.
pub(crate) struct Page {
    pub(crate) rows: BTreeMap<AttemptId, Vec<u8>>,
    /// The id that the next page comes after; none when this is the last page.
    pub(crate) next: Option<AttemptId>,
}

/// How many rows each shard contributes to a page.
const ROWS_PER_SHARD: usize = 64;

impl Contents {
    /// An attempt's row in its highest version. When several shards have the id, the newest shard
    /// counts: the same id used again in a later round has a higher offset and a higher version.
    pub(crate) fn newest_attempt(&self, id: AttemptId) -> Result<Option<Vec<u8>>, redb::Error> {
        let mut found = None;
        self.memtables.read(|memtables| {
            for memtable in memtables {
                let rows = memtable.rows(Table::Attempts);
                let shards = shards::of_memtable(memtable)?.into_iter();
                let value = shards
                    .filter_map(|shard| rows.get(shard.key(id).as_slice()))
                    .next();
                found = newer(found.take(), value.cloned());
            }
            Ok::<_, redb::Error>(())
        })?;
        let file = self.begin_read()?;
        let file = file.open_table(definition(Table::Attempts))?;
        for shard in self.shards.read().iter().rev() {
            if let Some(value) = file.get(shard.key(id).as_slice())? {
                return Ok(newer(found, Some(value.value().to_vec())));
            }
        }
        Ok(found)
    }

    /// Some attempts in the order of their ids, each once and in its highest version.
    ///
    /// Every shard contributes its next few rows. The page ends at the least id at which a shard
    /// reached its limit: up to there no shard has more rows than it contributed.
    pub(crate) fn attempts_after(&self, after: Option<AttemptId>) -> Result<Page, redb::Error> {
        let mut merge = Merge {
            rows: BTreeMap::new(),
            stop: None,
        };
        let keys = |shard: Shard| -> (Bound<Key>, Bound<Key>) {
            let first = after.map_or(Bound::Included(shard.key(LEAST)), |after| {
                Bound::Excluded(shard.key(after))
            });
            (first, Bound::Included(shard.key(GREATEST)))
        };
        self.memtables.read(|memtables| {
            for memtable in memtables {
                let rows = memtable.rows(Table::Attempts);
                for shard in shards::of_memtable(memtable)? {
                    let (from, to) = keys(shard);
                    let rows = rows.range::<[u8], _>((slice(&from), slice(&to)));
                    let rows = rows.map(|(key, value)| (key.as_slice(), value.as_slice()));
                    merge.add(rows.take(ROWS_PER_SHARD));
                }
            }
            Ok::<_, redb::Error>(())
        })?;
        let file = self.begin_read()?;
        let file = file.open_table(definition(Table::Attempts))?;
        for &shard in self.shards.read().iter() {
            let (from, to) = keys(shard);
            let rows = file.range::<&[u8]>((slice(&from), slice(&to)))?;
            let rows: Vec<_> = rows.take(ROWS_PER_SHARD).collect::<Result<_, _>>()?;
            merge.add(rows.iter().map(|(key, value)| (key.value(), value.value())));
        }
        if let Some(stop) = merge.stop {
            merge.rows.retain(|id, _| *id <= stop);
        }
        Ok(Page {
            rows: merge.rows,
            next: merge.stop,
        })
    }
}

fn slice(bound: &Bound<Key>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| key.as_slice())
}

/// A page under construction.
struct Merge {
    rows: BTreeMap<AttemptId, Vec<u8>>,
    /// The least id at which a shard reached its limit.
    stop: Option<AttemptId>,
}

impl Merge {
    /// Adds the next rows of a shard: [`ROWS_PER_SHARD`] of them, or all that are left.
    fn add<'a>(&mut self, rows: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        let ids = rows.filter_map(|(key, value)| Some((Shard::of_key(key)?.1, value)));
        let mut added = 0;
        for (id, value) in ids {
            let row = self.rows.entry(id).or_default();
            if row.is_empty() || version(value) > version(row) {
                *row = value.to_vec();
            }
            added += 1;
            if added == ROWS_PER_SHARD {
                self.stop = Some(self.stop.map_or(id, |stop| stop.min(id)));
            }
        }
    }
}
