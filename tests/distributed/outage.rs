//! The read store, the registry or Kafka is unavailable: what continues, and what reports that it
//! waits.

use std::time::{Duration, Instant};

use engines::Engines;
use runtime::settings::Service::{CommandApi, Decider, Projector, QueryApi};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::cluster::{Cluster, PARTITIONS, Process, eventually, get};
use crate::shop::{Shop, text};

/// How long the read store is down at least.
const OUTAGE: Duration = Duration::from_secs(20);
/// How long it hangs without answering.
const HANG: Duration = Duration::from_secs(14);
/// The fewest orders that must be accepted and answered meanwhile.
const ORDERS: u32 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn orders_are_decided_and_answered_without_the_read_store() {
    let cluster = Cluster::new().await;
    let processes = cluster
        .ready([CommandApi, QueryApi, Projector, Decider])
        .await;
    let [command_api, query_api, projector, decider] = &processes;
    let load = [
        "--buyers",
        "5000",
        "--over",
        "40",
        "--products",
        "12",
        "--stock",
        "150",
    ];
    let rehearsal = cluster.rehearse(command_api, query_api, &load);
    decides_on(decider).await;

    let cassandra = cluster.engines.cassandra();
    let away = Away::of(|| cassandra.stop(), || cassandra.start());
    let stopped = Instant::now();
    let node = cluster.engines.cql_node();
    for process in [command_api, query_api, projector] {
        let what = format!("{} reports that the store is away", process.url);
        eventually(&what, async || {
            reports_store_failure(process, projector, &node).await
        })
        .await;
    }
    // Everything from here on works without the store, even a new sale.
    let shop = Shop::at(command_api, query_api);
    shop.put("meanwhile", json!({ "stock": 1_000_000 })).await;
    let before = decider.metric("doorbuster_decisions_total").await;
    let mut orders = 0;
    while stopped.elapsed() < OUTAGE || orders < ORDERS {
        let attempt = shop.order("meanwhile", &format!("buyer-{orders}"), 2).await;
        let fate = shop.fate(&attempt).await;
        assert_eq!(
            (&fate["status"], &fate["quantity"]),
            (&"sold".into(), &2.into()),
            "{fate}"
        );
        for process in [command_api, query_api, projector] {
            let reported = reports_store_failure(process, projector, &node).await;
            assert!(
                reported.is_some(),
                "{}: {:?}",
                process.url,
                process.health().await
            );
        }
        assert_eq!(decider.health().await.unwrap().0, 200);
        orders += 1;
        sleep(Duration::from_millis(100)).await;
    }
    // A failure is logged when it starts, not with every retry.
    let output = projector.output();
    let logged = output.matches("failed; trying again").count();
    assert!(
        logged < 8 * PARTITIONS as usize,
        "the projector logged its failure {logged} times"
    );

    let decided = decider.metric("doorbuster_decisions_total").await - before;
    println!(
        "{decided} decisions in {:?} without the store, {orders} of them ours",
        stopped.elapsed()
    );
    assert!(decided >= f64::from(orders));
    let sale = sale(&shop, "meanwhile").await;
    assert_eq!(sale["stock"]["sold"], 2 * orders, "{sale}");

    // A command API that starts now knows no sale, and still accepts orders once it is ready.
    let late = cluster.start(CommandApi);
    late.becomes_ready().await;
    let there = Shop::at(&late, query_api);
    let (status, order) = there
        .try_order("meanwhile", ("late", "late"), 1, &[])
        .await
        .unwrap();
    assert_eq!(status, 202, "{order}");
    let fate = shop.fate(&text(&order["attempt_id"])).await;
    assert_eq!(fate["status"], "sold", "{fate}");
    let order = there.try_order("unheard-of", ("late", "late"), 1, &[]);
    let (status, order) = order.await.unwrap();
    assert_eq!(status, 202, "{order}");
    assert_eq!(shop.outcome(&order).await["reason"], "unknown_product");

    drop(away);
    for process in processes.iter().chain([&late]) {
        is_healthy(process).await;
    }
    rehearsal.passes().await;
    cluster.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hanging_read_store_delays_no_answer_and_readiness_stays_stable() {
    let cluster = Cluster::new().await;
    let processes = cluster
        .ready([CommandApi, QueryApi, Projector, Decider])
        .await;
    let [command_api, query_api, projector, _] = &processes;
    let shop = Shop::at(command_api, query_api);
    shop.put("hot", json!({ "stock": 1_000_000 })).await;
    shop.fate(&shop.order("hot", "first", 1).await).await;

    let pid = cassandra(cluster.engines);
    let signal = |signal| {
        kill_process(pid, signal).unwrap();
        Ok(())
    };
    let hung = Away::of(|| signal(Signal::STOP), || signal(Signal::CONT));
    let since = Instant::now();
    let mut orders = 0;
    for process in [command_api, query_api, projector] {
        let what = format!("{} tells that the store does not answer", process.url);
        eventually(&what, async || {
            shop.order("hot", &format!("early-{orders}"), 1).await;
            orders += 1;
            reports_store_failure(process, projector, "").await
        })
        .await;
    }
    let mut slowest = Duration::ZERO;
    while since.elapsed() < HANG || orders < ORDERS {
        let begun = Instant::now();
        let attempt = shop.order("hot", &format!("buyer-{orders}"), 1).await;
        assert_eq!(shop.fate(&attempt).await["status"], "sold");
        slowest = slowest.max(begun.elapsed());
        for process in [command_api, query_api, projector] {
            let reported = reports_store_failure(process, projector, "").await;
            assert!(
                reported.is_some(),
                "{}: {:?}",
                process.url,
                process.health().await
            );
        }
        orders += 1;
        sleep(Duration::from_millis(100)).await;
    }
    println!("{orders} orders while the store hung; the slowest answer took {slowest:?}");
    drop(hung);
    for process in &processes {
        is_healthy(process).await;
    }
    cluster.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_services_continue_without_the_registry_and_a_starting_one_reports_why_it_waits() {
    let cluster = Cluster::new().await;
    let [command_api, query_api, _projector, _decider] = cluster
        .ready([CommandApi, QueryApi, Projector, Decider])
        .await;
    let registry = cluster.engines.registry();
    let away = Away::of(|| registry.stop(), || registry.start());
    let load = [
        "--buyers",
        "3000",
        "--over",
        "8",
        "--products",
        "12",
        "--stock",
        "100",
    ];
    let rehearsal = cluster.rehearse(&command_api, &query_api, &load);

    let address = cluster.engines.registry_url();
    let waiting = [CommandApi, QueryApi, Projector, Decider].map(|service| cluster.start(service));
    for process in &waiting {
        reports_why_it_waits(process, "the schema registry", &address).await;
    }
    rehearsal.passes().await;
    for process in &waiting {
        reports_why_it_waits(process, "the schema registry", &address).await;
    }

    drop(away);
    for process in &waiting {
        process.becomes_ready().await;
    }
    let [command_api, query_api, ..] = &waiting;
    works(&Shop::at(command_api, query_api)).await;
    cluster.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_start_without_kafka_report_why_they_wait() {
    let cluster = Cluster::new().await;
    let kafka = cluster.engines.kafka();
    let brokers = cluster.engines.kafka_brokers();
    let mut numbers = 1..=brokers.split(',').count() as u8;
    let kill_all = || numbers.try_for_each(|number| kafka.kill(number));
    let away = Away::of(kill_all, || kafka.restart_all());
    let waiting = [CommandApi, QueryApi, Projector, Decider].map(|service| cluster.start(service));
    for process in &waiting {
        reports_why_it_waits(process, "Kafka", &brokers).await;
    }
    drop(away);
    for process in &waiting {
        process.becomes_ready().await;
    }
    let [command_api, query_api, ..] = &waiting;
    works(&Shop::at(command_api, query_api)).await;
    cluster.audit().await;
}

/// Whether a process reports that the read store is unavailable, and `why`: the projector is
/// unready, the others are degraded.
async fn reports_store_failure(process: &Process, projector: &Process, why: &str) -> Option<()> {
    let (status, health) = process.health().await?;
    let mut components = health["components"].as_array()?.iter();
    let (expected, flag) = match process.url == projector.url {
        true => (503, ("ready", false)),
        false => (200, ("degraded", true)),
    };
    let names_it = components.any(|component| {
        let detail = component["detail"].as_str().unwrap_or_default();
        component[flag.0] == flag.1 && detail.contains("read store") && detail.contains(why)
    });
    let degraded = health["degraded"] == (expected == 200);
    (status == expected && degraded && names_it).then_some(())
}

/// Waits until it is healthy again.
async fn is_healthy(process: &Process) {
    eventually(&format!("{} is well", process.url), async || {
        let (status, health) = process.health().await?;
        (status == 200 && health["degraded"] == false).then_some(())
    })
    .await;
}

/// A process that cannot start yet reports what it waits for, at which address, and why that
/// fails. It is alive, and asks clients to retry.
async fn reports_why_it_waits(process: &Process, what: &str, address: &str) {
    let expected = format!("waiting for {what}: ");
    eventually(
        &format!("{} reports why it waits", process.url),
        async || {
            let (status, health) = process.health().await?;
            let mut components = health["components"].as_array()?.iter();
            let reported = components.any(|component| {
                let detail = component["detail"].as_str().unwrap_or_default();
                detail.starts_with(&expected)
                    && detail.contains(address)
                    && component["ready"] == false
            });
            (status == 503 && reported).then_some(())
        },
    )
    .await;
    let log = process.output();
    let mut lines = log.lines();
    let why = format!("waiting for {what}");
    assert!(
        lines.any(|line| line.contains(&why) && line.contains(address)),
        "{log}"
    );
    assert_eq!(
        get(&format!("{}/healthz", process.operations))
            .await
            .unwrap()
            .0,
        200
    );
    if process.url == process.operations {
        return;
    }
    let (status, problem) = get(&format!("{}/api/flash-sales", process.url))
        .await
        .unwrap();
    let problem: Value = serde_json::from_slice(&problem).unwrap();
    assert_eq!(
        (status, &problem["code"]),
        (503, &"starting".into()),
        "{problem}"
    );
}

/// Orders are accepted, decided and answered.
async fn works(shop: &Shop) {
    shop.put("afterwards", json!({ "stock": 1 })).await;
    let attempt = shop.order("afterwards", "somebody", 1).await;
    assert_eq!(shop.fate(&attempt).await["status"], "sold");
}

async fn sale(shop: &Shop, product: &str) -> Value {
    let sales = shop.sales().await;
    let found = sales.into_iter().find(|sale| sale["product_id"] == product);
    found.expect("the sale is listed")
}

/// Waits until the decider has made more decisions.
async fn decides_on(decider: &Process) {
    eventually("orders are being decided", async || {
        (decider.metric("doorbuster_decisions_total").await > 300.0).then_some(())
    })
    .await;
}

/// A part of the engines that is down until this is dropped, even when a test fails: other tests
/// use the same engines.
struct Away<B: Fn() -> Result<(), engines::Error>>(B);

impl<B: Fn() -> Result<(), engines::Error>> Away<B> {
    fn of(goes: impl FnOnce() -> Result<(), engines::Error>, comes_back: B) -> Self {
        let away = Self(comes_back);
        block_in_place(goes).unwrap();
        away
    }
}

impl<B: Fn() -> Result<(), engines::Error>> Drop for Away<B> {
    fn drop(&mut self) {
        block_in_place(&self.0).unwrap();
    }
}

/// The process of Cassandra.
fn cassandra(engines: &Engines) -> Pid {
    let parts = engines.status();
    let node = parts.iter().find(|part| part.name == "cassandra").unwrap();
    Pid::from_raw(node.pid.expect("it runs")).unwrap()
}
