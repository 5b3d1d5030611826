//! What every read store must do.
//!
//! Every case begins with an empty store, and most look twice: at once, and after the store
//! has been closed and opened again, since an adapter may answer from different places.

mod subject;

mod lists;
mod writes;

use std::path::Path;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use ports::ReadStore;

use subject::Subject;

/// Opens the store at a place, which is empty the first time.
type Open = fn(&Path) -> Arc<dyn ReadStore>;

const ADAPTERS: &[(&str, Open)] = &[("embedded", |place| {
    Arc::new(store_embedded::EmbeddedStore::open(&place.join("read.redb")).unwrap())
})];

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
            let store = Some(open(place.path()));
            run(&mut Subject {
                place,
                open: *open,
                store,
            })
            .await;
        }
    }
}
