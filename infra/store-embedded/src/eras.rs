//! The attempts by id, which stand era by era.

use std::collections::BTreeMap;
use std::ops::Bound;

use redb::{ReadableDatabase, ReadableTable};
use schemas::ids::AttemptId;

use crate::Shared;
use crate::open::definition;
use crate::reads::newer;
use crate::recent::Recent;
use crate::rows::{ATTEMPT_KEY, Era, Table, version};

/// Attempts by id, as they are stored.
pub(crate) struct Page {
    pub(crate) rows: BTreeMap<AttemptId, Vec<u8>>,
    /// The id that the next page comes after; none when this is the last.
    pub(crate) next: Option<AttemptId>,
}

/// How many rows an era gives to a page.
const EACH: usize = 64;

const LEAST: AttemptId = AttemptId::from_bytes([0; 16]);
const GREATEST: AttemptId = AttemptId::from_bytes([0xff; 16]);

type Key = [u8; ATTEMPT_KEY];
/// The last row, key and value, up to a key.
type Last = Result<Option<(Vec<u8>, Vec<u8>)>, redb::Error>;

fn in_memory(rows: &BTreeMap<Vec<u8>, Vec<u8>>) -> impl Fn(&Key) -> Last {
    |key| {
        let up_to = (Bound::Unbounded, Bound::Included(key.as_slice()));
        let last = rows.range::<[u8], _>(up_to).next_back();
        Ok(last.map(|(key, value)| (key.clone(), value.clone())))
    }
}

fn in_file(file: &impl ReadableTable<&'static [u8], &'static [u8]>) -> impl Fn(&Key) -> Last {
    |key| {
        let last = file.range::<&[u8]>(..=key.as_slice())?.next_back();
        let last = last.transpose()?;
        Ok(last.map(|(key, value)| (key.value().to_vec(), value.value().to_vec())))
    }
}

/// The eras that a layer has rows of, newest first.
pub(crate) fn of_layer(layer: &Recent) -> Result<Vec<Era>, redb::Error> {
    eras(in_memory(layer.rows(Table::Attempts)))
}

/// The eras that the file has rows of, newest first.
pub(crate) fn of_file(file: &redb::Database) -> Result<Vec<Era>, redb::Error> {
    let file = file.begin_read()?;
    let file = file.open_table(definition(Table::Attempts))?;
    eras(in_file(&file))
}

/// An attempt's row in its highest version. Of several eras the newest counts: what is asked again
/// under the same name in a later round has a later place, and a higher version.
pub(crate) fn newest(shared: &Shared, id: AttemptId) -> Result<Option<Vec<u8>>, redb::Error> {
    let mut found = None;
    shared.layers.read(|layers| {
        for layer in layers {
            let rows = layer.rows(Table::Attempts);
            let eras = of_layer(layer)?.into_iter();
            let value = eras
                .filter_map(|era| rows.get(era.key(id).as_slice()))
                .next();
            found = newer(found.take(), value.cloned());
        }
        Ok::<_, redb::Error>(())
    })?;
    let file = shared.file.begin_read()?;
    let file = file.open_table(definition(Table::Attempts))?;
    for era in shared.eras.read().iter().rev() {
        if let Some(value) = file.get(era.key(id).as_slice())? {
            return Ok(newer(found, Some(value.value().to_vec())));
        }
    }
    Ok(found)
}

/// Some attempts in the order of their ids, each once and in its highest version.
///
/// Every era gives its next few. Up to the least id at which one of them had to stop, none has
/// more than it gave.
pub(crate) fn page(shared: &Shared, after: Option<AttemptId>) -> Result<Page, redb::Error> {
    let mut merge = Merge {
        rows: BTreeMap::new(),
        stop: None,
    };
    let keys = |era: Era| -> (Bound<Key>, Bound<Key>) {
        let first = after.map_or(Bound::Included(era.key(LEAST)), |after| {
            Bound::Excluded(era.key(after))
        });
        (first, Bound::Included(era.key(GREATEST)))
    };
    shared.layers.read(|layers| {
        for layer in layers {
            let rows = layer.rows(Table::Attempts);
            for era in of_layer(layer)? {
                let (from, to) = keys(era);
                let some = rows.range::<[u8], _>((slice(&from), slice(&to))).take(EACH);
                merge.take(some.map(|(key, value)| (key.as_slice(), value.as_slice())));
            }
        }
        Ok::<_, redb::Error>(())
    })?;
    let file = shared.file.begin_read()?;
    let file = file.open_table(definition(Table::Attempts))?;
    for &era in shared.eras.read().iter() {
        let (from, to) = keys(era);
        let some = file.range::<&[u8]>((slice(&from), slice(&to)))?.take(EACH);
        let some: Vec<_> = some.collect::<Result<_, _>>()?;
        merge.take(some.iter().map(|(key, value)| (key.value(), value.value())));
    }
    if let Some(stop) = merge.stop {
        merge.rows.retain(|id, _| *id <= stop);
    }
    Ok(Page {
        rows: merge.rows,
        next: merge.stop,
    })
}

fn slice(bound: &Bound<Key>) -> Bound<&[u8]> {
    bound.as_ref().map(|key| key.as_slice())
}

/// A page being put together.
struct Merge {
    rows: BTreeMap<AttemptId, Vec<u8>>,
    /// The least id at which an era had to stop.
    stop: Option<AttemptId>,
}

impl Merge {
    /// Takes the next rows of an era, [`EACH`] of them if there are as many.
    fn take<'a>(&mut self, rows: impl Iterator<Item = (&'a [u8], &'a [u8])>) {
        let ids = rows.filter_map(|(key, value)| Some((Era::of_key(key)?.1, value)));
        let mut taken = 0;
        for (id, value) in ids {
            let row = self.rows.entry(id).or_default();
            if row.is_empty() || version(value) > version(row) {
                *row = value.to_vec();
            }
            taken += 1;
            if taken == EACH {
                self.stop = Some(self.stop.map_or(id, |stop| stop.min(id)));
            }
        }
    }
}

/// The eras that there are rows of, newest first.
fn eras(last_up_to: impl Fn(&Key) -> Last) -> Result<Vec<Era>, redb::Error> {
    let mut eras = Vec::new();
    let mut up_to = Some(Era::LAST);
    while let Some(era) = up_to {
        let last = last_up_to(&era.key(GREATEST))?;
        let found = last.and_then(|(key, _)| Era::of_key(&key));
        eras.extend(found.map(|(era, _)| era));
        up_to = found.and_then(|(era, _)| era.before());
    }
    Ok(eras)
}

#[cfg(test)]
mod tests {
    use ports::ReadStore;
    use ports::read_store::{AttemptRow, Progress, Row};
    use schemas::ids::{Offset, Partition, Position};

    use super::*;
    use crate::EmbeddedStore;
    use crate::rows::ERA_BITS;
    use crate::rows::tests::attempt;

    /// The attempt of a number, which is asked for in many eras of several partitions. Every third
    /// is asked for again in the era after.
    fn asked(number: u32, again: bool) -> AttemptRow {
        let spread = u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        let offset = i64::from(number / 40 + u32::from(again)) << ERA_BITS | i64::from(number);
        AttemptRow {
            attempt_id: AttemptId::from_bytes(spread.to_be_bytes()),
            position: Position {
                partition: Partition(number % 3),
                offset: Offset(offset),
            },
            ..attempt(1, u64::from(number) + 1 + 10_000 * u64::from(again))
        }
    }

    #[tokio::test]
    async fn an_attempt_is_one_row_however_many_eras_have_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("read.redb");
        let store = EmbeddedStore::open(&path).unwrap();
        let progress = Progress {
            next: Offset(1),
            claim: Offset(0),
            answered: Offset(0),
        };
        let mut newest = BTreeMap::new();
        // Most of them are in the file, some in memory only, and some in both.
        for (again, range) in [(false, 0..700), (true, 0..400), (false, 700..900)] {
            let first = newest.is_empty();
            let rows: Vec<_> = range
                .filter(|number| !again || number % 3 == 0)
                .map(|number| asked(number, again))
                .collect();
            newest.extend(rows.iter().map(|row| (row.attempt_id, row.clone())));
            let rows = rows.into_iter().map(Row::Attempt).collect();
            store.apply(Partition(0), rows, progress).await.unwrap();
            if first {
                while store.shared.layers.begin_writing().is_some() {
                    let recent = store.shared.layers.begin_writing().unwrap();
                    store.shared.write(&recent).unwrap();
                    store.shared.layers.written();
                }
            }
        }
        for (id, row) in &newest {
            assert_eq!(store.attempt(*id).await, Ok(Some(row.clone())));
        }
        assert_eq!(
            store.attempt(AttemptId::from_bytes([9; 16])).await,
            Ok(None)
        );
        let (send, visited) = std::sync::mpsc::channel();
        let visit = move |row| send.send(row).is_ok();
        store.visit(Box::new(visit)).await.unwrap();
        let visited: Vec<_> = visited.iter().collect();
        let expected: Vec<_> = newest.into_values().map(Row::Attempt).collect();
        assert_eq!(visited, expected, "in the order of ids, each once");
    }
}
