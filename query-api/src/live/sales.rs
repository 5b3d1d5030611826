//! The current sales. All of them stay in memory, about half a kilobyte each: only the seller
//! can add one.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;

use parking_lot::Mutex;
use ports::read_store::{SalePhase, SaleRow};
use schemas::decision::Decision;
use schemas::ids::ProductId;

/// Every sale, by product.
#[derive(Default)]
pub(crate) struct Sales {
    rows: Mutex<BTreeMap<ProductId, SaleRow>>,
}

impl Sales {
    /// Takes rows of the read store that are newer than those in memory.
    pub fn load(&self, rows: Vec<SaleRow>) {
        let mut known = self.rows.lock();
        for row in rows {
            if known
                .get(&row.product_id)
                .is_none_or(|have| have.version < row.version)
            {
                known.insert(row.product_id.clone(), row);
            }
        }
    }

    /// Takes decisions, in their order. One that a row already includes changes nothing.
    pub fn fold<'a>(&self, decisions: impl Iterator<Item = &'a Decision>) {
        let mut rows = self.rows.lock();
        for decision in decisions {
            match rows.get_mut(&decision.product_id) {
                Some(row) if row.version >= decision.version => {}
                Some(row) => {
                    if let Some(next) = views::next_sale(Some(row), decision) {
                        *row = next;
                    }
                }
                None => {
                    if let Some(first) = views::next_sale(None, decision) {
                        rows.insert(decision.product_id.clone(), first);
                    }
                }
            }
        }
    }

    /// A sale.
    pub fn get(&self, product: &ProductId) -> Option<SaleRow> {
        self.rows.lock().get(product).cloned()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.rows.lock().len()
    }

    /// Sales by product id, those after `after`, at most `limit`.
    pub fn page(&self, after: Option<&ProductId>, limit: usize) -> Vec<SaleRow> {
        let rows = self.rows.lock();
        let from = after.map_or(Bound::Unbounded, Bound::Excluded);
        let page = rows.range::<ProductId, _>((from, Bound::Unbounded));
        page.take(limit).map(|(_, row)| row.clone()).collect()
    }

    /// The busiest sales first, at most `limit`: those under way before those that are over,
    /// then by attempts of the round.
    pub fn busiest(&self, limit: usize) -> Vec<SaleRow> {
        let rows = self.rows.lock();
        let mut ranked: Vec<&SaleRow> = rows.values().collect();
        let rank = |row: &SaleRow| {
            let over = row.phase == SalePhase::Closed;
            (over, Reverse(row.tally.accepted + row.tally.refused))
        };
        let order = |a: &&SaleRow, b: &&SaleRow| {
            rank(a)
                .cmp(&rank(b))
                .then_with(|| a.product_id.cmp(&b.product_id))
        };
        if limit < ranked.len() {
            ranked.select_nth_unstable_by(limit, order);
            ranked.truncate(limit);
        }
        ranked.sort_unstable_by(order);
        ranked.into_iter().cloned().collect()
    }
}
