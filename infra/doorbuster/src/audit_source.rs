//! Opens what an audit reads: a data directory, or Kafka and the CQL store.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use anyhow::{anyhow, bail};
use audit::{ScratchStore, Source};
use log_embedded::{EmbeddedLog, OpenError};
use ports::ReadStore;
use runtime::private_files;
use runtime::settings::Settings;
use schemas::codec::Codec;
use store_embedded::EmbeddedStore;

use crate::{LOG_DIR, READ_MODELS};

/// Opens what the settings name: Kafka and the CQL store if `distributed`, otherwise the data
/// directory, whose service may be running.
pub async fn open(settings: &Settings, distributed: bool) -> anyhow::Result<Source> {
    match distributed {
        true => open_distributed(settings).await,
        false => open_directory(&settings.data_dir).await,
    }
}

/// An empty store in a temporary directory, which is removed with it.
pub fn scratch_store() -> anyhow::Result<ScratchStore> {
    let private = Permissions::from_mode(private_files::DIRECTORY_MODE);
    let dir = tempfile::Builder::new().permissions(private).tempdir()?;
    let store = EmbeddedStore::open(&dir.path().join(READ_MODELS))?;
    Ok(ScratchStore {
        store: Arc::new(store),
        guard: Box::new(dir),
    })
}

async fn open_directory(dir: &Path) -> anyhow::Result<Source> {
    if !dir.join(LOG_DIR).is_dir() {
        bail!(
            "{} is not a data directory; name the service's data directory with --data-dir DIR, \
             or start a service with doorbuster serve",
            dir.display()
        );
    }
    // The read models come first, so that the log has all that they are made from.
    let path = dir.join(READ_MODELS);
    let store = tokio::task::spawn_blocking(move || EmbeddedStore::open_copy(&path)).await?;
    let log = Arc::new(open_log(dir).await?);
    let store = store.map(|store| Arc::new(store) as Arc<dyn ReadStore>);
    Ok(Source {
        log,
        store: store.map_err(|error| error.to_string()),
        is_live: false,
        codec: Arc::new(Codec::embedded()),
        scratch: Box::new(scratch_store),
    })
}

#[cfg(feature = "distributed")]
async fn open_distributed(settings: &Settings) -> anyhow::Result<Source> {
    let (log, store, codec) = crate::distributed::open(settings).await?;
    Ok(Source {
        log: Arc::new(log),
        store: store.map(|store| Arc::new(store) as Arc<dyn ReadStore>),
        is_live: true,
        codec: Arc::new(codec),
        scratch: Box::new(scratch_store),
    })
}

#[cfg(not(feature = "distributed"))]
async fn open_distributed(_: &Settings) -> anyhow::Result<Source> {
    bail!(crate::EMBEDDED_ONLY)
}

async fn open_log(dir: &Path) -> anyhow::Result<EmbeddedLog> {
    let dir = dir.join(LOG_DIR);
    let open = move || EmbeddedLog::open_read_only(&dir);
    tokio::task::spawn_blocking(open).await?.map_err(|error| match error {
        // A plain copy may have parts of the file from different moments.
        OpenError::Damaged { .. } => anyhow!(
            "{error}; if this is a copy made while the service ran, copy it again, or audit the \
             service's own directory, which may stay in use meanwhile"
        ),
        error => error.into(),
    })
}
