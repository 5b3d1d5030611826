//! The questions, answered from memory and file together.

use std::collections::BTreeMap;
use std::ops::Bound;

use ports::read_store::{AttemptRow, MAX_PAGE, Progress, Row, SaleRow, StoreError};
use redb::ReadableDatabase;
use schemas::ids::{AttemptId, Partition, Position, ProductId};

use crate::Shared;
use crate::eras;
use crate::open::{PROGRESS, definition};
use crate::rows::{
    Table, decode, decode_attempt, decode_progress, decode_sale, keys_after, version,
};

/// Rows by key, as they are stored.
type Page = BTreeMap<Vec<u8>, Vec<u8>>;
type Keys = (Bound<Vec<u8>>, Bound<Vec<u8>>);

impl Shared {
    pub(crate) fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        let value = eras::newest(self, id).map_err(failed)?;
        value.map(|value| decode_attempt(&value)).transpose()
    }

    pub(crate) fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError> {
        let value = self
            .get(Table::Sales, product.as_str().as_bytes())
            .map_err(failed)?;
        value.map(|value| decode_sale(&value)).transpose()
    }

    pub(crate) fn sales(
        &self,
        after: Option<&ProductId>,
        limit: usize,
    ) -> Result<Vec<SaleRow>, StoreError> {
        let from = after.map_or(Bound::Unbounded, |id| Bound::Excluded(id.as_str().into()));
        let page = self.page(Table::Sales, (from, Bound::Unbounded), limit.min(MAX_PAGE));
        page.map_err(failed)?
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
        page.map_err(failed)?
            .values()
            .map(|value| decode_attempt(value))
            .collect()
    }

    pub(crate) fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError> {
        let above: BTreeMap<_, _> = self.layers.read(|layers| {
            layers
                .iter()
                .rev()
                .flat_map(|layer| layer.progress.clone())
                .collect()
        });
        let mut progress = self.progress_in_file().map_err(failed)?;
        progress.extend(above);
        Ok(progress)
    }

    /// Page by page, each with a short read transaction of its own: a long one would keep the
    /// file from using freed space again.
    pub(crate) fn visit(
        &self,
        mut visit: Box<dyn FnMut(Row) -> bool + Send>,
    ) -> Result<(), StoreError> {
        let by_key = Table::ALL.into_iter().filter(|t| *t != Table::Attempts);
        for table in by_key {
            let mut from = Bound::Unbounded;
            loop {
                let page = self
                    .page(table, (from, Bound::Unbounded), MAX_PAGE)
                    .map_err(failed)?;
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
            let page = eras::page(self, after).map_err(failed)?;
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
        let found = self.layers.read(|layers| {
            let values = layers.iter().filter_map(|layer| layer.rows(table).get(key));
            values.max_by_key(|value| version(value)).cloned()
        });
        let file = self.file.begin_read()?.open_table(definition(table))?;
        let in_file = file.get(key)?.map(|value| value.value().to_vec());
        Ok(newer(found, in_file))
    }

    /// The first `limit` rows with these keys, each in its highest version. A row of the
    /// answer is among the first `limit` of every layer that has it, so no layer is read
    /// further.
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
        self.layers.read(|layers| {
            for layer in layers {
                let rows = layer
                    .rows(table)
                    .range::<Vec<u8>, _>((keys.0.as_ref(), keys.1.as_ref()));
                rows.take(limit).for_each(|(key, value)| add(key, value));
            }
        });
        let file = self.file.begin_read()?.open_table(definition(table))?;
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
        let file = self.file.begin_read()?.open_table(PROGRESS)?;
        let mut progress = BTreeMap::new();
        for row in file.range::<u32>(..)? {
            let (partition, value) = row?;
            progress.insert(Partition(partition.value()), decode_progress(value.value()));
        }
        Ok(progress)
    }
}

/// The value of the higher version, if there is any.
pub(crate) fn newer(a: Option<Vec<u8>>, b: Option<Vec<u8>>) -> Option<Vec<u8>> {
    a.into_iter().chain(b).max_by_key(|value| version(value))
}

fn failed(error: redb::Error) -> StoreError {
    StoreError(error.to_string())
}
