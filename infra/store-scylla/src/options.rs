//! The options of a store, checked before it connects.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslFiletype, SslMethod};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::OpenSsl010Config;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::{Consistency, SerialConsistency};

use crate::counts::{CountedRetries, Counts};

/// How long a request may take, its retries included.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a change of the schema may take, and then again the agreement of all nodes on it.
pub(crate) const SCHEMA_TIMEOUT: Duration = Duration::from_secs(30);
/// The highest limit on concurrent requests.
const MAX_IN_FLIGHT: usize = 10_000;

/// The options of a store.
#[derive(Clone)]
pub struct Options {
    /// Contact points, as `host:port`, at least one; the driver discovers the other nodes.
    pub nodes: Vec<String>,
    /// The keyspace: a lower-case letter, then at most 47 lower-case letters, digits and `_`.
    /// Created if it does not exist; an existing one is not changed.
    pub keyspace: String,
    /// The datacenter of this process: requests go to its nodes, and succeed when a quorum of them
    /// has answered. None: all nodes are equal.
    pub datacenter: Option<String>,
    /// The number of replicas of each row, used when the keyspace is created; at least 1.
    pub replication: u32,
    /// The user to log in as, if the nodes require a login.
    pub username: Option<String>,
    /// The user's password.
    pub password: Option<String>,
    /// TLS to the nodes; none: plain text.
    pub tls: Option<Tls>,
    /// The most requests under way at once, 1 to 10,000. Further ones wait, at most as long as a
    /// request may take.
    pub max_in_flight: usize,
}

/// The options of TLS. The nodes' certificates are verified, and must name their IP addresses.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// PEM file of the authorities that issued the nodes' certificates; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the client's certificate, followed by its chain.
    pub cert_file: Option<PathBuf>,
    /// PEM file of that certificate's private key.
    pub key_file: Option<PathBuf>,
}

/// The options are not valid.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// No contact point is named.
    #[error("no node of Cassandra/ScyllaDB is named; name at least one, as host:port")]
    NoNodes,
    /// A node is not `host:port`.
    #[error("{0:?} is not a node of Cassandra/ScyllaDB; write host:port, such as 10.0.0.5:9042")]
    Node(String),
    /// The keyspace's name is not valid, or would need quotes.
    #[error(
        "{0:?} cannot be the name of a keyspace; write a lower-case letter, then at most 47 lower-case letters, digits and underscores"
    )]
    Keyspace(String),
    /// The datacenter's name is not valid.
    #[error("{0:?} cannot be the name of a datacenter; it must not be empty or contain quotes")]
    Datacenter(String),
    /// The replication is 0.
    #[error("the replication of Cassandra/ScyllaDB must be at least 1")]
    Replication,
    /// The limit on concurrent requests is out of bounds.
    #[error("the number of requests under way at once must be 1 to {MAX_IN_FLIGHT}, not {0}")]
    InFlight(usize),
    /// User name or password is missing.
    #[error("a login to Cassandra/ScyllaDB needs a user name and a password; the {0} is missing")]
    Credentials(&'static str),
    /// Certificate or key is missing.
    #[error(
        "a client certificate for Cassandra/ScyllaDB needs its key and vice versa; the {0} is missing"
    )]
    ClientCertificate(&'static str),
    /// A file for TLS cannot be used.
    #[error("the {what} {} cannot be used: {why}", path.display())]
    File {
        /// The kind of file.
        what: &'static str,
        /// The file's path.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// OpenSSL cannot be set up.
    #[error("TLS cannot be set up: {0}")]
    Tls(ErrorStack),
}

impl Options {
    /// Checks the options as far as possible without a connection, and returns the driver's settings.
    pub(crate) fn driver(&self, counts: Arc<Counts>) -> Result<SessionBuilder, OpenError> {
        self.check()?;
        let consistency = match self.datacenter {
            Some(_) => Consistency::LocalQuorum,
            None => Consistency::Quorum,
        };
        let profile = ExecutionProfile::builder()
            .consistency(consistency)
            // Only the lock on the schema uses it, and there is one schema for all datacenters.
            .serial_consistency(Some(SerialConsistency::Serial))
            .request_timeout(Some(REQUEST_TIMEOUT))
            .retry_policy(Arc::new(CountedRetries(counts)))
            .build();
        let mut driver = SessionBuilder::new()
            .known_nodes(&self.nodes)
            .default_execution_profile_handle(profile.into_handle())
            .connection_timeout(REQUEST_TIMEOUT)
            // These detect a node that vanished silently, before requests run into it.
            .keepalive_interval(Duration::from_secs(5))
            .keepalive_timeout(REQUEST_TIMEOUT)
            .schema_agreement_interval(Duration::from_millis(50))
            .schema_agreement_timeout(SCHEMA_TIMEOUT)
            .keyspaces_to_fetch([&self.keyspace]);
        if let Some(datacenter) = &self.datacenter {
            driver = driver.prefer_datacenter(datacenter.clone());
        }
        if let (Some(username), Some(password)) = (&self.username, &self.password) {
            driver = driver.user(username, password);
        }
        if let Some(tls) = &self.tls {
            driver = driver.tls_context(Some(OpenSsl010Config::new(tls.connector()?)));
        }
        Ok(driver)
    }

    fn check(&self) -> Result<(), OpenError> {
        if self.nodes.is_empty() {
            return Err(OpenError::NoNodes);
        }
        for node in &self.nodes {
            let port = node.rsplit_once(':').filter(|(host, _)| !host.is_empty());
            if port.is_none_or(|(_, port)| port.parse::<u16>().is_err()) {
                return Err(OpenError::Node(node.clone()));
            }
        }
        let first = |c: char| c.is_ascii_lowercase();
        let any = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        let name = &self.keyspace;
        if !name.starts_with(first) || !name.chars().all(any) || name.len() > 48 {
            return Err(OpenError::Keyspace(name.clone()));
        }
        if let Some(datacenter) = &self.datacenter
            && (datacenter.is_empty() || datacenter.contains(['\'', '"']))
        {
            return Err(OpenError::Datacenter(datacenter.clone()));
        }
        if self.replication == 0 {
            return Err(OpenError::Replication);
        }
        if self.max_in_flight == 0 || self.max_in_flight > MAX_IN_FLIGHT {
            return Err(OpenError::InFlight(self.max_in_flight));
        }
        match (&self.username, &self.password) {
            (Some(_), None) => Err(OpenError::Credentials("password")),
            (None, Some(_)) => Err(OpenError::Credentials("user name")),
            _ => Ok(()),
        }
    }
}

/// Shows all fields, but not the password.
impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("nodes", &self.nodes)
            .field("keyspace", &self.keyspace)
            .field("datacenter", &self.datacenter)
            .field("replication", &self.replication)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "hidden"))
            .field("tls", &self.tls)
            .field("max_in_flight", &self.max_in_flight)
            .finish()
    }
}

impl Tls {
    fn connector(&self) -> Result<SslConnectorBuilder, OpenError> {
        let mut tls = SslConnector::builder(SslMethod::tls_client()).map_err(OpenError::Tls)?;
        if let Some(path) = &self.ca_file {
            let unusable = |why: String| OpenError::File {
                what: "file of certificate authorities",
                path: path.clone(),
                why,
            };
            let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
            let authorities =
                X509::stack_from_pem(&pem).map_err(|error| unusable(error.to_string()))?;
            if authorities.is_empty() {
                return Err(unusable("it has no certificate in PEM form".into()));
            }
            // These authorities alone; set_ca_file would add them to the system's.
            let mut store = X509StoreBuilder::new().map_err(OpenError::Tls)?;
            for authority in authorities {
                store.add_cert(authority).map_err(OpenError::Tls)?;
            }
            tls.set_cert_store(store.build());
        }
        match (&self.cert_file, &self.key_file) {
            (Some(certificate), Some(key)) => {
                tls.set_certificate_chain_file(certificate)
                    .map_err(unusable("certificate", certificate))?;
                tls.set_private_key_file(key, SslFiletype::PEM)
                    .map_err(unusable("key", key))?;
                tls.check_private_key().map_err(unusable("key", key))?;
                Ok(tls)
            }
            (Some(_), None) => Err(OpenError::ClientCertificate("key")),
            (None, Some(_)) => Err(OpenError::ClientCertificate("certificate")),
            (None, None) => Ok(tls),
        }
    }
}

fn unusable(what: &'static str, path: &Path) -> impl FnOnce(ErrorStack) -> OpenError {
    move |error| OpenError::File {
        what,
        path: path.to_owned(),
        why: error.to_string(),
    }
}
