//! The tables of the file: their definitions, and creating them.

use redb::{Database, ReadableDatabase, TableDefinition, TableError};

use crate::rows::{FORMAT, ProgressValue, Table};

/// Progress by partition.
pub(crate) const PROGRESS: TableDefinition<u32, ProgressValue> = TableDefinition::new("progress");
/// The format's version, under [`FORMAT_KEY`].
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
const FORMAT_KEY: &str = "format";

/// The definition of a table of rows.
pub(crate) fn definition(table: Table) -> TableDefinition<'static, &'static [u8], &'static [u8]> {
    TableDefinition::new(table.name())
}

/// Drops all tables of the file and creates empty ones of the current format.
pub(crate) fn recreate(file: &Database) -> Result<(), redb::Error> {
    let transaction = file.begin_write()?;
    let tables: Vec<_> = transaction.list_tables()?.collect();
    for table in tables {
        transaction.delete_table(table)?;
    }
    for table in Table::ALL {
        transaction.open_table(definition(table))?;
    }
    transaction.open_table(PROGRESS)?;
    transaction.open_table(META)?.insert(FORMAT_KEY, FORMAT)?;
    transaction.commit()?;
    Ok(())
}

/// The version of the format that the file was written in.
pub(crate) fn format(file: &Database) -> Result<u64, redb::Error> {
    let meta = match file.begin_read()?.open_table(META) {
        Err(TableError::TableDoesNotExist(_)) => {
            return Err(redb::Error::Corrupted("it has no format version".into()));
        }
        opened => opened?,
    };
    let found = meta.get(FORMAT_KEY)?.map(|found| found.value());
    found.ok_or_else(|| redb::Error::Corrupted("it has no format version".into()))
}
