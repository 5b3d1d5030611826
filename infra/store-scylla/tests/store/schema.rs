//! The keyspace and its tables.

use ports::ReadStore;
use ports::read_store::Row;
use schemas::ids::Partition;
use store_scylla::{NotReady, OpenError, ScyllaStore};

use crate::support::{Keyspace, PATIENCE, apply, options, progress, sale};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_stores_may_start_at_the_same_time() {
    let keyspace = Keyspace::new().await;
    let stores = [(); 4].map(|()| ScyllaStore::open(keyspace.options()).unwrap());
    for store in &stores {
        store.ready(PATIENCE).await.unwrap();
    }
    let recorded = "SELECT number, name FROM ks.schema_migrations";
    let recorded = keyspace.cql(recorded).await.into_rows_result().unwrap();
    let recorded: Vec<(i32, String)> = recorded.rows().unwrap().map(Result::unwrap).collect();
    let mut recorded = recorded;
    recorded.sort();
    let expected = [
        (1, "read_models"),
        (2, "commands"),
        (3, "log_marks"),
        (4, "prices_and_sale_versions"),
    ];
    assert_eq!(
        recorded,
        expected.map(|(number, name)| (number, name.to_owned()))
    );
    let held = keyspace.cql("SELECT name FROM ks.schema_lock").await;
    assert_eq!(
        held.into_rows_result().unwrap().rows_num(),
        0,
        "the lock is released"
    );
    // All of them use the same tables.
    for (n, store) in (1..).zip(&stores) {
        apply(store, &[Row::Sale(sale("lamp", n))], 1).await;
        for store in &stores {
            let found = store.sale(&"lamp".parse().unwrap()).await.unwrap();
            assert_eq!(found.map(|sale| sale.version), Some(n));
        }
    }
    drop(stores);
    keyspace.drop().await;
}

/// A store waits for the lock of another process, but not forever if that process died.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lock_is_waited_for() {
    let keyspace = Keyspace::new().await;
    drop(keyspace.store().await);
    // The state that a process leaves when it dies while it changes the tables.
    keyspace.cql("TRUNCATE ks.schema_migrations").await;
    keyspace
        .cql(
            "INSERT INTO ks.schema_lock (name, holder) VALUES ('migrations', uuid()) \
             IF NOT EXISTS USING TTL 3",
        )
        .await;
    let store = ScyllaStore::open(keyspace.options()).unwrap();
    store.ready(PATIENCE).await.unwrap();
    let held = keyspace.cql("SELECT holder FROM ks.schema_lock").await;
    assert_eq!(
        held.into_rows_result().unwrap().rows_num(),
        0,
        "the lock had to expire first"
    );
    let recorded = keyspace
        .cql("SELECT number FROM ks.schema_migrations")
        .await;
    assert_eq!(recorded.into_rows_result().unwrap().rows_num(), 4);
    drop(store);
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_is_open_for_reading_only_creates_and_writes_nothing() {
    let keyspace = Keyspace::new().await;
    let refused = async || {
        let store = ScyllaStore::open_to_read(keyspace.options()).unwrap();
        match store.ready(PATIENCE).await {
            Err(NotReady::Refused(why)) => why,
            other => panic!("{other:?}"),
        }
    };
    let why = refused().await;
    assert!(
        why.contains("does not exist") && why.contains(&keyspace.name),
        "{why}"
    );
    let there = format!(
        "SELECT keyspace_name FROM system_schema.keyspaces WHERE keyspace_name = '{}'",
        keyspace.name
    );
    let there = keyspace.cql(&there).await.into_rows_result().unwrap();
    assert_eq!(there.rows_num(), 0, "it was not created");

    let full = keyspace.store().await;
    apply(&full, &[Row::Sale(sale("lamp", 1))], 1).await;
    let store = ScyllaStore::open_to_read(keyspace.options()).unwrap();
    store.ready(PATIENCE).await.unwrap();
    let found = store.sale(&"lamp".parse().unwrap()).await.unwrap();
    assert_eq!(found.map(|sale| sale.version), Some(1));
    let written = store.apply(Partition(0), Vec::new(), progress(2)).await;
    let why = written.unwrap_err().to_string();
    assert!(why.contains("reading only"), "{why}");
    drop((full, store));

    keyspace.cql("TRUNCATE ks.schema_migrations").await;
    let why = refused().await;
    assert!(why.contains("lacks the tables of migration 1"), "{why}");
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tables_of_another_version_are_refused() {
    let keyspace = Keyspace::new().await;
    drop(keyspace.store().await);
    for (change, fix, named) in [
        (
            "UPDATE ks.schema_migrations SET sha256 = 'abc' WHERE number = 1",
            "TRUNCATE ks.schema_migrations",
            "another migration 1 (read_models, sha256 abc)",
        ),
        (
            "INSERT INTO ks.schema_migrations (number, name, sha256) VALUES (9, 'loyalty', 'x')",
            "DELETE FROM ks.schema_migrations WHERE number = 9",
            "newer version of Doorbuster (migration 9, loyalty)",
        ),
    ] {
        keyspace.cql(change).await;
        let store = ScyllaStore::open(keyspace.options()).unwrap();
        let refused = match store.ready(PATIENCE).await {
            Err(NotReady::Refused(refused)) => refused,
            other => panic!("{other:?}"),
        };
        assert!(refused.contains(named), "{refused}");
        // Every call fails with the same reason.
        let failed = store.progress().await.unwrap_err();
        assert!(failed.to_string().contains(named), "{failed}");
        // Once that is fixed, the store connects without being reopened.
        keyspace.cql(fix).await;
        let deadline = tokio::time::Instant::now() + PATIENCE;
        while let Err(failed) = store.progress().await {
            assert!(tokio::time::Instant::now() < deadline, "{failed}");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    }
    keyspace.drop().await;
}

/// This fails after a new table or a changed key. Then check that no partition of it can grow without
/// bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_partition_is_bounded_and_there_are_no_counters() {
    let keyspace = Keyspace::new().await;
    drop(keyspace.store().await);
    let columns = format!(
        "SELECT table_name, column_name, kind, position, type FROM system_schema.columns \
         WHERE keyspace_name = '{}'",
        keyspace.name
    );
    let columns = keyspace.cql(&columns).await.into_rows_result().unwrap();
    let mut keys = std::collections::BTreeMap::<String, [Vec<(i32, String)>; 2]>::new();
    for column in columns
        .rows::<(String, String, String, i32, String)>()
        .unwrap()
    {
        let (table, column, kind, position, of_type) = column.unwrap();
        assert_ne!(of_type, "counter", "{table}.{column}");
        let [partition, clustering] = keys.entry(table).or_default();
        match kind.as_str() {
            "partition_key" => partition.push((position, column)),
            "clustering" => clustering.push((position, column)),
            _ => {}
        }
    }
    let list = |mut columns: Vec<(i32, String)>| {
        columns.sort();
        let names: Vec<_> = columns.into_iter().map(|(_, name)| name).collect();
        names.join(", ")
    };
    let keys: Vec<_> = keys
        .into_iter()
        .map(|(table, [partition, clustering])| {
            format!("{table} (({}), {})", list(partition), list(clustering))
        })
        .collect();
    assert_eq!(
        keys,
        [
            "attempts ((attempt_id), )",
            "commands ((log_partition, era), log_offset)",
            "intent_eras ((product_id), log_partition, era)",
            "intents ((product_id, log_partition, era), log_offset)",
            "log_marks ((scope), log_partition)",
            "order_eras ((buyer_id), log_partition, era)",
            "orders ((buyer_id, log_partition, era), log_offset)",
            "progress ((scope), log_partition)",
            "sales ((bucket), product_id)",
            "schema_lock ((name), )",
            "schema_migrations ((number), )",
        ]
    );
    keyspace.drop().await;
}

/// A keyspace that an operator created is not changed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_existing_keyspace_is_not_changed() {
    let keyspace = Keyspace::new().await;
    let create = format!(
        "CREATE KEYSPACE {} WITH replication = \
         {{'class': 'SimpleStrategy', 'replication_factor': 1}} AND durable_writes = false",
        keyspace.name
    );
    keyspace.cql(&create).await;
    drop(keyspace.store().await);
    let durable = format!(
        "SELECT durable_writes FROM system_schema.keyspaces WHERE keyspace_name = '{}'",
        keyspace.name
    );
    let durable = keyspace.cql(&durable).await.into_rows_result().unwrap();
    assert_eq!(durable.single_row::<(bool,)>().unwrap(), (false,));
    keyspace.drop().await;
}

/// The keyspace is created for the named datacenter, which must exist.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_datacenter_is_used_and_must_exist() {
    let keyspace = Keyspace::new().await;
    let mut options = keyspace.options();
    options.datacenter = Some("nowhere".into());
    let store = ScyllaStore::open(options.clone()).unwrap();
    let refused = store.ready(PATIENCE).await.unwrap_err();
    let named = "has no datacenter \"nowhere\"; it has datacenter1";
    assert!(refused.to_string().contains(named), "{refused}");

    options.datacenter = Some("datacenter1".into());
    let store = ScyllaStore::open(options).unwrap();
    store.ready(PATIENCE).await.unwrap();
    apply(&store, &[Row::Sale(sale("lamp", 1))], 1).await;
    let replication = format!(
        "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = '{}'",
        keyspace.name
    );
    let replication = keyspace.cql(&replication).await.into_rows_result().unwrap();
    let (replication,) = replication
        .single_row::<(std::collections::BTreeMap<String, String>,)>()
        .unwrap();
    assert_eq!(replication["datacenter1"], "1");
    assert!(replication["class"].ends_with("NetworkTopologyStrategy"));
    drop(store);
    keyspace.drop().await;
}

#[tokio::test]
async fn invalid_options_are_refused_at_once() {
    let good = options("127.0.0.1:9042", "doorbuster");
    let refused = |change: fn(&mut store_scylla::Options)| {
        let mut options = good.clone();
        change(&mut options);
        ScyllaStore::open(options).err().expect("refused")
    };
    for name in ["", "1a", "A", "a-b", "a b", "a;drop", &"a".repeat(49)] {
        let named = ScyllaStore::open(options("127.0.0.1:9042", name)).err();
        assert!(
            matches!(named, Some(OpenError::Keyspace(n)) if n == name),
            "{name:?}"
        );
    }
    for node in ["127.0.0.1", ":9042", "host:", "host:cql", "host:70000"] {
        let named = ScyllaStore::open(options(node, "doorbuster")).err();
        assert!(
            matches!(named, Some(OpenError::Node(n)) if n == node),
            "{node:?}"
        );
    }
    assert!(matches!(refused(|o| o.nodes.clear()), OpenError::NoNodes));
    assert!(matches!(
        refused(|o| o.replication = 0),
        OpenError::Replication
    ));
    assert!(matches!(
        refused(|o| o.max_in_flight = 0),
        OpenError::InFlight(0)
    ));
    let lone_user = refused(|o| o.username = Some("ann".into()));
    assert!(matches!(lone_user, OpenError::Credentials("password")));
    let quoted = refused(|o| o.datacenter = Some("a'b".into()));
    assert!(matches!(quoted, OpenError::Datacenter(_)));
    let ca = refused(|o| {
        o.tls = Some(store_scylla::Tls {
            ca_file: Some("/nowhere/ca.pem".into()),
            ..Default::default()
        });
    });
    assert!(ca.to_string().contains("/nowhere/ca.pem"), "{ca}");
    let no_ca = refused(|o| {
        o.tls = Some(store_scylla::Tls {
            ca_file: Some("/dev/null".into()),
            ..Default::default()
        });
    });
    assert!(no_ca.to_string().contains("has no certificate"), "{no_ca}");
}

#[test]
fn the_password_is_not_shown() {
    let mut options = options("127.0.0.1:9042", "doorbuster");
    options.username = Some("ann".into());
    options.password = Some("open sesame".into());
    let shown = format!("{options:?}");
    assert!(
        shown.contains("ann") && !shown.contains("sesame"),
        "{shown}"
    );
}
