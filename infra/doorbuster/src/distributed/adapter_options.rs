//! The options of the Kafka, CQL and registry adapters, made from the settings.

use log_kafka::{Protocol, Security};
use runtime::settings::{KafkaProtocol, Secret, Settings};

pub(crate) fn kafka(settings: &Settings) -> log_kafka::Options {
    let kafka = settings.kafka.clone();
    log_kafka::Options {
        brokers: kafka.brokers.join(","),
        topic_prefix: kafka.topic_prefix,
        partitions: settings.log.partitions,
        replication: kafka.replication,
        min_insync: kafka.min_insync,
        queue_records: settings.log.append_queue_records,
        queue_bytes: settings.log.append_queue_bytes,
        append_timeout: kafka.append_timeout,
        session_timeout: kafka.session_timeout,
        security: Security {
            protocol: match kafka.protocol {
                KafkaProtocol::Plaintext => Protocol::Plaintext,
                KafkaProtocol::Ssl => Protocol::Ssl,
                KafkaProtocol::SaslPlaintext => Protocol::SaslPlaintext,
                KafkaProtocol::SaslSsl => Protocol::SaslSsl,
            },
            ca_file: kafka.ca_file,
            cert_file: kafka.cert_file,
            key_file: kafka.key_file,
            key_password: kafka.key_password.map(reveal),
            sasl_mechanism: Some(kafka.sasl_mechanism),
            sasl_username: kafka.sasl_username,
            sasl_password: kafka.sasl_password.map(reveal),
        },
    }
}

pub(crate) fn cql(settings: &Settings) -> store_scylla::Options {
    let cql = settings.cql.clone();
    store_scylla::Options {
        nodes: cql.nodes,
        keyspace: cql.keyspace,
        datacenter: cql.datacenter,
        replication: cql.replication,
        username: cql.username,
        password: cql.password.map(reveal),
        tls: cql.tls.then_some(store_scylla::Tls {
            ca_file: cql.ca_file,
            cert_file: cql.cert_file,
            key_file: cql.key_file,
        }),
        max_in_flight: cql.max_in_flight,
    }
}

pub(crate) fn registry(settings: &Settings) -> registry::Options {
    let registry = settings.registry.clone();
    registry::Options {
        url: registry.url,
        username: registry.username,
        password: registry.password.map(reveal),
        subject_prefix: settings.kafka.topic_prefix.clone(),
    }
}

/// The text of a secret. The adapters need it, and do not print it either.
fn reveal(secret: Secret) -> String {
    secret.0
}
