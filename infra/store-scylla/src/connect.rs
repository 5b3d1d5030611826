//! Getting from options to prepared statements, however long that takes.

use std::sync::Arc;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, ExecutionError,
    MetadataError, NewSessionError, RequestAttemptError,
};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::cluster::Cluster;
use crate::migrate;
use crate::options::Options;
use crate::statements::Statements;

/// How long the first connection may take, all named nodes tried.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The pause before the second try; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// Where a store stands.
pub(crate) enum State {
    /// Not connected yet, for this reason.
    Waiting(String),
    /// Not connected, and not before somebody mends this.
    Refused(String),
    /// Connected. Should the nodes go away, the driver connects again by itself.
    Connected(Arc<Cluster>),
}

/// Why a store is not ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// It may yet become ready; the store goes on trying.
    #[error("not ready after {timeout:?}: {why}")]
    Timeout {
        /// How long it was waited for.
        timeout: Duration,
        /// What it waits for.
        why: String,
    },
    /// It will not become ready before somebody mends this.
    #[error("{0}")]
    Refused(String),
}

/// Why a try to connect failed.
pub(crate) enum Failure {
    /// The next may succeed.
    Passing(String),
    /// The next will fail as well, unless somebody mends this.
    Lasting(String),
}

impl State {
    pub(crate) fn beginning(options: &Options) -> Self {
        State::Waiting(format!("{} is still being connected to", name(options)))
    }
}

/// Connects, and tries again until that succeeds.
pub(crate) async fn keep_trying(
    options: Options,
    driver: SessionBuilder,
    state: watch::Sender<State>,
) {
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    loop {
        let next = match connect(&options, &driver).await {
            Ok(cluster) => {
                info!(nodes = %options.nodes.join(","), keyspace = options.keyspace, "connected");
                state.send_replace(State::Connected(Arc::new(cluster)));
                return;
            }
            Err(Failure::Passing(why)) => State::Waiting(format!("{}{why}", name(&options))),
            Err(Failure::Lasting(why)) => State::Refused(format!("{}{why}", name(&options))),
        };
        if let State::Waiting(why) | State::Refused(why) = &next
            && *why != said
        {
            warn!("{why}; trying on");
            said = why.clone();
        }
        state.send_replace(next);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn connect(options: &Options, driver: &SessionBuilder) -> Result<Cluster, Failure> {
    let session = match timeout(CONNECT_TIMEOUT, driver.build()).await {
        Ok(session) => session.map_err(|error| unconnected(options, error))?,
        Err(_) => {
            let why = format!(" cannot be reached: no answer within {CONNECT_TIMEOUT:?}");
            return Err(Failure::Passing(why));
        }
    };
    check_datacenter(options, &session)?;
    migrate::run(&session, options).await?;
    let statements = Statements::prepare(&session, &options.keyspace).await;
    let statements = statements.map_err(|error| Failure::Passing(format!(": {error}")))?;
    Ok(Cluster::new(
        session,
        name(options),
        statements,
        options.max_in_flight,
    ))
}

/// How the nodes are called in messages.
fn name(options: &Options) -> String {
    format!("Cassandra/ScyllaDB at {}", options.nodes.join(", "))
}

/// Otherwise the driver would connect, and then find no node for any request.
fn check_datacenter(options: &Options, session: &Session) -> Result<(), Failure> {
    let Some(wanted) = &options.datacenter else {
        return Ok(());
    };
    let cluster = session.get_cluster_state();
    let nodes = cluster.get_nodes_info().iter();
    let mut known: Vec<_> = nodes.filter_map(|node| node.datacenter.clone()).collect();
    known.sort();
    known.dedup();
    match known.contains(wanted) {
        true => Ok(()),
        false => Err(Failure::Lasting(format!(
            " has no datacenter {wanted:?}; it has {}",
            known.join(", ")
        ))),
    }
}

fn unconnected(options: &Options, error: NewSessionError) -> Failure {
    let error = match error {
        NewSessionError::MetadataError(MetadataError::ConnectionPoolError(
            ConnectionPoolError::Broken {
                last_connection_error: error,
            },
        )) => error,
        error => return Failure::Passing(format!(" cannot be reached: {error}")),
    };
    if let ConnectionError::ConnectionSetupRequestError(refused) = &error {
        match refused.get_error() {
            ConnectionSetupRequestErrorKind::MissingAuthentication => {
                return Failure::Lasting(" asks for a user name and a password".into());
            }
            ConnectionSetupRequestErrorKind::DbError(DbError::AuthenticationError, why) => {
                let user = options.username.as_deref().unwrap_or_default();
                let why = format!(" refuses the user {user:?} and its password: {why}");
                return Failure::Lasting(why);
            }
            _ => {}
        }
    }
    Failure::Passing(format!(" cannot be reached: {error}"))
}

/// A statement that creates something, or asks what there is, failed.
pub(crate) fn unmigrated(what: &str, error: ExecutionError) -> Failure {
    let (lasting, hint) = match &error {
        ExecutionError::LastAttemptError(RequestAttemptError::DbError(kind, message)) => (
            // Not so what is invalid: a table that somebody else is just creating is listed
            // before it can be used.
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
        true => Failure::Lasting(why),
        false => Failure::Passing(why),
    }
}
