//! Opens what is to be audited: a data directory, or Kafka and the CQL store.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use log_embedded::{EmbeddedLog, OpenError};
use log_kafka::KafkaLog;
use ports::{EventLog, ReadStore};
use runtime::receipt::{KEY_FILE, ReceiptKey};
use runtime::settings::Settings;
use schemas::codec::Codec;
use store_embedded::EmbeddedStore;
use store_scylla::ScyllaStore;

use crate::{LOG_DIR, READ_MODELS, adapter_options};

/// How long the CQL store may take to be reached.
const STORE_WAIT: Duration = Duration::from_secs(20);

/// What is audited.
pub(super) struct Opened {
    pub(super) log: Arc<dyn EventLog>,
    /// The read models, or why they cannot be read.
    pub(super) store: Result<Arc<dyn ReadStore>, String>,
    pub(super) codec: Arc<Codec>,
}

/// What a data directory has, while its service runs, or of a copy.
pub(super) async fn directory(dir: &Path) -> anyhow::Result<Opened> {
    if !dir.join(LOG_DIR).is_dir() {
        bail!(
            "{} is no data directory; name the service's with --data-dir DIR, or start one with \
             doorbuster serve",
            dir.display()
        );
    }
    // The read models come first, so that the log has all that they are made from.
    let path = dir.join(READ_MODELS);
    let store = tokio::task::spawn_blocking(move || EmbeddedStore::open_copy(&path)).await?;
    let log = Arc::new(open_log(dir).await?);
    let store = store.map(|store| Arc::new(store) as Arc<dyn ReadStore>);
    Ok(Opened {
        log,
        store: store.map_err(|error| error.to_string()),
        codec: Arc::new(Codec::embedded()),
    })
}

/// What is on Kafka and in the CQL store.
pub(super) async fn distributed(settings: &Settings) -> anyhow::Result<Opened> {
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
    Ok(Opened {
        log: Arc::new(log),
        store,
        codec: Arc::new(codec),
    })
}

async fn open_log(dir: &Path) -> anyhow::Result<EmbeddedLog> {
    let dir = dir.join(LOG_DIR);
    let open = move || EmbeddedLog::open_read_only(&dir);
    tokio::task::spawn_blocking(open).await?.map_err(|error| match error {
        // A plain copy may hold an older state of one place than of a later one.
        OpenError::Damaged { .. } => anyhow!(
            "{error}; if this is a copy made while the service ran, copy it again, or audit the \
             service's own directory, which may go on meanwhile"
        ),
        error => error.into(),
    })
}

/// The key that receipts are checked with; unlike the service, an audit makes none.
pub(super) fn receipt_key(settings: &Settings, distributed: bool) -> anyhow::Result<ReceiptKey> {
    if let Some(key) = &settings.http.receipt_key {
        return Ok(key.clone());
    }
    if distributed {
        bail!("name the key that the receipts were signed with: --receipt-key KEY");
    }
    let path = settings.data_dir.join(KEY_FILE);
    let text = std::fs::read_to_string(&path).with_context(|| {
        let path = path.display();
        format!("cannot read the receipts' key {path}; name it with --receipt-key KEY")
    })?;
    ReceiptKey::from_hex(text.trim_end())
        .with_context(|| format!("{} does not hold 64 hexadecimal digits", path.display()))
}
