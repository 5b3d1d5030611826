//! Requests to the nodes: so many at once, each within its time.

use ports::StoreError;
use schemas::ids::{Partition, ProductId};
use schemas::placement::Placement;
use scylla::client::session::Session;
use scylla::errors::{ConnectionPoolError, ExecutionError};
use scylla::response::query_result::QueryRowsResult;
use scylla::response::{PagingState, PagingStateResponse};
use scylla::serialize::row::SerializeRow;
use scylla::statement::batch::{Batch, BatchType};
use scylla::statement::prepared::PreparedStatement;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::timeout;

use crate::options::REQUEST_TIMEOUT;
use crate::statements::Statements;

/// How many partitions the table of sales has.
pub(crate) const SALE_BUCKETS: u32 = 64;

/// The nodes, connected to, with the tables there and all statements prepared.
pub(crate) struct Cluster {
    pub(crate) session: Session,
    /// How the nodes are called in messages.
    nodes: String,
    pub(crate) statements: Statements,
    pub(crate) max_in_flight: usize,
    turns: Semaphore,
}

/// Which partition of the table of sales a product is in.
pub(crate) fn sale_bucket(product: &ProductId) -> i32 {
    let Partition(bucket) = Placement::new(SALE_BUCKETS).partition_of(product);
    bucket as i32
}

impl Cluster {
    pub(crate) fn new(
        session: Session,
        nodes: String,
        statements: Statements,
        max_in_flight: usize,
    ) -> Self {
        Self {
            session,
            nodes,
            statements,
            max_in_flight,
            turns: Semaphore::new(max_in_flight),
        }
    }

    /// Writes one row.
    pub(crate) async fn write(
        &self,
        insert: &PreparedStatement,
        row: impl SerializeRow,
    ) -> Result<(), StoreError> {
        let _turn = self.turn().await?;
        let written = self.session.execute_unpaged(insert, row).await;
        written.map(drop).map_err(|error| self.failed(error))
    }

    /// Writes rows with one request.
    pub(crate) async fn write_all<R: SerializeRow>(
        &self,
        insert: &PreparedStatement,
        rows: &[R],
    ) -> Result<(), StoreError> {
        if let [row] = rows {
            return self.write(insert, row).await;
        }
        let statements = vec![insert.clone().into(); rows.len()];
        let mut batch = Batch::new_with_statements(BatchType::Unlogged, statements);
        batch.set_is_idempotent(true);
        let _turn = self.turn().await?;
        let written = self.session.batch(&batch, rows).await;
        written.map(drop).map_err(|error| self.failed(error))
    }

    /// All rows that a statement selects; for statements that select few.
    pub(crate) async fn select(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryRowsResult, StoreError> {
        let _turn = self.turn().await?;
        let selected = self.session.execute_unpaged(statement, values).await;
        let rows = selected.map_err(|error| self.failed(error))?;
        rows.into_rows_result().map_err(unexpected)
    }

    /// The next page of the rows that a statement selects, and where the one after it begins.
    pub(crate) async fn select_page(
        &self,
        statement: &PreparedStatement,
        from: PagingState,
    ) -> Result<(QueryRowsResult, PagingStateResponse), StoreError> {
        let _turn = self.turn().await?;
        let selected = self.session.execute_single_page(statement, (), from).await;
        let (rows, next) = selected.map_err(|error| self.failed(error))?;
        Ok((rows.into_rows_result().map_err(unexpected)?, next))
    }

    async fn turn(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        match timeout(REQUEST_TIMEOUT, self.turns.acquire()).await {
            Ok(turn) => Ok(turn.expect("nobody closes the semaphore")),
            Err(_) => Err(StoreError(format!(
                "{}: {} requests are under way and none has ended for {REQUEST_TIMEOUT:?}",
                self.nodes, self.max_in_flight
            ))),
        }
    }

    fn failed(&self, error: ExecutionError) -> StoreError {
        StoreError(match error {
            ExecutionError::ConnectionPoolError(ConnectionPoolError::Broken {
                last_connection_error: error,
            }) => format!("{} cannot be reached: {error}", self.nodes),
            ExecutionError::EmptyPlan | ExecutionError::ConnectionPoolError(_) => {
                format!("{} cannot be reached: no node is connected", self.nodes)
            }
            error => format!("{}: {error}", self.nodes),
        })
    }
}

/// The nodes answered with something that a statement like this is never answered with.
pub(crate) fn unexpected(error: impl std::error::Error) -> StoreError {
    StoreError(format!(
        "an answer of Cassandra/ScyllaDB makes no sense: {error}"
    ))
}
