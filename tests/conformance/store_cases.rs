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
use store_embedded::EmbeddedStore;
use store_scylla::ScyllaStore;

use subject::Subject;

/// Opens the store at a place, which is empty the first time.
type Open = for<'a> fn(&'a Path) -> BoxFuture<'a, Arc<dyn ReadStore>>;

const ADAPTERS: &[(&str, Open)] = &[
    ("embedded", |place| open_embedded(place).boxed()),
    ("scylla (Cassandra)", |place| open_scylla(place).boxed()),
];

async fn open_embedded(place: &Path) -> Arc<dyn ReadStore> {
    Arc::new(EmbeddedStore::open(&place.join("read.redb")).unwrap())
}

/// The place is a keyspace, which has the name of the directory.
async fn open_scylla(place: &Path) -> Arc<dyn ReadStore> {
    let name = place.file_name().unwrap().to_str().unwrap();
    let options = store_scylla::Options {
        nodes: vec![engines::shared().cql_node()],
        keyspace: format!("conformance_{}", name.trim_start_matches('.').to_lowercase()),
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
    for (adapter, open) in ADAPTERS {
        for (case, run) in CASES {
            println!("{adapter}: {case}");
            let place = tempfile::tempdir().unwrap();
            let store = Some(open(place.path()).await);
            let mut subject = Subject {
                place,
                open: *open,
                store,
            };
            let run = tokio::time::timeout(Duration::from_secs(180), run(&mut subject));
            run.await
                .unwrap_or_else(|_| panic!("{adapter}: {case}: is not done in 180 seconds"));
        }
    }
}
