//! Connecting: from options to prepared statements, with retries in the background.

use std::sync::Arc;
use std::time::Duration;

use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::{
    ConnectionError, ConnectionPoolError, ConnectionSetupRequestErrorKind, DbError, MetadataError,
    NewSessionError,
};
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use crate::cluster::Cluster;
use crate::counts::Counts;
use crate::failure::Failure;
use crate::migrate;
use crate::options::Options;
use crate::statements::Statements;

/// How long one try to connect may take, over all named nodes.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// The pause before the second try; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(3);

/// What a store may do to its keyspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// Create it and its tables, and write rows.
    Full,
    /// Nothing.
    ReadOnly,
}

/// The state of a store's connection.
pub(crate) enum State {
    /// Not connected yet, for this reason.
    Waiting(String),
    /// Not connected before an operator fixes this.
    Refused(String),
    /// Connected. If the nodes go away, the driver reconnects by itself.
    Connected(Arc<Cluster>),
}

/// Why a store is not ready.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotReady {
    /// The store may still become ready; it keeps trying.
    #[error("not ready after {timeout:?}: {why}")]
    Timeout {
        /// How long the caller waited.
        timeout: Duration,
        /// What the store is waiting for.
        why: String,
    },
    /// The store will not become ready before an operator fixes this.
    #[error("{0}")]
    Refused(String),
}

impl State {
    pub(crate) fn beginning(options: &Options) -> Self {
        State::Waiting(format!("{} is not connected yet", name(options)))
    }
}

/// Connects, and tries again until that succeeds.
pub(crate) async fn keep_trying(
    options: Options,
    driver: SessionBuilder,
    access: Access,
    counts: Arc<Counts>,
    state: watch::Sender<State>,
) {
    let mut pause = FIRST_PAUSE;
    let mut logged = String::new();
    loop {
        let next = match connect(&options, &driver, access, &counts).await {
            Ok(cluster) => {
                info!(nodes = %options.nodes.join(","), keyspace = options.keyspace, "connected");
                state.send_replace(State::Connected(Arc::new(cluster)));
                return;
            }
            Err(Failure::Passing(why)) => {
                counts.unreachable();
                State::Waiting(format!("{}{why}", name(&options)))
            }
            Err(Failure::Lasting(why)) => State::Refused(format!("{}{why}", name(&options))),
        };
        if let State::Waiting(why) | State::Refused(why) = &next
            && *why != logged
        {
            warn!("{why}; the connection is tried again");
            logged = why.clone();
        }
        state.send_replace(next);
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

async fn connect(
    options: &Options,
    driver: &SessionBuilder,
    access: Access,
    counts: &Arc<Counts>,
) -> Result<Cluster, Failure> {
    let session = match timeout(CONNECT_TIMEOUT, driver.build()).await {
        Ok(session) => session.map_err(|error| unconnected(options, error))?,
        Err(_) => {
            let why = format!(" cannot be reached: no answer within {CONNECT_TIMEOUT:?}");
            return Err(Failure::Passing(why));
        }
    };
    check_datacenter(options, &session)?;
    match access {
        Access::Full => migrate::run(&session, options).await?,
        Access::ReadOnly => migrate::check(&session, options).await?,
    }
    let statements = Statements::prepare(&session, &options.keyspace).await;
    let statements = statements.map_err(|error| Failure::Passing(format!(": {error}")))?;
    Ok(Cluster::new(
        session,
        name(options),
        counts.clone(),
        statements,
        options.max_in_flight,
    ))
}

/// The nodes' name in messages.
fn name(options: &Options) -> String {
    format!("Cassandra/ScyllaDB at {}", options.nodes.join(", "))
}

/// Checks that the configured datacenter exists. Otherwise the driver would connect, and then find no
/// node for any request.
fn check_datacenter(options: &Options, session: &Session) -> Result<(), Failure> {
    let Some(configured) = &options.datacenter else {
        return Ok(());
    };
    let cluster = session.get_cluster_state();
    let nodes = cluster.get_nodes_info().iter();
    let mut known: Vec<_> = nodes.filter_map(|node| node.datacenter.clone()).collect();
    known.sort();
    known.dedup();
    match known.contains(configured) {
        true => Ok(()),
        false => Err(Failure::Lasting(format!(
            " has no datacenter {configured:?}; it has {}",
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
                return Failure::Lasting(" requires a user name and a password".into());
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
