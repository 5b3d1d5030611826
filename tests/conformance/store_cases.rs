//! What every read store must do.
//!
//! Every case begins with an empty store, and most look twice: at once, and after the store
//! has been closed and opened again, since an adapter may answer from different places.

mod subject;

mod lists;
mod writes;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use ports::ReadStore;
use scylla::client::session_builder::SessionBuilder;
use store_embedded::EmbeddedStore;
use store_scylla::ScyllaStore;

use subject::Subject;

/// A store under test. Its place is a directory, which is empty at first.
struct Adapter {
    name: &'static str,
    open: Open,
    /// Removes what the store keeps elsewhere than at its place.
    remove: Remove,
}

type Open = for<'a> fn(&'a Path) -> BoxFuture<'a, Arc<dyn ReadStore>>;
type Remove = for<'a> fn(&'a Path) -> BoxFuture<'a, ()>;

const ADAPTERS: &[Adapter] = &[
    Adapter {
        name: "embedded",
        open: |place| open_embedded(place).boxed(),
        remove: |_| async {}.boxed(),
    },
    Adapter {
        name: "scylla (Cassandra)",
        open: |place| open_scylla(place).boxed(),
        remove: |place| drop_keyspace(place).boxed(),
    },
];

async fn open_embedded(place: &Path) -> Arc<dyn ReadStore> {
    Arc::new(EmbeddedStore::open(&place.join("read.redb")).unwrap())
}

async fn open_scylla(place: &Path) -> Arc<dyn ReadStore> {
    let options = store_scylla::Options {
        nodes: vec![engines::shared().cql_node()],
        keyspace: keyspace(place),
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

async fn drop_keyspace(place: &Path) {
    let node = engines::shared().cql_node();
    let session = SessionBuilder::new().known_node(node).build().await;
    let drop = format!("DROP KEYSPACE {}", keyspace(place));
    session.unwrap().query_unpaged(drop, ()).await.unwrap();
}

/// A place's own keyspace: named after the directory, which differs in every run.
fn keyspace(place: &Path) -> String {
    let name = place.as_os_str().as_encoded_bytes();
    let name = name.iter().map(|byte| format!("{byte:02x}"));
    let name = name.collect::<String>();
    format!("conformance_{}", &name[name.len() - 20..])
}

/// One case under one adapter.
type Case = for<'a> fn(&'a mut Subject) -> BoxFuture<'a, ()>;

const CASES: &[(&str, Case)] = &[
    ("rows of every kind and status read as written", |s| {
        writes::rows_read_as_written(s).boxed()
    }),
    ("what is missing is none or empty", |s| {
        writes::missing_is_empty(s).boxed()
    }),
    ("a lower version changes nothing", |s| {
        writes::lower_version_changes_nothing(s).boxed()
    }),
    ("overlapping writers leave what one leaves", |s| {
        writes::overlapping_writers(s).boxed()
    }),
    ("progress comes after its rows", |s| {
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
    ("owners that begin alike are kept apart", |s| {
        lists::owners_are_apart(s).boxed()
    }),
    ("sales are by product id", |s| {
        lists::sales_by_product(s).boxed()
    }),
    ("a visit sees each row once and stops when told", |s| {
        lists::visits_stop(s).boxed()
    }),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_read_store_passes_every_case() {
    for Adapter { name, open, remove } in ADAPTERS {
        for (case, run) in CASES {
            println!("{name}: {case}");
            let place = tempfile::tempdir().unwrap();
            let store = Some(open(place.path()).await);
            let mut subject = Subject {
                place,
                open: *open,
                store,
            };
            let run = tokio::time::timeout(Duration::from_secs(180), run(&mut subject));
            run.await
                .unwrap_or_else(|_| panic!("{name}: {case}: is not done in 180 seconds"));
            subject.store = None;
            remove(subject.place.path()).await;
        }
    }
}
