//! Brokers that require TLS and a login.

use engines::Engines;
use log_kafka::{KafkaLog, OpenError, Options, Protocol, Security};

use crate::{append, next, open, options, read};

#[tokio::test(flavor = "multi_thread")]
async fn brokers_are_reached_through_tls_with_a_login() {
    let engines = tokio::task::spawn_blocking(|| {
        let secure_broker = engines::Options {
            brokers: 1,
            cassandra: false,
            registry: false,
            secure: true,
            ..engines::Options::default()
        };
        Engines::start(&secure_broker).unwrap()
    });
    let engines = engines.await.unwrap();
    let secure = engines.kafka_secure().unwrap();
    let login = |mechanism: &str| Options {
        security: Security {
            protocol: Protocol::SaslSsl,
            ca_file: Some(secure.ca_file.clone()),
            sasl_mechanism: Some(mechanism.to_owned()),
            sasl_username: Some(secure.user.clone()),
            sasl_password: Some(secure.password.clone()),
            ..Security::default()
        },
        ..options(secure.addresses.clone(), "secure-".to_owned())
    };
    for (n, mechanism) in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"]
        .iter()
        .enumerate()
    {
        let log = open(&login(mechanism)).await;
        assert_eq!(append(&log, mechanism).await.0, n as i64);
        let mut reader = read(&log, n as i64).await;
        assert_eq!(next(&mut *reader).await.unwrap()[0].value, *mechanism);
        log.close().await;
    }

    let mut wrong_password = login("SCRAM-SHA-256");
    wrong_password.security.sasl_password = Some("guessed".to_owned());
    let mut unknown_certificate = login("PLAIN");
    unknown_certificate.security.ca_file = None;
    for (options, named) in [
        (wrong_password, "uthentication"),
        (unknown_certificate, "certificate"),
    ] {
        let refused = KafkaLog::open(options).await.err().unwrap();
        let OpenError::Unreachable(why) = &refused else {
            panic!("{refused:?}")
        };
        assert!(why.contains(named), "{named}: {why}");
        assert!(!why.contains("guessed"), "{why}");
    }
}
