//! All CQL statements of the read models, prepared.

use scylla::client::session::Session;
use scylla::errors::PrepareError;
use scylla::statement::prepared::PreparedStatement;

use crate::eras::ListedEras;
use crate::rows::{ATTEMPT_COLUMNS, COMMAND_COLUMNS, SALE_COLUMNS};

/// Rows in a page of a visit.
const VISIT_PAGE: i32 = 1_000;

/// The statements, prepared once for each connection.
pub(crate) struct Statements {
    pub(crate) insert_attempt: PreparedStatement,
    pub(crate) attempt: PreparedStatement,
    pub(crate) all_attempts: PreparedStatement,
    pub(crate) orders: List,
    pub(crate) intents: List,
    pub(crate) insert_command: PreparedStatement,
    pub(crate) command: PreparedStatement,
    pub(crate) all_commands: PreparedStatement,
    pub(crate) insert_sale: PreparedStatement,
    pub(crate) sale: PreparedStatement,
    pub(crate) sales_after: PreparedStatement,
    pub(crate) all_sales: PreparedStatement,
    pub(crate) insert_progress: PreparedStatement,
    pub(crate) progress: PreparedStatement,
    pub(crate) insert_mark: PreparedStatement,
    pub(crate) marks: PreparedStatement,
}

/// A list of attempts: a buyer's orders, a product's intents.
pub(crate) struct List {
    pub(crate) insert: PreparedStatement,
    pub(crate) insert_era: PreparedStatement,
    pub(crate) eras_after: PreparedStatement,
    pub(crate) rows_after: PreparedStatement,
    pub(crate) all: PreparedStatement,
    /// The eras that `insert_era` has written already.
    pub(crate) listed: ListedEras,
}

impl Statements {
    pub(crate) async fn prepare(session: &Session, keyspace: &str) -> Result<Self, PrepareError> {
        let prepare = |cql: String| prepare(session, cql);
        // Tables are named with their keyspace, since the id of a statement that relies on the
        // connection's keyspace differs between versions of Cassandra.
        let table = |name: &str| format!("{keyspace}.{name}");
        let attempt = ATTEMPT_COLUMNS.join(", ");
        let sale = SALE_COLUMNS.join(", ");
        let command = COMMAND_COLUMNS.join(", ");
        let (attempts, sales) = (table("attempts"), table("sales"));
        let commands = table("commands");
        let progress = ["log_partition", "next_offset", "claim", "answered"];
        let progress_of = format!("SELECT {} FROM {}", progress.join(", "), table("progress"));
        let mark = ["log_partition", "log", "last_offset", "last_record"];
        let mark_of = format!("SELECT {} FROM {}", mark.join(", "), table("log_marks"));
        Ok(Self {
            insert_attempt: prepare(insert(&attempts, ATTEMPT_COLUMNS, &[])).await?,
            attempt: prepare(format!(
                "SELECT {attempt} FROM {attempts} WHERE attempt_id = ?"
            ))
            .await?,
            all_attempts: prepare(format!("SELECT {attempt} FROM {attempts}")).await?,
            orders: List::prepare(session, &table("order"), "buyer_id").await?,
            intents: List::prepare(session, &table("intent"), "product_id").await?,
            insert_command: prepare(insert(&commands, COMMAND_COLUMNS, &["era"])).await?,
            command: prepare(format!(
                "SELECT {command} FROM {commands} \
                 WHERE log_partition = ? AND era = ? AND log_offset = ?"
            ))
            .await?,
            all_commands: prepare(format!("SELECT {command} FROM {commands}")).await?,
            insert_sale: prepare(insert(&sales, SALE_COLUMNS, &["bucket"])).await?,
            sale: prepare(format!(
                "SELECT {sale} FROM {sales} WHERE bucket = ? AND product_id = ?"
            ))
            .await?,
            sales_after: prepare(format!(
                "SELECT {sale} FROM {sales} WHERE bucket = ? AND product_id > ? LIMIT ?"
            ))
            .await?,
            all_sales: prepare(format!("SELECT {sale} FROM {sales}")).await?,
            insert_progress: prepare(insert(&table("progress"), &progress, &["scope"])).await?,
            progress: prepare(format!("{progress_of} WHERE scope = ?")).await?,
            insert_mark: prepare(insert(&table("log_marks"), &mark, &["scope"])).await?,
            marks: prepare(format!("{mark_of} WHERE scope = ?")).await?,
        })
    }
}

impl List {
    /// `name` is the common prefix of the list's tables, `owner` the column of the list's owner.
    async fn prepare(session: &Session, name: &str, owner: &str) -> Result<Self, PrepareError> {
        let prepare = |cql: String| prepare(session, cql);
        let columns = ATTEMPT_COLUMNS.join(", ");
        let (rows, eras) = (format!("{name}s"), format!("{name}_eras"));
        Ok(Self {
            insert: prepare(insert(&rows, ATTEMPT_COLUMNS, &["era"])).await?,
            insert_era: prepare(insert(&eras, &[owner, "log_partition", "era"], &[])).await?,
            eras_after: prepare(format!(
                "SELECT log_partition, era FROM {eras} \
                 WHERE {owner} = ? AND (log_partition, era) > (?, ?) LIMIT ?"
            ))
            .await?,
            rows_after: prepare(format!(
                "SELECT {columns} FROM {rows} \
                 WHERE {owner} = ? AND log_partition = ? AND era = ? AND log_offset > ? LIMIT ?"
            ))
            .await?,
            all: prepare(format!("SELECT {columns} FROM {rows}")).await?,
            listed: ListedEras::default(),
        })
    }
}

/// An insert whose values are bound by column name, and its write time as `written_at`.
fn insert(table: &str, columns: &[&str], more: &[&str]) -> String {
    let columns = [columns, more].concat();
    let (names, values) = (columns.join(", "), columns.join(", :"));
    format!("INSERT INTO {table} ({names}) VALUES (:{values}) USING TIMESTAMP :written_at")
}

async fn prepare(session: &Session, cql: String) -> Result<PreparedStatement, PrepareError> {
    let mut statement = session.prepare(cql).await?;
    // Writes have explicit times, so repeating one changes nothing.
    statement.set_is_idempotent(true);
    statement.set_page_size(VISIT_PAGE);
    Ok(statement)
}
