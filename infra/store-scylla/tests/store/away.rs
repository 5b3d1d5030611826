//! Nodes that are not reachable yet, or go away.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ports::read_store::Row;
use ports::{ReadStore, StoreError};
use schemas::ids::Partition;
use store_scylla::{NotReady, ScyllaStore};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

use crate::support::{Keyspace, PATIENCE, attempt, node, options, progress, sale};

/// Longer than any call may take, with a margin for slow machines.
const LONGEST_CALL: Duration = Duration::from_secs(30);

/// A proxy between store and node.
struct Proxy {
    address: SocketAddr,
    mode: Arc<watch::Sender<Mode>>,
    _tasks: JoinSet<()>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mode {
    /// Connections are forwarded.
    Open,
    /// Connections are cut, and new ones closed at once.
    Cut,
    /// Connections stay open, but nothing is forwarded.
    Silent,
}

impl Proxy {
    async fn start(address: SocketAddr) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let mode = Arc::new(watch::channel(Mode::Open).0);
        let mut tasks = JoinSet::new();
        let modes = mode.clone();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (from, _) = listener.accept().await.unwrap();
                connections.spawn(forward(from, modes.subscribe()));
            }
        });
        Self {
            address,
            mode,
            _tasks: tasks,
        }
    }

    fn set(&self, mode: Mode) {
        self.mode.send_replace(mode);
    }
}

async fn forward(mut from: TcpStream, mut mode: watch::Receiver<Mode>) {
    if *mode.borrow() == Mode::Cut {
        return;
    }
    let mut to = TcpStream::connect(node()).await.unwrap();
    loop {
        let now = *mode.borrow_and_update();
        tokio::select! {
            _ = copy_bidirectional(&mut from, &mut to), if now == Mode::Open => return,
            changed = mode.changed() => {
                if changed.is_err() || *mode.borrow() == Mode::Cut {
                    return;
                }
            }
        }
    }
}

/// A port that is not in use.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

async fn write(store: &ScyllaStore, version: u64) -> Result<(), StoreError> {
    let rows = vec![
        Row::Sale(sale("lamp", version)),
        Row::Order(attempt(0, 1, version)),
        Row::Attempt(attempt(0, 1, version)),
    ];
    let applied = store.apply(Partition(0), rows, progress(version as i64));
    let in_time = timeout(LONGEST_CALL, applied).await;
    in_time.expect("a failing call fails in time")
}

async fn write_until_taken(store: &ScyllaStore, version: u64) {
    let deadline = Instant::now() + PATIENCE;
    while let Err(failed) = write(store, version).await {
        assert!(Instant::now() < deadline, "{failed}");
        sleep(Duration::from_millis(50)).await;
    }
    let found = store.sale(&"lamp".parse().unwrap()).await.unwrap();
    assert_eq!(found.map(|sale| sale.version), Some(version));
}

/// How many errors of this kind the store has counted.
fn count(store: &ScyllaStore, kind: &str) -> u64 {
    let mut errors = store.errors();
    errors.find(|(it, _)| *it == kind).unwrap().1
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_opens_before_its_nodes_are_reachable() {
    let keyspace = Keyspace::new().await;
    let address = free_address();
    let store = ScyllaStore::open(options(&address.to_string(), &keyspace.name)).unwrap();

    let not_ready = store.ready(Duration::from_millis(300)).await.unwrap_err();
    assert!(
        matches!(&not_ready, NotReady::Timeout { .. }),
        "{not_ready:?}"
    );
    assert!(
        not_ready.to_string().contains(&address.to_string()),
        "{not_ready}"
    );
    // The reason is known after the first try, and returned by every method.
    let deadline = Instant::now() + PATIENCE;
    let named = format!("Cassandra/ScyllaDB at {address} cannot be reached");
    loop {
        let failed = store.progress().await.unwrap_err().to_string();
        if failed.contains(&named) {
            break;
        }
        assert!(Instant::now() < deadline, "{failed}");
        sleep(Duration::from_millis(20)).await;
    }
    let (lamp, ann) = ("lamp".parse().unwrap(), "ann".parse().unwrap());
    let id = attempt(0, 1, 1).attempt_id;
    for failed in [
        write(&store, 1).await.err(),
        store.attempt(id).await.err(),
        store.sale(&lamp).await.err(),
        store.sales(None, 1).await.err(),
        store.orders(&ann, None, 1).await.err(),
        store.intents(&lamp, None, 1).await.err(),
        store.visit(Box::new(|_| true)).await.err(),
    ] {
        let failed = failed.expect("a call without a node fails").to_string();
        assert!(failed.contains(&named), "{failed}");
    }

    assert!(count(&store, "unreachable") > 0);
    let _proxy = Proxy::start(address).await;
    write_until_taken(&store, 1).await;
    assert_eq!(store.ready(PATIENCE).await, Ok(()));
    drop(store);
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_reconnects_after_its_nodes_were_away() {
    let keyspace = Keyspace::new().await;
    let proxy = Proxy::start(([127, 0, 0, 1], 0).into()).await;
    let store = ScyllaStore::open(options(&proxy.address.to_string(), &keyspace.name)).unwrap();
    store.ready(PATIENCE).await.unwrap();
    let mut version = 1;
    assert_eq!(write(&store, version).await, Ok(()));
    for away in [Mode::Cut, Mode::Silent, Mode::Cut] {
        proxy.set(away);
        let named = format!("Cassandra/ScyllaDB at {}", proxy.address);
        version += 1;
        for _ in 0..2 {
            let failed = write(&store, version).await.unwrap_err().to_string();
            assert!(failed.contains(&named), "{away:?}: {failed}");
            let lamp = "lamp".parse().unwrap();
            let read = timeout(LONGEST_CALL, store.sale(&lamp));
            let failed = read.await.expect("in time").unwrap_err().to_string();
            assert!(failed.contains(&named), "{away:?}: {failed}");
        }
        proxy.set(Mode::Open);
        write_until_taken(&store, version).await;
    }
    drop(store);
    keyspace.drop().await;
}

/// The number of requests under way is bounded, and a request that waits too long fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_wait_for_a_permit_but_not_forever() {
    let keyspace = Keyspace::new().await;
    let proxy = Proxy::start(([127, 0, 0, 1], 0).into()).await;
    let mut options = options(&proxy.address.to_string(), &keyspace.name);
    options.max_in_flight = 1;
    let store = Arc::new(ScyllaStore::open(options).unwrap());
    store.ready(PATIENCE).await.unwrap();
    // More rows than permits: they are written one after the other.
    let rows: Vec<_> = (0..300).map(|n| Row::Attempt(attempt(0, n, 1))).collect();
    let applied = store.apply(Partition(0), rows, progress(1)).await;
    assert_eq!(applied, Ok(()));
    assert!(
        store
            .attempt(attempt(0, 299, 1).attempt_id)
            .await
            .unwrap()
            .is_some()
    );

    proxy.set(Mode::Silent);
    let mut reads = JoinSet::new();
    for _ in 0..20 {
        let store = store.clone();
        let read = async move { store.attempt(attempt(0, 1, 1).attempt_id).await };
        reads.spawn(timeout(LONGEST_CALL, read));
    }
    let mut timed_out = 0;
    while let Some(read) = reads.join_next().await {
        let failed = read.unwrap().expect("in time").unwrap_err().to_string();
        timed_out += usize::from(failed.contains("1 requests are under way"));
    }
    assert!(timed_out >= 10, "{timed_out}");
    assert!(count(&store, "timeout") >= timed_out as u64);
    drop(store);
    keyspace.drop().await;
}
