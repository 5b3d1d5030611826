//! Queries.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use futures::future::{try_join, try_join_all};
use ports::StoreError;
use ports::read_store::{AttemptRow, CommandRow, MAX_PAGE, Progress, Row, SaleRow};
use schemas::ids::{AttemptId, Offset, Partition, Position, ProductId};
use scylla::response::PagingState;
use scylla::response::query_result::QueryRowsResult;
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

use crate::cluster::{Cluster, SALE_BUCKETS, sale_bucket, unexpected};
use crate::eras::Era;
use crate::rows::{AttemptColumns, CommandColumns, MarkColumns, ProgressColumns, SaleColumns};
use crate::statements::List;
use crate::write::SCOPE;

/// How many eras of a list one query returns.
const ERAS_A_PAGE: usize = 64;
/// The most eras of a list that are read at once.
const ERAS_AT_ONCE: usize = 16;

impl Cluster {
    pub(crate) async fn progress(&self) -> Result<BTreeMap<Partition, Progress>, StoreError> {
        let (progress, marks) = try_join(
            self.select(&self.statements.progress, (SCOPE,)),
            self.select(&self.statements.marks, (SCOPE,)),
        )
        .await?;
        let progress = progress.rows::<ProgressColumns>().map_err(unexpected)?;
        let progress = progress.map(|columns| columns.map_err(unexpected)?.read());
        let mut progress: BTreeMap<_, _> = progress.collect::<Result<_, StoreError>>()?;
        for columns in marks.rows::<MarkColumns>().map_err(unexpected)? {
            let (partition, mark) = columns.map_err(unexpected)?.read()?;
            if let Some(progress) = progress.get_mut(&partition) {
                progress.log = Some(mark);
            }
        }
        Ok(progress)
    }

    pub(crate) async fn attempt(&self, id: AttemptId) -> Result<Option<AttemptRow>, StoreError> {
        let id = Uuid::from_bytes(*id.as_bytes());
        let rows = self.select(&self.statements.attempt, (id,)).await?;
        Ok(attempts_of(&rows)?.pop())
    }

    pub(crate) async fn command(&self, at: Position) -> Result<Option<CommandRow>, StoreError> {
        let era = Era::of(at);
        let key = (i64::from(era.partition.0), era.number, at.offset.0);
        let rows = self.select(&self.statements.command, key).await?;
        Ok(commands_of(&rows)?.pop())
    }

    pub(crate) async fn sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError> {
        let key = (sale_bucket(product), product.as_str());
        let rows = self.select(&self.statements.sale, key).await?;
        Ok(sales_of(&rows)?.pop())
    }

    /// Merges the buckets. Each is read a few rows at a time, up to the last sale of the page.
    pub(crate) async fn sales(
        &self,
        after: Option<&ProductId>,
        limit: usize,
    ) -> Result<Vec<SaleRow>, StoreError> {
        let limit = limit.min(MAX_PAGE);
        if limit == 0 {
            return Ok(Vec::new());
        }
        // Buckets are about equally full, so one such share of each usually fills the page.
        let share = limit / SALE_BUCKETS as usize * 3 / 2 + 4;
        let begin = after.map_or("", ProductId::as_str).to_owned();
        let mut unread: Vec<_> = (0..SALE_BUCKETS as i32)
            .map(|bucket| (bucket, begin.clone()))
            .collect();
        let mut found: Vec<SaleRow> = Vec::new();
        while !unread.is_empty() {
            let shares = unread.iter().map(async |(bucket, after)| {
                let values = (bucket, after, share as i32);
                sales_of(&self.select(&self.statements.sales_after, values).await?)
            });
            let shares = try_join_all(shares).await?;
            let mut read_to = Vec::new();
            for ((bucket, _), share_of_it) in unread.into_iter().zip(shares) {
                if let Some(last) = share_of_it.last().filter(|_| share_of_it.len() == share) {
                    read_to.push((bucket, last.product_id.as_str().to_owned()));
                }
                found.extend(share_of_it);
            }
            found.sort_unstable_by(|a, b| a.product_id.cmp(&b.product_id));
            found.truncate(limit);
            let full = found.last().filter(|_| found.len() == limit);
            read_to.retain(|(_, last)| {
                full.is_none_or(|full| last.as_str() < full.product_id.as_str())
            });
            unread = read_to;
        }
        Ok(found)
    }

    /// Reads a list era by era, and no more eras than the page needs: first one, then twice as many
    /// each time, since the rows of a page may be far apart.
    pub(crate) async fn list(
        &self,
        list: &List,
        owner: &str,
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let limit = limit.min(MAX_PAGE);
        let mut found = Vec::new();
        if limit == 0 {
            return Ok(found);
        }
        let mut at_once = 1;
        let mut after_era = after.map(|after| {
            let era = Era::of(after);
            (i64::from(era.partition.0), era.number - 1)
        });
        loop {
            let eras = self.eras(list, owner, after_era.unwrap_or((-1, 0))).await?;
            let mut unread = eras.as_slice();
            while !unread.is_empty() {
                let (now, later) = unread.split_at(at_once.min(unread.len()));
                let missing = limit - found.len();
                let rows = now
                    .iter()
                    .map(|era| self.era(list, owner, *era, after, missing));
                let rows = try_join_all(rows).await?.into_iter().flatten();
                found.extend(rows.take(missing));
                if found.len() == limit {
                    return Ok(found);
                }
                unread = later;
                at_once = (at_once * 2).min(ERAS_AT_ONCE);
            }
            if eras.len() < ERAS_A_PAGE {
                return Ok(found);
            }
            after_era = eras.last().copied();
        }
    }

    /// The next eras of a list, in order, each as log partition and number.
    async fn eras(
        &self,
        list: &List,
        owner: &str,
        (partition, number): (i64, i64),
    ) -> Result<Vec<(i64, i64)>, StoreError> {
        let values = (owner, partition, number, ERAS_A_PAGE as i32);
        let rows = self.select(&list.eras_after, values).await?;
        let eras = rows.rows::<(i64, i64)>().map_err(unexpected)?;
        eras.collect::<Result<_, _>>().map_err(unexpected)
    }

    /// The rows of a list in an era, after a position.
    async fn era(
        &self,
        list: &List,
        owner: &str,
        (partition, number): (i64, i64),
        after: Option<Position>,
        limit: usize,
    ) -> Result<Vec<AttemptRow>, StoreError> {
        let same = after.filter(|after| i64::from(after.partition.0) == partition);
        let Offset(after) = same.map_or(Offset(i64::MIN), |after| after.offset);
        let values = (owner, partition, number, after, limit as i32);
        attempts_of(&self.select(&list.rows_after, values).await?)
    }

    pub(crate) async fn visit(
        &self,
        mut visit: Box<dyn FnMut(Row) -> bool + Send>,
    ) -> Result<(), StoreError> {
        let statements = &self.statements;
        let tables: [(&PreparedStatement, Read); 5] = [
            (&statements.all_sales, |rows| {
                as_rows(sales_of(rows), Row::Sale)
            }),
            (&statements.all_attempts, |rows| {
                as_rows(attempts_of(rows), Row::Attempt)
            }),
            (&statements.orders.all, |rows| {
                as_rows(attempts_of(rows), Row::Order)
            }),
            (&statements.intents.all, |rows| {
                as_rows(attempts_of(rows), Row::Intent)
            }),
            (&statements.all_commands, |rows| {
                as_rows(commands_of(rows), Row::Command)
            }),
        ];
        for (all, read) in tables {
            let mut from = PagingState::start();
            loop {
                let (page, next) = self.select_page(all, from).await?;
                if !read(&page)?.into_iter().all(&mut visit) {
                    return Ok(());
                }
                match next.into_paging_control_flow() {
                    ControlFlow::Continue(next) => from = next,
                    ControlFlow::Break(()) => break,
                }
            }
        }
        Ok(())
    }
}

/// Decodes the rows of a table.
type Read = fn(&QueryRowsResult) -> Result<Vec<Row>, StoreError>;

fn as_rows<R>(
    rows: Result<Vec<R>, StoreError>,
    kind: fn(R) -> Row,
) -> Result<Vec<Row>, StoreError> {
    Ok(rows?.into_iter().map(kind).collect())
}

fn attempts_of(rows: &QueryRowsResult) -> Result<Vec<AttemptRow>, StoreError> {
    let rows = rows.rows::<AttemptColumns>().map_err(unexpected)?;
    rows.map(|columns| columns.map_err(unexpected)?.row())
        .collect()
}

fn commands_of(rows: &QueryRowsResult) -> Result<Vec<CommandRow>, StoreError> {
    let rows = rows.rows::<CommandColumns>().map_err(unexpected)?;
    rows.map(|columns| columns.map_err(unexpected)?.row())
        .collect()
}

fn sales_of(rows: &QueryRowsResult) -> Result<Vec<SaleRow>, StoreError> {
    let rows = rows.rows::<SaleColumns>().map_err(unexpected)?;
    rows.map(|columns| columns.map_err(unexpected)?.row())
        .collect()
}
