//! Migrations: the keyspace and its tables are created and changed step by step, each step once.
//!
//! Every step is a file in `migrations/` of statements that can be run again. `schema_migrations`
//! records the steps that were run, with the files' checksums. A process that finds steps missing
//! takes the lock in `schema_lock` first, so that two processes do not create the same table at the
//! same time.

use std::time::Duration;

use scylla::client::session::Session;
use scylla::errors::ExecutionError;
use scylla::response::query_result::QueryResult;
use scylla::serialize::row::SerializeRow;
use scylla::statement::unprepared::Statement;
use scylla::value::{CqlValue, Row};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};
use tracing::{info, warn};
use uuid::Uuid;

use crate::failure::Failure;
use crate::options::{Options, SCHEMA_TIMEOUT};

/// A migration step.
struct Migration {
    /// Its number in the order of steps, from 1.
    number: i32,
    name: &'static str,
    cql: &'static str,
}

/// Every step, in order. A released file never changes: a change of the tables is a new file.
const MIGRATIONS: &[Migration] = &[
    Migration {
        number: 1,
        name: "read_models",
        cql: include_str!("../migrations/0001_read_models.cql"),
    },
    Migration {
        number: 2,
        name: "commands",
        cql: include_str!("../migrations/0002_commands.cql"),
    },
    Migration {
        number: 3,
        name: "log_marks",
        cql: include_str!("../migrations/0003_log_marks.cql"),
    },
    Migration {
        number: 4,
        name: "prices_and_sale_versions",
        cql: include_str!("../migrations/0004_prices_and_sale_versions.cql"),
    },
];

/// How long the lock lasts after its holder died: longer than a statement and the agreement of all
/// nodes on its change may take. It is renewed before each statement.
const LEASE: Duration = Duration::from_secs(SCHEMA_TIMEOUT.as_secs() * 3);
/// How often a lock that another process holds is tried again.
const LOCK_RETRY: Duration = Duration::from_millis(200);

/// The tables in which the migrations themselves are recorded.
const BOOKKEEPING: [(&str, &str); 2] = [
    (
        "schema_migrations",
        "CREATE TABLE IF NOT EXISTS schema_migrations \
         (number int PRIMARY KEY, name text, sha256 text, applied_at timestamp) \
         WITH comment = 'Which files of Doorbuster made these tables?'",
    ),
    (
        "schema_lock",
        "CREATE TABLE IF NOT EXISTS schema_lock (name text PRIMARY KEY, holder uuid) \
         WITH comment = 'Who is changing these tables?'",
    ),
];

/// The condition on `system_schema.tables` for one table.
const THIS_TABLE: &str = "keyspace_name = ? AND table_name = ?";

/// Creates what this version needs and the keyspace does not have yet.
pub(crate) async fn run(session: &Session, options: &Options) -> Result<(), Failure> {
    let keyspace = Keyspace {
        session,
        holder: Uuid::new_v4(),
    };
    keyspace.create(options).await?;
    if keyspace.missing().await?.is_empty() {
        return Ok(());
    }
    let began = Instant::now();
    while !keyspace.lock().await? {
        if keyspace.missing().await?.is_empty() {
            break;
        }
        if began.elapsed() > LEASE * 2 {
            let why = ": another process holds the lock on the tables (schema_lock)";
            return Err(Failure::Passing(why.into()));
        }
        sleep(LOCK_RETRY).await;
    }
    let migrated = keyspace.migrate(options).await;
    keyspace.unlock().await;
    migrated?;
    // So that the driver knows the new tables before their first rows are written.
    let refreshed = session.refresh_metadata().await;
    refreshed.map_err(|error| Failure::Passing(format!(": {error}")))
}

/// Checks that the keyspace has everything that this version needs. Changes nothing.
pub(crate) async fn check(session: &Session, options: &Options) -> Result<(), Failure> {
    let keyspace = Keyspace {
        session,
        holder: Uuid::new_v4(),
    };
    let name = &options.keyspace;
    let lacks = |what: &str| {
        Failure::Lasting(format!(
            ": {what}: no projector of this version was started with this keyspace"
        ))
    };
    let there = keyspace.exists("keyspaces", "keyspace_name = ?", (name,));
    if !there.await? {
        return Err(lacks(&format!("keyspace {name} does not exist")));
    }
    let table = keyspace.exists("tables", THIS_TABLE, (name, BOOKKEEPING[0].0));
    if !table.await? {
        return Err(lacks(&format!("keyspace {name} has no read models")));
    }
    keyspace.enter(options).await?;
    match keyspace.missing().await?.first() {
        Some(Migration {
            number, name: it, ..
        }) => {
            let what = format!("keyspace {name} lacks the tables of migration {number} ({it})");
            Err(lacks(&what))
        }
        None => Ok(()),
    }
}

struct Keyspace<'a> {
    session: &'a Session,
    /// This process, as holder of the lock.
    holder: Uuid,
}

impl Keyspace<'_> {
    async fn create(&self, options: &Options) -> Result<(), Failure> {
        let name = &options.keyspace;
        if !self
            .exists("keyspaces", "keyspace_name = ?", (name,))
            .await?
        {
            let replication = match &options.datacenter {
                Some(datacenter) => format!("'NetworkTopologyStrategy', '{datacenter}'"),
                None => "'SimpleStrategy', 'replication_factor'".into(),
            };
            self.change(&format!(
                "CREATE KEYSPACE IF NOT EXISTS {name} \
                 WITH replication = {{'class': {replication}: {}}}",
                options.replication
            ))
            .await?;
        }
        self.enter(options).await?;
        for (table, create) in BOOKKEEPING {
            if !self.exists("tables", THIS_TABLE, (name, table)).await? {
                self.change(create).await?;
            }
        }
        Ok(())
    }

    /// Lets the following statements apply to the keyspace.
    async fn enter(&self, options: &Options) -> Result<(), Failure> {
        let name = &options.keyspace;
        let used = self.session.use_keyspace(name, false).await;
        used.map_err(|error| Failure::Passing(format!(": keyspace {name}: {error}")))
    }

    /// The steps that have not run. Checks that those that have run are known to this version.
    async fn missing(&self) -> Result<Vec<&'static Migration>, Failure> {
        let recorded = self
            .query("SELECT number, name, sha256 FROM schema_migrations", ())
            .await?;
        let recorded = recorded.into_rows_result().map_err(unexpected)?;
        let mut missing: Vec<_> = MIGRATIONS.iter().collect();
        for row in recorded
            .rows::<(i32, String, String)>()
            .map_err(unexpected)?
        {
            let (number, name, sha256) = row.map_err(unexpected)?;
            let Some(known) = MIGRATIONS.iter().find(|known| known.number == number) else {
                return Err(Failure::Lasting(format!(
                    ": its tables were changed by a newer version of Doorbuster (migration \
                     {number}, {name}), and this version knows migrations up to {}; start the newer \
                     version, or use another keyspace",
                    MIGRATIONS.len()
                )));
            };
            if sha256 != known.sha256() {
                return Err(Failure::Lasting(format!(
                    ": its tables were created by another migration {number} ({name}, sha256 \
                     {sha256}) than the one of this version ({}, sha256 {}); use another \
                     keyspace, or drop this one to have it rebuilt",
                    known.name,
                    known.sha256()
                )));
            }
            missing.retain(|missing| missing.number != number);
        }
        Ok(missing)
    }

    /// Runs the missing steps, with the lock held.
    async fn migrate(&self, options: &Options) -> Result<(), Failure> {
        for migration in self.missing().await? {
            for statement in migration.statements() {
                self.renew().await?;
                let is_done = match added_column(&statement) {
                    Some((table, column)) => self.has_column(options, table, column).await?,
                    None => false,
                };
                if !is_done {
                    self.change(&statement).await?;
                }
            }
            self.renew().await?;
            let Migration { number, name, .. } = *migration;
            self.query(
                "INSERT INTO schema_migrations (number, name, sha256, applied_at) \
                 VALUES (?, ?, ?, toTimestamp(now()))",
                (number, name, migration.sha256()),
            )
            .await?;
            info!(number, name, "tables changed");
        }
        Ok(())
    }

    async fn has_column(
        &self,
        options: &Options,
        table: &str,
        column: &str,
    ) -> Result<bool, Failure> {
        let this_column = "keyspace_name = ? AND table_name = ? AND column_name = ?";
        let values = (&options.keyspace, table, column);
        self.exists("columns", this_column, values).await
    }

    async fn lock(&self) -> Result<bool, Failure> {
        let cql = format!(
            "INSERT INTO schema_lock (name, holder) VALUES ('migrations', ?) \
             IF NOT EXISTS USING TTL {}",
            LEASE.as_secs()
        );
        self.query_if(&cql, (self.holder,)).await
    }

    async fn renew(&self) -> Result<(), Failure> {
        let cql = format!(
            "UPDATE schema_lock USING TTL {} SET holder = ? WHERE name = 'migrations' \
             IF holder = ?",
            LEASE.as_secs()
        );
        match self.query_if(&cql, (self.holder, self.holder)).await? {
            true => Ok(()),
            false => Err(Failure::Passing(
                ": another process took the lock on the tables (schema_lock)".into(),
            )),
        }
    }

    /// Releases the lock. If that fails, the lock ends with its lease.
    async fn unlock(&self) {
        let cql = "DELETE FROM schema_lock WHERE name = 'migrations' IF holder = ?";
        if let Err(Failure::Passing(why) | Failure::Lasting(why)) =
            self.query_if(cql, (self.holder,)).await
        {
            warn!("the lock on the tables was not released and ends in {LEASE:?}{why}");
        }
    }

    /// Runs a statement that changes the schema, and waits until all nodes agree on the change.
    async fn change(&self, cql: &str) -> Result<(), Failure> {
        let mut statement = Statement::new(cql);
        statement.set_is_idempotent(true);
        statement.set_request_timeout(Some(SCHEMA_TIMEOUT));
        let first_line = cql.lines().next().unwrap_or(cql);
        let changed = self.session.query_unpaged(statement, ()).await;
        changed
            .map(drop)
            .map_err(|error| Failure::of_schema(first_line, error))
    }

    async fn exists(
        &self,
        table: &str,
        which: &str,
        values: impl SerializeRow,
    ) -> Result<bool, Failure> {
        let cql = format!("SELECT keyspace_name FROM system_schema.{table} WHERE {which}");
        let rows = self.query(&cql, values).await?;
        Ok(rows.into_rows_result().map_err(unexpected)?.rows_num() > 0)
    }

    /// Runs a lightweight transaction and returns whether its condition held.
    async fn query_if(&self, cql: &str, values: impl SerializeRow) -> Result<bool, Failure> {
        let rows = self.query(cql, values).await?;
        let rows = rows.into_rows_result().map_err(unexpected)?;
        let row: Row = rows.single_row().map_err(unexpected)?;
        Ok(row.columns.first() == Some(&Some(CqlValue::Boolean(true))))
    }

    async fn query(&self, cql: &str, values: impl SerializeRow) -> Result<QueryResult, Failure> {
        let answer: Result<_, ExecutionError> = self.session.query_unpaged(cql, values).await;
        answer.map_err(|error| Failure::of_schema(cql, error))
    }
}

/// The table and the column of a statement that adds one. Not every engine takes `IF NOT EXISTS` there.
fn added_column(statement: &str) -> Option<(&str, &str)> {
    let words: Vec<_> = statement.split_whitespace().collect();
    match words[..] {
        ["ALTER", "TABLE", table, "ADD", column, _] => Some((table, column)),
        _ => None,
    }
}

impl Migration {
    /// Its statements, without comments. No text in them has a semicolon or two hyphens.
    fn statements(&self) -> Vec<String> {
        let lines = self.cql.lines();
        let code = lines.map(|line| line.split("--").next().unwrap_or(line).trim_end());
        let code = code
            .filter(|line| !line.is_empty())
            .collect::<Vec<_>>()
            .join("\n");
        let statements = code.split(';').map(|statement| statement.trim().to_owned());
        statements
            .filter(|statement| !statement.is_empty())
            .collect()
    }

    fn sha256(&self) -> String {
        let digest = Sha256::digest(self.cql);
        digest.iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn unexpected(error: impl std::error::Error) -> Failure {
    Failure::Passing(format!(": unexpected answer: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn migrations_are_numbered_without_gaps_and_can_be_run_again() {
        for (n, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(migration.number as usize, n + 1);
            let statements = migration.statements();
            assert!(!statements.is_empty());
            for statement in statements {
                if added_column(&statement).is_some() {
                    continue;
                }
                assert!(statement.contains("IF NOT EXISTS"), "{statement}");
                assert_eq!(statement.matches("CREATE").count(), 1, "{statement}");
            }
        }
    }

    /// This fails after a change of a released migration: stores created with the old text would be
    /// refused. Add a new migration instead.
    #[test]
    fn released_migrations_never_change() {
        let sums: Vec<_> = MIGRATIONS.iter().map(Migration::sha256).collect();
        assert_eq!(
            sums,
            [
                "1199a92449fcb65c5749d1c81640cb18319f15641853a9feb7d0d516ac69fcc4",
                "3d014f7e31013c78b0a08fda5ba44cf5e7d53c5422c1df98e8914ddb5caab824",
                "61e0f3b42c56412e9e5be4516d95bef653e1eb39388b7857050e803c639d97a4",
                "615c87080a86c0aa79885289709744ad3968d57f4a80482f6e231b135495abdd",
            ]
        );
    }
}
