//! The current sales. All of them stay in memory, about half a kilobyte each: only the seller
//! can add one.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ports::read_store::{MAX_PAGE, SalePhase, SaleRow};
use schemas::decision::Decision;
use schemas::ids::ProductId;
use tokio::time::Instant;

/// How long a ranking of the sales counts as current: ranking all of them is expensive, and anybody
/// may request it.
const RANKED_FOR: Duration = Duration::from_secs(1);
/// How many rows are ranked while the lock is held once.
const RANKED_AT_ONCE: usize = 500;

/// Every sale, by product.
#[derive(Default)]
pub(crate) struct Sales {
    rows: Mutex<BTreeMap<ProductId, SaleRow>>,
    /// The busiest products, and until when that counts as current.
    ranking: Mutex<Option<(Instant, Arc<Vec<ProductId>>)>>,
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

    /// The busiest sales first, at most `limit` and at most [`MAX_PAGE`]: those under way before those
    /// that are over, then by attempts of the round. The order was made less than two seconds ago; the
    /// rows are the current ones.
    pub fn busiest(&self, limit: usize) -> Vec<SaleRow> {
        let ranking = self.ranking();
        let rows = self.rows.lock();
        let busiest = ranking.iter().take(limit);
        busiest.filter_map(|id| rows.get(id).cloned()).collect()
    }

    /// The busiest products. When the ranking is old, one request ranks them anew; those that come
    /// meanwhile get the old one.
    fn ranking(&self) -> Arc<Vec<ProductId>> {
        let last = {
            let mut ranking = self.ranking.lock();
            let now = Instant::now();
            match &mut *ranking {
                Some((due, ranked)) if now < *due => return ranked.clone(),
                Some((due, _)) => *due = now + RANKED_FOR,
                None => {}
            }
            now
        };
        let ranked = Arc::new(self.rank());
        *self.ranking.lock() = Some((last + RANKED_FOR, ranked.clone()));
        ranked
    }

    /// Ranks all products. The tail needs the lock on the rows, so it is held only for a few of them
    /// at a time, and not while they are put in order.
    fn rank(&self) -> Vec<ProductId> {
        let mut ranked = Vec::new();
        let mut after: Option<ProductId> = None;
        loop {
            let before = ranked.len();
            let rows = self.rows.lock();
            let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
            let some = rows.range::<ProductId, _>((from, Bound::Unbounded));
            ranked.extend(some.take(RANKED_AT_ONCE).map(|(id, row)| {
                let over = row.phase == SalePhase::Closed;
                let attempts = row.tally.accepted + row.tally.refused;
                (over, Reverse(attempts), id.clone())
            }));
            drop(rows);
            match ranked.last() {
                Some((.., last)) if ranked.len() > before => after = Some(last.clone()),
                _ => break,
            }
        }
        if MAX_PAGE < ranked.len() {
            ranked.select_nth_unstable(MAX_PAGE);
            ranked.truncate(MAX_PAGE);
        }
        ranked.sort_unstable();
        ranked.into_iter().map(|(.., id)| id).collect()
    }
}
