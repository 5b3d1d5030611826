//! A secure set: TLS, users and passwords, and that clients without them are refused.

use std::io::Write;
use std::path::Path;
use std::process::{Output, Stdio};

use engines::{Engines, Options, Secure};
use openssl::ssl::{SslContextBuilder, SslMethod, SslVerifyMode};
use scylla::client::session::Session;
use scylla::client::session_builder::SessionBuilder;
use scylla::errors::NewSessionError;

#[tokio::test(flavor = "multi_thread")]
async fn only_clients_with_the_password_are_accepted() {
    let options = Options {
        brokers: 1,
        registry: false,
        secure: true,
        ..Options::default()
    };
    let engines = Engines::start(&options).unwrap();
    let secure = engines.kafka_secure().unwrap();
    for (mechanism, module) in [
        ("PLAIN", "plain.PlainLoginModule"),
        ("SCRAM-SHA-256", "scram.ScramLoginModule"),
        ("SCRAM-SHA-512", "scram.ScramLoginModule"),
    ] {
        let accepted = list_topics(&engines, &secure, mechanism, module);
        assert!(accepted.status.success(), "{mechanism}: {accepted:?}");
        let stranger = Secure {
            password: "guess".to_owned(),
            ..secure.clone()
        };
        let refused = list_topics(&engines, &stranger, mechanism, module);
        let output =
            String::from_utf8_lossy(&refused.stdout) + String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success(), "{mechanism}: {output}");
        assert!(
            output.contains("SaslAuthenticationException"),
            "{mechanism}: {output}"
        );
    }

    let secure = engines.cql_secure().unwrap();
    let session = connect(&secure, &secure.password).await.unwrap();
    session
        .query_unpaged("SELECT key FROM system.local", ())
        .await
        .unwrap();
    assert!(connect(&secure, "guess").await.is_err());
    assert!(
        SessionBuilder::new()
            .known_node(&secure.addresses)
            .build()
            .await
            .is_err()
    );

    let dir = engines.dir().to_owned();
    drop(engines);
    assert!(!dir.exists(), "a temporary set is removed with its owner");
}

/// Lists the topics with Kafka's own tool through the secure listener.
fn list_topics(engines: &Engines, secure: &Secure, mechanism: &str, module: &str) -> Output {
    let mut settings = tempfile::NamedTempFile::new().unwrap();
    let Secure {
        ca_file,
        user,
        password,
        ..
    } = secure;
    write!(
        settings,
        "security.protocol=SASL_SSL\n\
         ssl.truststore.type=PEM\n\
         ssl.truststore.location={}\n\
         sasl.mechanism={mechanism}\n\
         sasl.jaas.config=org.apache.kafka.common.security.{module} required \
         username=\"{user}\" password=\"{password}\";\n",
        ca_file.display()
    )
    .unwrap();
    let settings: &Path = settings.path();
    let arguments = [
        "--bootstrap-server",
        &secure.addresses,
        "--list",
        "--command-config",
    ];
    let arguments = [&arguments[..], &[settings.to_str().unwrap()]].concat();
    let mut command = engines
        .kafka()
        .tool("org.apache.kafka.tools.TopicCommand", &arguments);
    command.stdin(Stdio::null()).output().unwrap()
}

async fn connect(secure: &Secure, password: &str) -> Result<Session, NewSessionError> {
    let mut tls = SslContextBuilder::new(SslMethod::tls_client()).unwrap();
    tls.set_ca_file(&secure.ca_file).unwrap();
    tls.set_verify(SslVerifyMode::PEER);
    SessionBuilder::new()
        .known_node(&secure.addresses)
        .user(&secure.user, password)
        .tls_context(Some(tls.build()))
        .build()
        .await
}
