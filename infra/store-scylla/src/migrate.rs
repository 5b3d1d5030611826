//! The keyspace and its tables, created and changed step by step, each step once.
//!
//! Every step is a file in `migrations/`, of statements that can be run again. What ran is
//! recorded in `schema_migrations`, with the file's checksum. Whoever finds steps missing takes
//! the lock in `schema_lock` first, so that two who start together do not both create a table.

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

use crate::connect::{Failure, unmigrated};
use crate::options::{Options, SCHEMA_TIMEOUT};

/// A step.
struct Migration {
    /// Its place in line, from 1.
    number: i32,
    name: &'static str,
    cql: &'static str,
}

/// Every step, in order. A file that was ever released stays as it is: who wants the tables
/// different adds one.
const MIGRATIONS: &[Migration] = &[Migration {
    number: 1,
    name: "read_models",
    cql: include_str!("../migrations/0001_read_models.cql"),
}];

/// How long the lock outlives whoever died with it: longer than a statement may take and its
/// change to spread. It is renewed before each statement.
const LEASE: Duration = Duration::from_secs(SCHEMA_TIMEOUT.as_secs() * 3);
/// How often somebody else's lock is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

/// What the steps themselves need.
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

/// Makes the keyspace what this version needs.
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
            let why = ": somebody else holds the lock on the tables (schema_lock)";
            return Err(Failure::Passing(why.into()));
        }
        sleep(LOOK_AGAIN).await;
    }
    let migrated = keyspace.migrate().await;
    keyspace.unlock().await;
    migrated?;
    // The driver learns of the new tables now, not when their first rows are written.
    let learnt = session.refresh_metadata().await;
    learnt.map_err(|error| Failure::Passing(format!(": {error}")))
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
        let used = self.session.use_keyspace(name, false).await;
        used.map_err(|error| Failure::Passing(format!(": keyspace {name}: {error}")))?;
        for (table, create) in BOOKKEEPING {
            let of_ours = "keyspace_name = ? AND table_name = ?";
            if !self.exists("tables", of_ours, (name, table)).await? {
                self.change(create).await?;
            }
        }
        Ok(())
    }

    /// The steps that have not run, all checked against those that have.
    async fn missing(&self) -> Result<Vec<&'static Migration>, Failure> {
        let recorded = self
            .ask("SELECT number, name, sha256 FROM schema_migrations", ())
            .await?;
        let recorded = recorded.into_rows_result().map_err(nonsense)?;
        let mut missing: Vec<_> = MIGRATIONS.iter().collect();
        for row in recorded.rows::<(i32, String, String)>().map_err(nonsense)? {
            let (number, name, sha256) = row.map_err(nonsense)?;
            let Some(known) = MIGRATIONS.iter().find(|known| known.number == number) else {
                return Err(Failure::Lasting(format!(
                    ": its tables were changed by a newer version of Doorbuster (migration \
                     {number}, {name}), and this one knows {} at most; start that version, or \
                     use another keyspace",
                    MIGRATIONS.len()
                )));
            };
            if sha256 != known.sha256() {
                return Err(Failure::Lasting(format!(
                    ": its tables were made by another migration {number} ({name}, sha256 \
                     {sha256}) than the one of this version ({}, sha256 {}); use another \
                     keyspace, or drop this one to have it built anew",
                    known.name,
                    known.sha256()
                )));
            }
            missing.retain(|missing| missing.number != number);
        }
        Ok(missing)
    }

    /// Runs what has not run, with the lock held.
    async fn migrate(&self) -> Result<(), Failure> {
        for migration in self.missing().await? {
            for statement in migration.statements() {
                self.renew().await?;
                self.change(&statement).await?;
            }
            self.renew().await?;
            let Migration { number, name, .. } = *migration;
            self.ask(
                "INSERT INTO schema_migrations (number, name, sha256, applied_at) \
                 VALUES (?, ?, ?, toTimestamp(now()))",
                (number, name, migration.sha256()),
            )
            .await?;
            info!(number, name, "tables changed");
        }
        Ok(())
    }

    async fn lock(&self) -> Result<bool, Failure> {
        let cql = format!(
            "INSERT INTO schema_lock (name, holder) VALUES ('migrations', ?) \
             IF NOT EXISTS USING TTL {}",
            LEASE.as_secs()
        );
        self.ask_if(&cql, (self.holder,)).await
    }

    async fn renew(&self) -> Result<(), Failure> {
        let cql = format!(
            "UPDATE schema_lock USING TTL {} SET holder = ? WHERE name = 'migrations' \
             IF holder = ?",
            LEASE.as_secs()
        );
        match self.ask_if(&cql, (self.holder, self.holder)).await? {
            true => Ok(()),
            false => Err(Failure::Passing(
                ": somebody else took the lock on the tables (schema_lock)".into(),
            )),
        }
    }

    /// A lock that cannot be given back ends with its lease.
    async fn unlock(&self) {
        let cql = "DELETE FROM schema_lock WHERE name = 'migrations' IF holder = ?";
        if let Err(Failure::Passing(why) | Failure::Lasting(why)) =
            self.ask_if(cql, (self.holder,)).await
        {
            warn!("the lock on the tables is kept for {LEASE:?}{why}");
        }
    }

    /// Runs a statement that changes the schema, and waits until all nodes know of it.
    async fn change(&self, cql: &str) -> Result<(), Failure> {
        let mut statement = Statement::new(cql);
        statement.set_is_idempotent(true);
        statement.set_request_timeout(Some(SCHEMA_TIMEOUT));
        let first_line = cql.lines().next().unwrap_or(cql);
        let changed = self.session.query_unpaged(statement, ()).await;
        changed
            .map(drop)
            .map_err(|error| unmigrated(first_line, error))
    }

    async fn exists(
        &self,
        table: &str,
        which: &str,
        values: impl SerializeRow,
    ) -> Result<bool, Failure> {
        let cql = format!("SELECT keyspace_name FROM system_schema.{table} WHERE {which}");
        let rows = self.ask(&cql, values).await?;
        Ok(rows.into_rows_result().map_err(nonsense)?.rows_num() > 0)
    }

    /// Runs a lightweight transaction and returns whether its condition held.
    async fn ask_if(&self, cql: &str, values: impl SerializeRow) -> Result<bool, Failure> {
        let rows = self.ask(cql, values).await?;
        let rows = rows.into_rows_result().map_err(nonsense)?;
        let row: Row = rows.single_row().map_err(nonsense)?;
        Ok(row.columns.first() == Some(&Some(CqlValue::Boolean(true))))
    }

    async fn ask(&self, cql: &str, values: impl SerializeRow) -> Result<QueryResult, Failure> {
        let asked: Result<_, ExecutionError> = self.session.query_unpaged(cql, values).await;
        asked.map_err(|error| unmigrated(cql, error))
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

fn nonsense(error: impl std::error::Error) -> Failure {
    Failure::Passing(format!(": an answer makes no sense: {error}"))
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
                assert!(statement.contains("IF NOT EXISTS"), "{statement}");
                assert_eq!(statement.matches("CREATE").count(), 1, "{statement}");
            }
        }
    }

    /// Whoever edits a released migration finds this failing: stores made with the old text
    /// would be refused. Add a new migration instead.
    #[test]
    fn released_migrations_never_change() {
        let sums: Vec<_> = MIGRATIONS.iter().map(Migration::sha256).collect();
        assert_eq!(
            sums,
            ["1199a92449fcb65c5749d1c81640cb18319f15641853a9feb7d0d516ac69fcc4"]
        );
    }
}
