//! What every read store must do.
//!
//! Every case begins with an empty store. Most cases read twice: at once, and after the store has
//! been closed and opened again, since an adapter may answer from memory first and from disk later.

mod subject;

mod lists;
mod writes;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use kit::MemoryStore;
use parking_lot::Mutex;
use ports::ReadStore;
use scylla::client::session_builder::SessionBuilder;
use store_embedded::EmbeddedStore;
use store_scylla::ScyllaStore;

use subject::Subject;

/// A store under test. It is kept in a directory, which is empty at first.
struct Adapter {
    name: &'static str,
    open: Open,
    /// Removes what the store keeps outside the directory.
    remove: Remove,
}

type Open = for<'a> fn(&'a Path) -> BoxFuture<'a, Arc<dyn ReadStore>>;
type Remove = for<'a> fn(&'a Path) -> BoxFuture<'a, ()>;

const EMBEDDED: Adapter = Adapter {
    name: "embedded",
    open: |dir| open_embedded(dir).boxed(),
    remove: |_| async {}.boxed(),
};

const SCYLLA: Adapter = Adapter {
    name: "scylla (Cassandra)",
    open: |dir| open_scylla(dir).boxed(),
    remove: |dir| drop_keyspace(dir).boxed(),
};

const MEMORY: Adapter = Adapter {
    name: "memory",
    open: |dir| open_memory(dir).boxed(),
    remove: |_| async {}.boxed(),
};

async fn open_embedded(dir: &Path) -> Arc<dyn ReadStore> {
    Arc::new(EmbeddedStore::open(&dir.join("read.redb")).unwrap())
}

async fn open_scylla(dir: &Path) -> Arc<dyn ReadStore> {
    let options = store_scylla::Options {
        nodes: vec![engines::shared().cql_node()],
        keyspace: keyspace(dir),
        datacenter: None,
        replication: 1,
        username: None,
        password: None,
        tls: None,
        max_in_flight: 64,
    };
    let store = ScyllaStore::open(options).unwrap();
    store.ready(Duration::from_secs(90)).await.unwrap();
    Arc::new(store)
}

async fn open_memory(dir: &Path) -> Arc<dyn ReadStore> {
    static STORES: Mutex<BTreeMap<PathBuf, MemoryStore>> = Mutex::new(BTreeMap::new());
    let mut stores = STORES.lock();
    Arc::new(stores.entry(dir.to_owned()).or_default().clone())
}

async fn drop_keyspace(dir: &Path) {
    let node = engines::shared().cql_node();
    let session = SessionBuilder::new().known_node(node).build().await;
    let drop = format!("DROP KEYSPACE {}", keyspace(dir));
    session.unwrap().query_unpaged(drop, ()).await.unwrap();
}

/// The keyspace that stands for a directory: named after it, and so different in every run.
fn keyspace(dir: &Path) -> String {
    let name = dir.as_os_str().as_encoded_bytes();
    let name = name.iter().map(|byte| format!("{byte:02x}"));
    let name = name.collect::<String>();
    format!("conformance_{}", &name[name.len() - 20..])
}

/// A case, run over one adapter.
type Case = for<'a> fn(&'a mut Subject) -> BoxFuture<'a, ()>;

const CASES: &[(&str, Case)] = &[
    ("rows of every kind and status read as written", |s| {
        writes::rows_read_as_written(s).boxed()
    }),
    ("a missing row is none, a missing list empty", |s| {
        writes::missing_is_empty(s).boxed()
    }),
    ("a lower version changes nothing", |s| {
        writes::lower_version_changes_nothing(s).boxed()
    }),
    ("commands are looked up by position", |s| {
        writes::commands_by_position(s).boxed()
    }),
    ("overlapping writers leave what one leaves", |s| {
        writes::overlapping_writers(s).boxed()
    }),
    ("progress is visible only with its rows", |s| {
        writes::progress_after_rows(s).boxed()
    }),
    ("progress is kept by partition", |s| {
        writes::progress_by_partition(s).boxed()
    }),
    ("lists are in order and paged", |s| {
        lists::lists_are_paged(s).boxed()
    }),
    ("a page has at most MAX_PAGE rows", |s| {
        lists::pages_are_capped(s).boxed()
    }),
    ("owners with a common prefix are kept apart", |s| {
        lists::owners_are_apart(s).boxed()
    }),
    ("sales are by product id", |s| {
        lists::sales_by_product(s).boxed()
    }),
    ("a visit passes each row once and stops on request", |s| {
        lists::visits_stop(s).boxed()
    }),
];

async fn pass_every_case(Adapter { name, open, remove }: Adapter) {
    for (case, run) in CASES {
        println!("{name}: {case}");
        let dir = tempfile::tempdir().unwrap();
        let store = Some(open(dir.path()).await);
        let mut subject = Subject { dir, open, store };
        let run = tokio::time::timeout(Duration::from_secs(180), run(&mut subject));
        run.await
            .unwrap_or_else(|_| panic!("{name}: {case}: not done within 180 seconds"));
        subject.store = None;
        remove(subject.dir.path()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_store_passes_every_case() {
    pass_every_case(EMBEDDED).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_scylla_store_passes_every_case() {
    pass_every_case(SCYLLA).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_in_memory_passes_every_case() {
    pass_every_case(MEMORY).await;
}
