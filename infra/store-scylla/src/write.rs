//! Writing rows, and then the progress.

use std::cmp::Reverse;

use futures::stream::{self, StreamExt, TryStreamExt};
use ports::StoreError;
use ports::read_store::{AttemptRow, CommandRow, Progress, Row, SaleRow};
use schemas::ids::Partition;
use schemas::topics::Topic;
use scylla::SerializeRow;

use crate::batching::BATCH_ROWS;
use crate::cluster::{Cluster, sale_bucket};
use crate::eras::Era;
use crate::rows::{AttemptColumns, CommandColumns, MarkColumns, ProgressColumns, SaleColumns};
use crate::statements::List;

/// The scope of the projectors' progress: the topic whose offsets they are.
pub(crate) const SCOPE: &str = Topic::StockDecisions.name();
/// The write time of rows that always have the same content.
const ANY_TIME: i64 = 1;

/// One request, with rows of the same node.
enum Write<'a> {
    Attempts(Vec<AttemptWrite<'a>>),
    Sale(SaleWrite<'a>),
    Commands(Vec<CommandWrite<'a>>),
    Listed(&'a List, Vec<ListedWrite<'a>>),
    /// Rows that list the eras of owners.
    Eras(&'a List, Vec<EraWrite<'a>>),
}

/// Owner, log partition, number of the era, and the time of the write.
type EraWrite<'a> = (&'a str, i64, i64, i64);

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

/// A row of commands.
#[derive(SerializeRow)]
struct CommandWrite<'a> {
    #[scylla(flatten)]
    columns: CommandColumns<'a>,
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

/// The mark of a partition's log.
#[derive(SerializeRow)]
struct MarkWrite {
    #[scylla(flatten)]
    columns: MarkColumns,
    scope: &'static str,
    written_at: i64,
}

impl Cluster {
    /// Writes the rows, and once the nodes have all of them, the progress.
    pub(crate) async fn apply(
        &self,
        partition: Partition,
        rows: &[Row],
        progress: Progress,
    ) -> Result<(), StoreError> {
        let rows = Newest::of(rows);
        let writes = stream::iter(self.writes(&rows)?).map(Ok);
        writes
            .try_for_each_concurrent(self.max_in_flight, |write| self.send(write))
            .await?;
        let columns = ProgressColumns::new(partition, progress);
        let written_at = columns.written_at();
        // The mark first: it says which log the rows are from as soon as there is progress.
        if let Some(mark) = progress.log {
            let mark = MarkWrite {
                columns: MarkColumns::new(partition, mark),
                scope: SCOPE,
                written_at,
            };
            self.write(&self.statements.insert_mark, mark).await?;
        }
        let progress = ProgressWrite {
            written_at,
            columns,
            scope: SCOPE,
        };
        self.write(&self.statements.insert_progress, progress).await
    }

    /// The requests that write these rows. New eras are listed at the same time as their rows: readers
    /// may rely on both only once all is written.
    fn writes<'a>(&'a self, rows: &Newest<'a>) -> Result<Vec<Write<'a>>, StoreError> {
        let mut writes = Vec::new();
        let alone = |row: &&'a AttemptRow| Ok(vec![AttemptWrite::new(row)?]);
        let attempts = rows.attempts.iter().map(alone);
        let attempts = self.batches(&self.statements.insert_attempt, attempts)?;
        writes.extend(attempts.into_iter().map(Write::Attempts));
        for row in &rows.sales {
            writes.push(Write::Sale(SaleWrite::new(row)?));
        }
        let one_era = |a: &&CommandRow, b: &&CommandRow| Era::of(a.position) == Era::of(b.position);
        let partitions = rows.commands.chunk_by(one_era);
        let commands = partitions
            .flat_map(|rows| rows.chunks(BATCH_ROWS))
            .map(|rows| Ok(rows.iter().map(|row| CommandWrite::new(row)).collect()));
        let commands = self.batches(&self.statements.insert_command, commands)?;
        writes.extend(commands.into_iter().map(Write::Commands));
        for (list, owner, rows) in [
            (&self.statements.orders, buyer as Owner, &rows.orders),
            (&self.statements.intents, product as Owner, &rows.intents),
        ] {
            let one_partition = |a: &&AttemptRow, b: &&AttemptRow| {
                owner(a) == owner(b) && Era::of(a.position) == Era::of(b.position)
            };
            let new_eras = rows.chunk_by(one_partition).filter_map(|rows| {
                let (owner, era) = (owner(rows[0]), Era::of(rows[0].position));
                let row = (owner, i64::from(era.partition.0), era.number, ANY_TIME);
                (!list.listed.contains(owner, era)).then(|| Ok(vec![row]))
            });
            let eras = self.batches(&list.insert_era, new_eras)?;
            writes.extend(eras.into_iter().map(|eras| Write::Eras(list, eras)));
            let partitions = rows.chunk_by(one_partition);
            let batches = partitions
                .flat_map(|rows| rows.chunks(BATCH_ROWS))
                .map(|rows| rows.iter().map(|row| ListedWrite::new(row)).collect());
            let listed = self.batches(&list.insert, batches)?;
            writes.extend(listed.into_iter().map(|rows| Write::Listed(list, rows)));
        }
        Ok(writes)
    }

    async fn send(&self, write: Write<'_>) -> Result<(), StoreError> {
        match write {
            Write::Attempts(rows) => self.write_all(&self.statements.insert_attempt, &rows).await,
            Write::Sale(row) => self.write(&self.statements.insert_sale, row).await,
            Write::Commands(rows) => self.write_all(&self.statements.insert_command, &rows).await,
            Write::Listed(list, rows) => self.write_all(&list.insert, &rows).await,
            Write::Eras(list, rows) => {
                self.write_all(&list.insert_era, &rows).await?;
                for (owner, partition, number, _) in rows {
                    let partition = Partition(partition as u32);
                    list.listed.insert(owner, Era { partition, number });
                }
                Ok(())
            }
        }
    }
}

impl<'a> AttemptWrite<'a> {
    fn new(row: &'a AttemptRow) -> Result<Self, StoreError> {
        let columns = AttemptColumns::new(row)?;
        Ok(Self {
            written_at: columns.version(),
            columns,
        })
    }
}

impl<'a> CommandWrite<'a> {
    fn new(row: &'a CommandRow) -> Self {
        Self {
            era: Era::of(row.position).number,
            written_at: ANY_TIME,
            columns: CommandColumns::new(row),
        }
    }
}

impl<'a> SaleWrite<'a> {
    fn new(row: &'a SaleRow) -> Result<Self, StoreError> {
        let columns = SaleColumns::new(row)?;
        Ok(Self {
            bucket: sale_bucket(&row.product_id),
            written_at: columns.version(),
            columns,
        })
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

/// The owner of the list that an attempt is in.
type Owner = fn(&AttemptRow) -> &str;

fn buyer(row: &AttemptRow) -> &str {
    row.buyer_id.as_str()
}

fn product(row: &AttemptRow) -> &str {
    row.product_id.as_str()
}

/// The newest version of each row; the rows of each list are sorted by owner and position.
#[derive(Default)]
struct Newest<'a> {
    attempts: Vec<&'a AttemptRow>,
    orders: Vec<&'a AttemptRow>,
    intents: Vec<&'a AttemptRow>,
    sales: Vec<&'a SaleRow>,
    commands: Vec<&'a CommandRow>,
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
                Row::Command(row) => newest.commands.push(row),
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
        newest.commands.sort_unstable_by_key(|row| row.position);
        newest.commands.dedup_by_key(|row| row.position);
        newest
    }
}
