//! Writing rows, and then how far they go.

use std::cmp::Reverse;

use futures::stream::{self, StreamExt, TryStreamExt};
use ports::StoreError;
use ports::read_store::{AttemptRow, Progress, Row, SaleRow};
use schemas::ids::Partition;
use schemas::topics::Topic;
use scylla::SerializeRow;

use crate::cluster::{Cluster, sale_bucket};
use crate::eras::Era;
use crate::rows::{AttemptColumns, ProgressColumns, SaleColumns};
use crate::statements::List;

/// The most rows of a list that one request writes.
const BATCH_ROWS: usize = 50;
/// The scope of the projectors' progress: the topic whose offsets they are.
pub(crate) const SCOPE: &str = Topic::StockDecisions.name();
/// The time of writes that all write the same.
const ANY_TIME: i64 = 1;

/// One request.
enum Write<'a> {
    Attempt(&'a AttemptRow),
    Sale(&'a SaleRow),
    /// Rows of a list that are in one partition.
    Listed(&'a List, &'a [&'a AttemptRow]),
    /// That an owner has rows in an era.
    Era(&'a List, &'a str, Era),
}

/// A row of attempts.
#[derive(SerializeRow)]
struct AttemptWrite<'a> {
    #[scylla(flatten)]
    columns: AttemptColumns<'a>,
    written_at: i64,
}

/// A row of orders or intents.
#[derive(SerializeRow)]
struct ListedWrite<'a> {
    #[scylla(flatten)]
    columns: AttemptColumns<'a>,
    era: i64,
    written_at: i64,
}

/// A row of sales.
#[derive(SerializeRow)]
struct SaleWrite<'a> {
    #[scylla(flatten)]
    columns: SaleColumns<'a>,
    bucket: i32,
    written_at: i64,
}

/// A row of progress.
#[derive(SerializeRow)]
struct ProgressWrite {
    #[scylla(flatten)]
    columns: ProgressColumns,
    scope: &'static str,
    written_at: i64,
}

impl Cluster {
    /// Writes the rows, and when the nodes have all of them, the progress.
    pub(crate) async fn apply(
        &self,
        partition: Partition,
        rows: &[Row],
        progress: Progress,
    ) -> Result<(), StoreError> {
        let rows = Newest::of(rows);
        let writes = stream::iter(self.writes(&rows)).map(Ok);
        writes
            .try_for_each_concurrent(self.max_in_flight, |write| self.carry_out(write))
            .await?;
        let columns = ProgressColumns::new(partition, progress);
        let progress = ProgressWrite {
            written_at: columns.written_at(),
            columns,
            scope: SCOPE,
        };
        self.write(&self.statements.insert_progress, progress).await
    }

    /// The requests that write these rows. That an owner has rows in an era is told beside the
    /// rows: until all is written nobody has been promised to see them.
    fn writes<'a>(&'a self, rows: &'a Newest<'a>) -> Vec<Write<'a>> {
        let mut writes = Vec::with_capacity(rows.attempts.len() + rows.orders.len());
        writes.extend(rows.attempts.iter().map(|row| Write::Attempt(row)));
        writes.extend(rows.sales.iter().map(|row| Write::Sale(row)));
        for (list, owner, rows) in [
            (&self.statements.orders, buyer as Owner, &rows.orders),
            (&self.statements.intents, product as Owner, &rows.intents),
        ] {
            let together = |a: &&AttemptRow, b: &&AttemptRow| {
                owner(a) == owner(b) && Era::of(a.position) == Era::of(b.position)
            };
            for rows in rows.chunk_by(together) {
                let (owner, era) = (owner(rows[0]), Era::of(rows[0].position));
                if !list.listed.contains(owner, era) {
                    writes.push(Write::Era(list, owner, era));
                }
                let batches = rows.chunks(BATCH_ROWS);
                writes.extend(batches.map(|rows| Write::Listed(list, rows)));
            }
        }
        writes
    }

    async fn carry_out(&self, write: Write<'_>) -> Result<(), StoreError> {
        match write {
            Write::Attempt(row) => {
                let columns = AttemptColumns::new(row)?;
                let written_at = columns.version();
                let row = AttemptWrite {
                    columns,
                    written_at,
                };
                self.write(&self.statements.insert_attempt, row).await
            }
            Write::Sale(row) => {
                let columns = SaleColumns::new(row)?;
                let row = SaleWrite {
                    bucket: sale_bucket(&row.product_id),
                    written_at: columns.version(),
                    columns,
                };
                self.write(&self.statements.insert_sale, row).await
            }
            Write::Listed(list, rows) => {
                let rows = rows.iter().map(|row| ListedWrite::new(row));
                let mut rows = rows.collect::<Result<Vec<_>, _>>()?;
                match rows.len() {
                    1 => self.write(&list.insert, rows.remove(0)).await,
                    _ => self.write_together(&list.insert, rows).await,
                }
            }
            Write::Era(list, owner, era) => {
                let row = (owner, i64::from(era.partition.0), era.number, ANY_TIME);
                self.write(&list.insert_era, row).await?;
                list.listed.insert(owner, era);
                Ok(())
            }
        }
    }
}

impl<'a> ListedWrite<'a> {
    fn new(row: &'a AttemptRow) -> Result<Self, StoreError> {
        let columns = AttemptColumns::new(row)?;
        Ok(Self {
            era: Era::of(row.position).number,
            written_at: columns.version(),
            columns,
        })
    }
}

/// Whose list an attempt is in.
type Owner = fn(&AttemptRow) -> &str;

fn buyer(row: &AttemptRow) -> &str {
    row.buyer_id.as_str()
}

fn product(row: &AttemptRow) -> &str {
    row.product_id.as_str()
}

/// Of each row the newest, the rows of each list sorted by owner and position.
#[derive(Default)]
struct Newest<'a> {
    attempts: Vec<&'a AttemptRow>,
    orders: Vec<&'a AttemptRow>,
    intents: Vec<&'a AttemptRow>,
    sales: Vec<&'a SaleRow>,
}

impl<'a> Newest<'a> {
    fn of(rows: &'a [Row]) -> Self {
        let mut newest = Self::default();
        for row in rows {
            match row {
                Row::Attempt(row) => newest.attempts.push(row),
                Row::Order(row) => newest.orders.push(row),
                Row::Intent(row) => newest.intents.push(row),
                Row::Sale(row) => newest.sales.push(row),
            }
        }
        newest
            .attempts
            .sort_unstable_by_key(|row| (row.attempt_id, Reverse(row.version)));
        newest.attempts.dedup_by_key(|row| row.attempt_id);
        for (rows, owner) in [
            (&mut newest.orders, buyer as Owner),
            (&mut newest.intents, product as Owner),
        ] {
            let key = |row: &'a AttemptRow| (owner(row), row.position);
            rows.sort_unstable_by_key(|row| (key(row), Reverse(row.version)));
            rows.dedup_by_key(|row| key(row));
        }
        let key = |row: &'a SaleRow| (row.product_id.as_str(), Reverse(row.version));
        newest.sales.sort_unstable_by_key(|row| key(row));
        newest.sales.dedup_by_key(|row| row.product_id.as_str());
        newest
    }
}
