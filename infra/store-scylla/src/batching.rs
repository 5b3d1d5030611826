//! Batching: which rows are written in one request.
//!
//! Most of a node's work on a small write is the request. So rows that belong to the same node share
//! a request, as an unlogged batch: it is sent to that node, which would receive each of the rows
//! anyway, and each row succeeds or fails by itself as it would alone.

use std::collections::BTreeMap;

use ports::StoreError;
use scylla::cluster::ClusterState;
use scylla::serialize::row::SerializeRow;
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

use crate::cluster::{Cluster, unexpected};

/// The most rows that one request writes.
pub(crate) const BATCH_ROWS: usize = 50;
/// The most partitions that one request writes to. Cassandra warns of batches over more.
const BATCH_PARTITIONS: usize = 10;

/// The first replica of a row and, on ScyllaDB, its core; none while the driver does not know them.
type Replica = Option<(Uuid, u32)>;

/// A batch that has room left.
struct OpenBatch<R> {
    partitions: usize,
    rows: Vec<R>,
}

impl Cluster {
    /// Groups rows into batches, one for each request. Each item of `partitions` is some rows of one
    /// partition, at most [`BATCH_ROWS`].
    pub(crate) fn batches<R: SerializeRow>(
        &self,
        insert: &PreparedStatement,
        partitions: impl Iterator<Item = Result<Vec<R>, StoreError>>,
    ) -> Result<Vec<Vec<R>>, StoreError> {
        let state = self.session.get_cluster_state();
        let mut full = Vec::new();
        let mut open: BTreeMap<Replica, OpenBatch<R>> = BTreeMap::new();
        for rows in partitions {
            let rows = rows?;
            let replica = first_replica(&state, insert, &rows[0])?;
            let batch = open.entry(replica).or_insert(OpenBatch {
                partitions: 0,
                rows: Vec::new(),
            });
            let has_room =
                batch.partitions < BATCH_PARTITIONS && batch.rows.len() + rows.len() <= BATCH_ROWS;
            if !has_room {
                full.push(std::mem::take(&mut batch.rows));
                batch.partitions = 0;
            }
            batch.partitions += 1;
            batch.rows.extend(rows);
        }
        full.extend(open.into_values().map(|batch| batch.rows));
        Ok(full)
    }
}

fn first_replica(
    state: &ClusterState,
    insert: &PreparedStatement,
    row: &impl SerializeRow,
) -> Result<Replica, StoreError> {
    let token = insert.calculate_token(row).map_err(unexpected)?;
    let (Some(token), Some(table)) = (token, insert.get_table_spec()) else {
        return Ok(None);
    };
    let replicas = state.get_token_endpoints(table.ks_name(), table.table_name(), token);
    let first = replicas.first();
    Ok(first.map(|(node, core)| (node.host_id, *core)))
}
