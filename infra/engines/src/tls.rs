//! A certificate, a user and a password for the secure listeners.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::Error;

/// The access of a client to an engine through TLS with a password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secure {
    /// The engine's secure addresses: `host:port`, comma-separated.
    pub addresses: String,
    /// PEM file of the certificate to trust: the server's own, for 127.0.0.1 and localhost.
    pub ca_file: PathBuf,
    /// The user.
    pub user: String,
    /// The user's password.
    pub password: String,
}

/// The servers' certificate, and the user that they accept.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Tls {
    pub keystore: PathBuf,
    pub certificate: PathBuf,
    /// Cassandra creates this user itself, with this password.
    pub user: String,
    pub password: String,
}

/// The password of a key that is only used for tests on the loopback address.
pub(crate) const KEYSTORE_PASSWORD: &str = "loopback";

impl Tls {
    /// Creates the certificate in the set's directory, unless it exists.
    pub fn make(set: &Path, java: &Path) -> Result<Self, Error> {
        let dir = set.join("tls");
        let tls = Self {
            keystore: dir.join("keystore.p12"),
            certificate: dir.join("ca.pem"),
            user: "cassandra".to_owned(),
            password: "cassandra".to_owned(),
        };
        if tls.certificate.exists() {
            return Ok(tls);
        }
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        let keystore = tls.keystore.display().to_string();
        let certificate = tls.certificate.display().to_string();
        let store = [
            "-alias",
            "engines",
            "-keystore",
            &keystore,
            "-storetype",
            "PKCS12",
        ];
        let password = ["-storepass", KEYSTORE_PASSWORD];
        let key = [
            "-genkeypair",
            "-keyalg",
            "RSA",
            "-keysize",
            "2048",
            "-validity",
            "3650",
        ];
        let names = [
            "-dname",
            "CN=localhost",
            "-ext",
            "SAN=ip:127.0.0.1,dns:localhost",
        ];
        keytool(java, &[&key[..], &names, &store, &password].concat())?;
        let export = ["-exportcert", "-rfc", "-file", &certificate];
        keytool(java, &[&export[..], &store, &password].concat())?;
        Ok(tls)
    }

    /// A broker's settings for its listener SASL_SSL.
    pub fn kafka_properties(&self) -> String {
        let Self { user, password, .. } = self;
        let keystore = self.keystore.display();
        let plain = "org.apache.kafka.common.security.plain.PlainLoginModule";
        let scram = "org.apache.kafka.common.security.scram.ScramLoginModule";
        format!(
            "\
ssl.keystore.location={keystore}
ssl.keystore.type=PKCS12
ssl.keystore.password={KEYSTORE_PASSWORD}
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512
listener.name.sasl_ssl.plain.sasl.jaas.config={plain} required user_{user}=\"{password}\";
listener.name.sasl_ssl.scram-sha-256.sasl.jaas.config={scram} required;
listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={scram} required;
"
        )
    }

    /// Cassandra's settings: TLS is optional, a password required.
    pub fn cassandra_settings(&self) -> String {
        format!(
            "\
authenticator: PasswordAuthenticator
client_encryption_options:
  enabled: true
  optional: true
  keystore: \"{}\"
  keystore_password: {KEYSTORE_PASSWORD}
  store_type: PKCS12
",
            self.keystore.display()
        )
    }

    /// The access of a client to `addresses`.
    pub fn access(&self, addresses: String) -> Secure {
        Secure {
            addresses,
            ca_file: self.certificate.clone(),
            user: self.user.clone(),
            password: self.password.clone(),
        }
    }
}

/// Runs the JDK's keytool, which is in the same directory as `java`.
fn keytool(java: &Path, arguments: &[&str]) -> Result<(), Error> {
    let keytool = java.with_file_name("keytool");
    let output = Command::new(&keytool).args(arguments).output();
    let output = output.map_err(Error::io("run", &keytool))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::Tool {
        what: "making a certificate".into(),
        output: String::from_utf8_lossy(&output.stdout).into_owned(),
    })
}
