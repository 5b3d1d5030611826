//! The queries, answered from the memtables and the file.

use std::collections::BTreeMap;
use std::ops::Bound;

use ports::read_store::{AttemptRow, CommandRow, MAX_PAGE, Progress, Row, SaleRow, StoreError};
use schemas::ids::{AttemptId, Partition, Position, ProductId};

use crate::contents::Contents;
use crate::rows::{
    Table, decode, decode_attempt, decode_command, decode_progress, decode_sale, keys_after, newer,
    position_key, version,
};
use crate::tables::{PROGRESS, definition};

/// Rows by key, as they are stored.
type Page = BTreeMap<Vec<u8>, Vec<u8>>;
type Keys = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl Contents {
    pub(crate) fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        let value = self
            .newest_attempt(id)
            .map_err(|error| self.read_failed(error))?;
        value.map(|value| decode_attempt(&value)).transpose()
    }

    pub(crate) fn command(&self, at: Position) -> Result<Option<CommandRow>, StoreError> {
        let value = self
            .get(Table::Commands, &position_key(at))
            .map_err(|error| self.read_failed(error))?;
        value.map(|value| decode_command(&value)).transpose()
    }

    pub(crate) fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError> {
        let value = self
            .get(Table::Sales, product.as_str().as_bytes())
            .map_err(|error| self.read_failed(error))?;
        value.map(|value| decode_sale(&value)).transpose()
    }

    pub(crate) fn sales(
        &self,
        after: Option<&ProductId>,
        limit: usize,
    ) -> Result<Vec<SaleRow>, StoreError> {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_str().into()));
        let page = self.page(Table::Sales, (from, Bound::Unbounded), limit.min(MAX_PAGE));
        page.map_err(|error| self.read_failed(error))?
            .values()
            .map(|value| decode_sale(value))
            .collect()
    }

    /// The orders of a buyer or the intents of a product.
    pub(crate) fn attempts_of(
        &self,
        table: Table,
        owner: &str,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let page = self.page(table, keys_after(owner, after), limit.min(MAX_PAGE));
        page.map_err(|error| self.read_failed(error))?
            .values()
            .map(|value| decode_attempt(value))
            .collect()
    }

    pub(crate) fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError> {
        let in_memory: BTreeMap<_, _> = self.memtables.read(|memtables| {
            memtables
                .iter()
                .rev()
                .flat_map(|memtable| memtable.progress.clone())
                .collect()
        });
        let mut progress = self
            .progress_in_file()
            .map_err(|error| self.read_failed(error))?;
        progress.extend(in_memory);
        Ok(progress)
    }

    /// Visits all rows page by page, each in a short read transaction of its own: a long one would
    /// keep redb from reusing freed space.
    pub(crate) fn visit(
        &self,
        mut visit: Box<dyn FnMut(Row) -> bool + Send>,
    ) -> Result<(), StoreError> {
        let other_tables = Table::ALL.into_iter().filter(|t| *t != Table::Attempts);
        for table in other_tables {
            let mut from = Bound::Unbounded;
            loop {
                let page = self
                    .page(table, (from, Bound::Unbounded), MAX_PAGE)
                    .map_err(|error| self.read_failed(error))?;
                for value in page.values() {
                    if !visit(decode(table, value)?) {
                        return Ok(());
                    }
                }
                match page.into_iter().next_back() {
                    Some((last, _)) => from = Bound::Excluded(last),
                    None => break,
                }
            }
        }
        let mut after = None;
        loop {
            let page = self
                .attempts_after(after)
                .map_err(|error| self.read_failed(error))?;
            for value in page.rows.values() {
                if !visit(decode(Table::Attempts, value)?) {
                    return Ok(());
                }
            }
            after = page.next;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// The highest version of one row.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, redb::Error> {
        let found = self.memtables.read(|memtables| {
            let values = memtables
                .iter()
                .filter_map(|memtable| memtable.rows(table).get(key));
            values.max_by_key(|value| version(value)).cloned()
        });
        let file = self.begin_read()?.open_table(definition(table))?;
        let in_file = file.get(key)?.map(|value| value.value().to_vec());
        Ok(newer(found, in_file))
    }

    /// The first `limit` rows with these keys, each in its highest version. A row of the answer is
    /// among the first `limit` rows of every memtable that has it, and of the file, so none of them
    /// is read further.
    fn page(&self, table: Table, keys: Keys, limit: usize) -> Result<Page, redb::Error> {
        let mut page = Page::new();
        let mut add = |key: &[u8], value: &[u8]| match page.get_mut(key) {
            Some(found) => {
                if version(value) > version(found) {
                    *found = value.to_vec();
                }
            }
            None => {
                page.insert(key.to_vec(), value.to_vec());
            }
        };
        self.memtables.read(|memtables| {
            for memtable in memtables {
                let rows = memtable
                    .rows(table)
                    .range::<Vec<u8>, _>((keys.0.as_ref(), keys.1.as_ref()));
                rows.take(limit).for_each(|(key, value)| add(key, value));
            }
        });
        let file = self.begin_read()?.open_table(definition(table))?;
        let range = (
            keys.0.as_ref().map(Vec::as_slice),
            keys.1.as_ref().map(Vec::as_slice),
        );
        for row in file.range::<&[u8]>(range)?.take(limit) {
            let (key, value) = row?;
            add(key.value(), value.value());
        }
        while page.len() > limit {
            page.pop_last();
        }
        Ok(page)
    }

    fn progress_in_file(&self) -> Result<BTreeMap<Partition, Progress>, redb::Error> {
        let file = self.begin_read()?.open_table(PROGRESS)?;
        let mut progress = BTreeMap::new();
        for row in file.range::<u32>(..)? {
            let (partition, value) = row?;
            progress.insert(Partition(partition.value()), decode_progress(value.value()));
        }
        Ok(progress)
    }
}
