//! Which rows go in one request.
//!
//! What a node spends on a small write is mostly the request. So rows that the same node has
//! share one, as an unlogged batch: it is sent to that node, which would have had every one of
//! them by itself anyway, and each row stands or falls alone as it would have.

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

/// The first replica and, on ScyllaDB, the core of it; none while the driver does not know.
type Home = Option<(Uuid, u32)>;

/// A request that has room left.
struct Filling<R> {
    partitions: usize,
    rows: Vec<R>,
}

impl Cluster {
    /// Puts rows together into requests. Each item of `partitions` is some rows of one
    /// partition, at most [`BATCH_ROWS`].
    pub(crate) fn together<R: SerializeRow>(
        &self,
        insert: &PreparedStatement,
        partitions: impl Iterator<Item = Result<Vec<R>, StoreError>>,
    ) -> Result<Vec<Vec<R>>, StoreError> {
        let state = self.session.get_cluster_state();
        let mut full = Vec::new();
        let mut filling: BTreeMap<Home, Filling<R>> = BTreeMap::new();
        for rows in partitions {
            let rows = rows?;
            let home = home(&state, insert, &rows[0])?;
            let request = filling.entry(home).or_insert(Filling {
                partitions: 0,
                rows: Vec::new(),
            });
            let has_room = request.partitions < BATCH_PARTITIONS
                && request.rows.len() + rows.len() <= BATCH_ROWS;
            if !has_room {
                full.push(std::mem::take(&mut request.rows));
                request.partitions = 0;
            }
            request.partitions += 1;
            request.rows.extend(rows);
        }
        full.extend(filling.into_values().map(|request| request.rows));
        Ok(full)
    }
}

fn home(
    state: &ClusterState,
    insert: &PreparedStatement,
    row: &impl SerializeRow,
) -> Result<Home, StoreError> {
    let token = insert.calculate_token(row).map_err(unexpected)?;
    let (Some(token), Some(table)) = (token, insert.get_table_spec()) else {
        return Ok(None);
    };
    let replicas = state.get_token_endpoints(table.ks_name(), table.table_name(), token);
    let first = replicas.first();
    Ok(first.map(|(node, core)| (node.host_id, *core)))
}
