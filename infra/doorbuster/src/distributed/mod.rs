//! The services alone, over Kafka, a CQL store and a schema registry: the feature `distributed`.

pub mod services;

mod adapter_options;
mod probes;

use std::time::Duration;

use anyhow::Context;
use log_kafka::KafkaLog;
use runtime::settings::Settings;
use schemas::codec::Codec;
use store_scylla::ScyllaStore;

/// How long the CQL store may take to be reached by an audit.
const STORE_WAIT: Duration = Duration::from_secs(20);

/// Opens what an audit reads: Kafka, the CQL store or why it cannot be read, and the registry's
/// schema ids. Creates and changes nothing there.
pub(crate) async fn open(settings: &Settings) -> anyhow::Result<(KafkaLog, StoreOrReason, Codec)> {
    let codec = registry::connect_to_read(&adapter_options::registry(settings))
        .await
        .context("cannot use the schema registry")?;
    let log = KafkaLog::open_to_read(adapter_options::kafka(settings))
        .await
        .context("cannot use Kafka")?;
    let store = ScyllaStore::open_to_read(adapter_options::cql(settings))?;
    let store = match store.ready(STORE_WAIT).await {
        Ok(()) => Ok(store),
        Err(error) => Err(error.to_string()),
    };
    Ok((log, store, codec))
}

/// Opens Kafka to append to it, and reads the registry's schema ids.
pub(crate) async fn open_log(settings: &Settings) -> anyhow::Result<(KafkaLog, Codec)> {
    let codec = registry::connect(&adapter_options::registry(settings))
        .await
        .context("cannot use the schema registry")?;
    let log = KafkaLog::open(adapter_options::kafka(settings))
        .await
        .context("cannot use Kafka")?;
    Ok((log, codec))
}

/// The store, or why it cannot be read.
type StoreOrReason = Result<ScyllaStore, String>;
