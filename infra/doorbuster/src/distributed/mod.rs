//! The services alone, over Kafka, a CQL store and a schema registry: the feature `distributed`.

pub mod services;

mod adapter_options;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use audit::Source;
use log_kafka::KafkaLog;
use ports::ReadStore;
use runtime::settings::Settings;
use store_scylla::ScyllaStore;

use crate::audit_source::scratch_store;

/// How long the CQL store may take to be reached by an audit.
const STORE_WAIT: Duration = Duration::from_secs(20);

/// Opens what an audit reads: Kafka and the CQL store.
pub(crate) async fn open_audit_source(settings: &Settings) -> anyhow::Result<Source> {
    let codec = registry::connect(&adapter_options::registry(settings))
        .await
        .context("cannot use the schema registry")?;
    let log = KafkaLog::open(adapter_options::kafka(settings))
        .await
        .context("cannot use Kafka")?;
    let store = ScyllaStore::open(adapter_options::cql(settings))?;
    let store = match store.ready(STORE_WAIT).await {
        Ok(()) => Ok(Arc::new(store) as Arc<dyn ReadStore>),
        Err(error) => Err(error.to_string()),
    };
    Ok(Source {
        log: Arc::new(log),
        store,
        codec: Arc::new(codec),
        scratch: Box::new(scratch_store),
    })
}
