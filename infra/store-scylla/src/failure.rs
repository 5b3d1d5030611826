//! Why a try to connect, or to create the tables, failed.

use scylla::errors::{DbError, ExecutionError, RequestAttemptError};

/// Why a try to connect failed. The text continues a sentence that begins with the nodes' name.
pub(crate) enum Failure {
    /// The next try may succeed.
    Passing(String),
    /// The next try will fail as well, until an operator fixes the cause.
    Lasting(String),
}

impl Failure {
    /// The failure of a statement that changes or reads the schema.
    pub(crate) fn of_schema(what: &str, error: ExecutionError) -> Self {
        let (lasting, hint) = match &error {
            ExecutionError::LastAttemptError(RequestAttemptError::DbError(kind, message)) => (
                // `Invalid` is not among them: a table that another process is just creating is
                // listed before it can be used.
                matches!(
                    kind,
                    DbError::Unauthorized | DbError::ConfigError | DbError::SyntaxError
                ),
                // ScyllaDB before 2025.4.
                if message.contains("tablets") {
                    "; create the keyspace by hand, WITH tablets = {'enabled': false}"
                } else {
                    ""
                },
            ),
            _ => (false, ""),
        };
        let why = format!(": {what} failed: {error}{hint}");
        match lasting {
            true => Self::Lasting(why),
            false => Self::Passing(why),
        }
    }
}
