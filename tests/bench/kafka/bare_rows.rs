//! The minimum that inserts the rows of attempts, over the driver alone: one prepared insert per
//! row, with as many in flight as the product's store has.

use anyhow::bail;
use futures::stream::{self, StreamExt, TryStreamExt};
use ports::read_store::{AttemptRow, AttemptStatus, Row};
use scylla::SerializeRow;
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::prepared::PreparedStatement;
use uuid::Uuid;

use super::site::CQL_IN_FLIGHT;

/// A connection with the inserts prepared.
pub struct BareRows {
    session: Session,
    attempt: PreparedStatement,
    order: PreparedStatement,
    intent: PreparedStatement,
}

#[derive(SerializeRow)]
struct Columns<'a> {
    attempt_id: Uuid,
    product_id: &'a str,
    buyer_id: &'a str,
    quantity: i64,
    log_partition: i64,
    log_offset: i64,
    status: &'a str,
    reason: &'a str,
    decided_at_ms: i64,
    hold_until_ms: i64,
    version: i64,
    trace_id: &'a [u8],
    written_at: i64,
}

#[derive(SerializeRow)]
struct ListedColumns<'a> {
    #[scylla(flatten)]
    columns: Columns<'a>,
    era: i64,
}

const COLUMNS: [&str; 12] = [
    "attempt_id",
    "product_id",
    "buyer_id",
    "quantity",
    "log_partition",
    "log_offset",
    "status",
    "reason",
    "decided_at_ms",
    "hold_until_ms",
    "version",
    "trace_id",
];

impl BareRows {
    /// The keyspace's tables must be there.
    pub async fn connect(node: &str, keyspace: &str) -> anyhow::Result<Self> {
        let session = SessionBuilder::new().known_node(node).build().await?;
        let insert = |table: &str, more: &[&str]| {
            let columns = [&COLUMNS, more].concat();
            let (names, values) = (columns.join(", "), columns.join(", :"));
            format!(
                "INSERT INTO {keyspace}.{table} ({names}) VALUES (:{values}) \
                 USING TIMESTAMP :written_at"
            )
        };
        Ok(Self {
            attempt: session.prepare(insert("attempts", &[])).await?,
            order: session.prepare(insert("orders", &["era"])).await?,
            intent: session.prepare(insert("intents", &["era"])).await?,
            session,
        })
    }

    pub async fn insert_all(&self, rows: &[Row]) -> anyhow::Result<()> {
        let rows = stream::iter(rows).map(anyhow::Ok);
        rows.try_for_each_concurrent(CQL_IN_FLIGHT, |row| self.insert(row))
            .await
    }

    async fn insert(&self, row: &Row) -> anyhow::Result<()> {
        let listed = |row| ListedColumns {
            columns: columns(row),
            era: row.position.offset.0 >> 16,
        };
        match row {
            Row::Attempt(row) => {
                let columns = columns(row);
                self.session.execute_unpaged(&self.attempt, columns).await?
            }
            Row::Order(row) => {
                self.session
                    .execute_unpaged(&self.order, listed(row))
                    .await?
            }
            Row::Intent(row) => {
                self.session
                    .execute_unpaged(&self.intent, listed(row))
                    .await?
            }
            Row::Sale(_) | Row::Command(_) => bail!("the bare loop inserts attempts only"),
        };
        Ok(())
    }
}

fn columns(row: &AttemptRow) -> Columns<'_> {
    let (status, reason) = match row.status {
        AttemptStatus::Reserved => ("reserved", ""),
        AttemptStatus::Sold => ("sold", ""),
        AttemptStatus::Refused(reason) => ("refused", reason.as_str()),
        AttemptStatus::Released(cause) => ("released", cause.as_str()),
    };
    Columns {
        attempt_id: Uuid::from_bytes(*row.attempt_id.as_bytes()),
        product_id: row.product_id.as_str(),
        buyer_id: row.buyer_id.as_str(),
        quantity: row.quantity.into(),
        log_partition: row.position.partition.0.into(),
        log_offset: row.position.offset.0,
        status,
        reason,
        decided_at_ms: row.decided_at_ms,
        hold_until_ms: row.hold_until_ms.unwrap_or(i64::MIN),
        version: row.version as i64,
        trace_id: &[],
        written_at: row.version as i64,
    }
}
