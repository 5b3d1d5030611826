//! TLS and passwords, on a node that requires both.

use std::time::{Duration, Instant};

use ports::ReadStore;
use ports::read_store::Row;
use store_scylla::{NotReady, Options, ScyllaStore, Tls};

use crate::support::{PATIENCE, apply, options, sale};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_passwords_are_checked_on_both_sides() {
    let requested = engines::Options {
        brokers: 1,
        cassandra: true,
        registry: false,
        secure: true,
        dir: None,
    };
    let started = tokio::task::spawn_blocking(move || engines::Engines::start(&requested)).await;
    let engines = started.unwrap().unwrap();
    let access = engines.cql_secure().expect("the set is a secure one");
    let good = Options {
        username: Some(access.user.clone()),
        password: Some(access.password.clone()),
        tls: Some(Tls {
            ca_file: Some(access.ca_file.clone()),
            ..Tls::default()
        }),
        ..options(&access.addresses, "doorbuster")
    };

    let wrong = Options {
        password: Some("open sesame".into()),
        ..good.clone()
    };
    let refused = refusal(wrong).await;
    let named = format!("{} refuses the user {:?}", access.addresses, access.user);
    assert!(
        refused.contains(&named) && !refused.contains("sesame"),
        "{refused}"
    );
    let nobody = Options {
        username: None,
        password: None,
        ..good.clone()
    };
    let refused = refusal(nobody).await;
    assert!(
        refused.contains("requires a user name and a password"),
        "{refused}"
    );

    // This machine does not trust the issuer of the node's certificate.
    let stranger = Options {
        tls: Some(Tls::default()),
        ..good.clone()
    };
    let store = ScyllaStore::open(stranger).unwrap();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let waiting = store.ready(Duration::from_millis(100)).await.unwrap_err();
        if waiting.to_string().contains("certificate verify failed") {
            break;
        }
        assert!(Instant::now() < deadline, "{waiting}");
    }

    let store = ScyllaStore::open(good).unwrap();
    store.ready(PATIENCE).await.unwrap();
    apply(&store, &[Row::Sale(sale("lamp", 1))], 1).await;
    let found = store.sale(&"lamp".parse().unwrap()).await.unwrap();
    assert_eq!(found, Some(sale("lamp", 1)));
    drop(store);
    tokio::task::spawn_blocking(move || engines.stop())
        .await
        .unwrap()
        .unwrap();
}

async fn refusal(options: Options) -> String {
    let store = ScyllaStore::open(options).unwrap();
    match store.ready(PATIENCE).await {
        Err(NotReady::Refused(why)) => why,
        other => panic!("{other:?}"),
    }
}
