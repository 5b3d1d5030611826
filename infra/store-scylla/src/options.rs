//! What a store is opened with, checked before anything is connected.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use openssl::error::ErrorStack;
use openssl::ssl::{SslConnector, SslConnectorBuilder, SslFiletype, SslMethod};
use openssl::x509::X509;
use openssl::x509::store::X509StoreBuilder;
use scylla::client::execution_profile::ExecutionProfile;
use scylla::client::session::OpenSsl010Config;
use scylla::client::session_builder::SessionBuilder;
use scylla::statement::{Consistency, SerialConsistency};

/// How long a request may take, its retries included.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a change to the schema may take, and then again its spreading to all nodes.
pub(crate) const SCHEMA_TIMEOUT: Duration = Duration::from_secs(30);
/// The most requests that may be allowed at once.
const MAX_IN_FLIGHT: usize = 10_000;

/// What a store is opened with.
#[derive(Clone)]
pub struct Options {
    /// Nodes to begin with, as `host:port`, at least one; the others are learnt from them.
    pub nodes: Vec<String>,
    /// The keyspace: a lower-case letter, then at most 47 lower-case letters, digits and `_`.
    /// Created when it does not exist; one that exists is left as it is.
    pub keyspace: String,
    /// The datacenter that this process is in: requests go to its nodes and count as done when
    /// a quorum of them has answered. None: all nodes are alike.
    pub datacenter: Option<String>,
    /// How many nodes keep each row, if the keyspace has to be created; at least 1.
    pub replication: u32,
    /// The user to log in as, if the nodes ask for one.
    pub username: Option<String>,
    /// Its password.
    pub password: Option<String>,
    /// Talk TLS to the nodes; none: plain text.
    pub tls: Option<Tls>,
    /// How many requests may be under way at once, 1 to 10,000. More wait their turn, at most
    /// as long as a request may take.
    pub max_in_flight: usize,
}

/// How to talk TLS. The nodes' certificates are checked, and must name their IP addresses.
#[derive(Debug, Clone, Default)]
pub struct Tls {
    /// PEM file of the authorities that the nodes' certificates come from; none: the system's.
    pub ca_file: Option<PathBuf>,
    /// PEM file of the certificate to show to the nodes, followed by its chain.
    pub cert_file: Option<PathBuf>,
    /// PEM file of that certificate's private key.
    pub key_file: Option<PathBuf>,
}

/// The options cannot be right.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// There is no node to begin with.
    #[error("no node of Cassandra/ScyllaDB is named; name at least one, as host:port")]
    NoNodes,
    /// A node is not `host:port`.
    #[error("{0:?} is not a node of Cassandra/ScyllaDB; write host:port, such as 10.0.0.5:9042")]
    Node(String),
    /// The keyspace's name is none that needs no quotes.
    #[error(
        "{0:?} cannot be the name of a keyspace; write a lower-case letter, then at most 47 lower-case letters, digits and underscores"
    )]
    Keyspace(String),
    /// The datacenter's name cannot be right.
    #[error("{0:?} cannot be the name of a datacenter; it must be neither empty nor have quotes")]
    Datacenter(String),
    /// No node would keep a row.
    #[error("the replication of Cassandra/ScyllaDB must be at least 1")]
    Replication,
    /// No request, or too many, would be allowed.
    #[error("requests under way at once must be 1 to {MAX_IN_FLIGHT}, not {0}")]
    InFlight(usize),
    /// One of user name and password is missing.
    #[error("Cassandra/ScyllaDB takes a user name and a password, or neither; the {0} is missing")]
    Credentials(&'static str),
    /// One of certificate and key is missing.
    #[error(
        "TLS to Cassandra/ScyllaDB takes a certificate and its key, or neither; the {0} is missing"
    )]
    ClientCertificate(&'static str),
    /// A file for TLS cannot be used.
    #[error("the {what} {} cannot be used: {why}", path.display())]
    File {
        /// What the file should be.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// TLS does not work on this machine.
    #[error("TLS cannot be set up: {0}")]
    Tls(ErrorStack),
}

impl Options {
    /// The driver's settings, with everything checked that can be without a connection.
    pub(crate) fn driver(&self) -> Result<SessionBuilder, OpenError> {
        self.check()?;
        let consistency = match self.datacenter {
            Some(_) => Consistency::LocalQuorum,
            None => Consistency::Quorum,
        };
        let profile = ExecutionProfile::builder()
            .consistency(consistency)
            // Only the lock on the schema needs it, and there is one schema for all datacenters.
            .serial_consistency(Some(SerialConsistency::Serial))
            .request_timeout(Some(REQUEST_TIMEOUT))
            .build();
        let mut driver = SessionBuilder::new()
            .known_nodes(&self.nodes)
            .default_execution_profile_handle(profile.into_handle())
            .connection_timeout(REQUEST_TIMEOUT)
            // A node that vanished without a word is noticed by these, not by the requests.
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

/// Shows everything but the password.
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
            // These authorities alone, where set_ca_file would add them to the system's.
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
