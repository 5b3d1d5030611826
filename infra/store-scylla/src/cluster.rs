//! Requests to the nodes: a bounded number at once, each with a time limit.

use std::sync::Arc;

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

use crate::counts::Counts;
use crate::options::REQUEST_TIMEOUT;
use crate::statements::Statements;

/// The number of partitions of the table of sales.
pub(crate) const SALE_BUCKETS: u32 = 64;

/// The connected nodes, with all tables created and all statements prepared.
pub(crate) struct Cluster {
    pub(crate) session: Session,
    /// The nodes' name in messages.
    nodes: String,
    counts: Arc<Counts>,
    pub(crate) statements: Statements,
    pub(crate) max_in_flight: usize,
    permits: Semaphore,
}

/// The partition of the table of sales that has a product.
pub(crate) fn sale_bucket(product: &ProductId) -> i32 {
    let Partition(bucket) = Placement::new(SALE_BUCKETS).partition_of(product);
    bucket as i32
}

impl Cluster {
    pub(crate) fn new(
        session: Session,
        nodes: String,
        counts: Arc<Counts>,
        statements: Statements,
        max_in_flight: usize,
    ) -> Self {
        Self {
            session,
            nodes,
            counts,
            statements,
            max_in_flight,
            permits: Semaphore::new(max_in_flight),
        }
    }

    /// Writes one row.
    pub(crate) async fn write(
        &self,
        insert: &PreparedStatement,
        row: impl SerializeRow,
    ) -> Result<(), StoreError> {
        let _permit = self.permit().await?;
        let written = self.session.execute_unpaged(insert, row).await;
        written.map(drop).map_err(|error| self.failed(error))
    }

    /// Writes rows in one request.
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
        let _permit = self.permit().await?;
        let written = self.session.batch(&batch, rows).await;
        written.map(drop).map_err(|error| self.failed(error))
    }

    /// All rows that a statement selects; only for statements that select few.
    pub(crate) async fn select(
        &self,
        statement: &PreparedStatement,
        values: impl SerializeRow,
    ) -> Result<QueryRowsResult, StoreError> {
        let _permit = self.permit().await?;
        let selected = self.session.execute_unpaged(statement, values).await;
        let rows = selected.map_err(|error| self.failed(error))?;
        rows.into_rows_result().map_err(unexpected)
    }

    /// The next page of the rows that a statement selects, and the state to continue from.
    pub(crate) async fn select_page(
        &self,
        statement: &PreparedStatement,
        from: PagingState,
    ) -> Result<(QueryRowsResult, PagingStateResponse), StoreError> {
        let _permit = self.permit().await?;
        let selected = self.session.execute_single_page(statement, (), from).await;
        let (rows, next) = selected.map_err(|error| self.failed(error))?;
        Ok((rows.into_rows_result().map_err(unexpected)?, next))
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>, StoreError> {
        match timeout(REQUEST_TIMEOUT, self.permits.acquire()).await {
            Ok(permit) => Ok(permit.expect("the semaphore is never closed")),
            Err(_) => {
                self.counts.timed_out();
                Err(StoreError(format!(
                    "{}: {} requests are under way and none has finished within {REQUEST_TIMEOUT:?}",
                    self.nodes, self.max_in_flight
                )))
            }
        }
    }

    fn failed(&self, error: ExecutionError) -> StoreError {
        self.counts.failed(&error);
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

/// The error for an answer that does not fit the statement.
pub(crate) fn unexpected(error: impl std::error::Error) -> StoreError {
    StoreError(format!("unexpected answer of Cassandra/ScyllaDB: {error}"))
}
