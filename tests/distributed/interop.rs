//! Foreign clients read both topics: Kafka's own tools, and a Python program with Confluent's
//! client, which recomputes every product's stock.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use ports::{EventLog, Group, LogRecord, NewRecord, ReadStore};
use runtime::settings::Service::{CommandApi, Decider, Projector, QueryApi};
use schemas::ids::Partition;
use schemas::topics::Topic;
use schemas::trace::TRACEPARENT;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::cluster::{Cluster, PARTITIONS, eventually};
use crate::command_apis::records;
use crate::instance::root;
use crate::shop::{Shop, text};
use crate::venv;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[tokio::test(flavor = "multi_thread")]
async fn foreign_clients_read_both_topics_and_compute_the_same_stock() {
    let python = block_in_place(python);
    let cluster = Cluster::new().await;
    let [command_api, query_api, _projector, mut decider] = cluster
        .ready([CommandApi, QueryApi, Projector, Decider])
        .await;
    let shop = Shop::at(&command_api, &query_api);
    let load = [
        "--buyers",
        "2000",
        "--over",
        "4",
        "--products",
        "12",
        "--stock",
        "60",
    ];
    let rehearsal = cluster.rehearse(&command_api, &query_api, &load);
    every_event_of_a_sale(&shop).await;
    traced_order(&shop).await;
    rehearsal.passes().await;

    groups_are_at_the_end(&cluster).await;

    // From here on nothing is decided. A decision that is in the log a second time is dropped by
    // every reader, like one by a paused decider.
    assert!(decider.terminate().await.success());
    let log = cluster.log().await;
    let mut forged = 0;
    for partition in (0..PARTITIONS).map(Partition) {
        let decisions = records(&log, Topic::StockDecisions, partition).await;
        let last = decisions
            .into_iter()
            .last()
            .filter(|last| !last.key.is_empty());
        let Some(LogRecord {
            key,
            value,
            headers,
            ..
        }) = last
        else {
            continue;
        };
        let copy = NewRecord {
            key,
            value,
            headers,
        };
        log.append(Topic::StockDecisions, partition, vec![copy])
            .await
            .unwrap();
        forged += 1;
    }
    assert!(forged > 0);
    cluster.read_models_catch_up().await;

    for topic in [Topic::PurchaseAttempts, Topic::StockDecisions] {
        console_consumer_reads(&cluster, &log, topic).await;
    }
    let recomputed = block_in_place(|| recompute(&cluster, &python));
    let products = recomputed["products"].as_object().unwrap();
    let ours: BTreeMap<String, Value> = shop.sales().await.into_iter().map(figures).collect();
    for (product, figures) in &ours {
        assert_eq!(products.get(product), Some(figures), "{product}");
    }
    assert_eq!(ours.len(), products.len());
    assert_eq!(recomputed["unanswered"], 0, "{recomputed}");
    assert_eq!(recomputed["decisions"]["dropped"], forged, "{recomputed}");
    for case in [
        "place_attempt",
        "cancel_order",
        "put_sale",
        "close_sale",
        "set_stock",
        "time_advanced",
    ] {
        assert!(
            recomputed["commands"][case].as_u64() > Some(0),
            "no {case}: {recomputed}"
        );
    }
    let tallied = |what: &str| -> u64 {
        let of = products
            .values()
            .map(|product| product["tally"][what].as_u64().unwrap());
        of.sum()
    };
    for what in ["accepted", "refused", "cancelled", "expired"] {
        assert!(tallied(what) > 0, "nothing was {what}");
    }
    println!("{} products agree: {}", ours.len(), recomputed["decisions"]);
    log.close().await;
    cluster.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_from_the_request_through_both_topics_to_the_answer() {
    let cluster = Cluster::new().await;
    let [command_api, query_api, _projector, _decider] = cluster
        .ready([CommandApi, QueryApi, Projector, Decider])
        .await;
    let shop = Shop::at(&command_api, &query_api);
    shop.put("traced", json!({ "stock": 1_000 })).await;
    let untraced = shop.order("traced", "nobody", 1).await;
    let attempt = traced_order(&shop).await;
    assert_eq!(shop.fate(&attempt).await["trace_id"], TRACE);
    let without = shop.fate(&untraced).await;
    assert!(without.get("trace_id").is_none(), "{without}");

    let log = cluster.log().await;
    for topic in [Topic::PurchaseAttempts, Topic::StockDecisions] {
        let mut traced = Vec::new();
        for partition in (0..PARTITIONS).map(Partition) {
            let all = records(&log, topic, partition).await.into_iter();
            traced.extend(all.filter(|record| !record.headers.is_empty()));
        }
        assert_eq!(traced.len(), 1, "{topic} {traced:?}");
        assert_eq!(traced[0].key, "traced", "{topic}");
        let expected = [(TRACEPARENT.to_owned(), PARENT.into())];
        assert_eq!(traced[0].headers, expected, "{topic}");
    }
    log.close().await;

    cluster.read_models_catch_up().await;
    let store = cluster.store().await;
    let row = store
        .attempt(attempt.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        row.trace_id.map(|trace| trace.to_string()).as_deref(),
        Some(TRACE)
    );
    let row = store
        .attempt(untraced.parse().unwrap())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(row.trace_id, None);
    // A query API that starts now has it only from the read models.
    let [late] = cluster.ready([QueryApi]).await;
    assert_eq!(
        Shop::at(&command_api, &late).fate(&attempt).await["trace_id"],
        TRACE
    );
    cluster.audit().await;
}

/// Orders that are accepted, refused, cancelled and expired; changed stock; a second round.
async fn every_event_of_a_sale(shop: &Shop) {
    shop.put("held", json!({ "stock": 10, "hold_ms": 300 }))
        .await;
    let held = shop.order("held", "slow", 3).await;
    shop.put("returned", json!({ "stock": 5 })).await;
    let order = shop.order("returned", "undecided", 2).await;
    assert_eq!(shop.fate(&order).await["status"], "sold");
    shop.cancel("returned", "undecided", &order).await;
    becomes(shop, &order, "cancelled").await;
    shop.change("returned", "stock", Some(json!({ "stock": 8 })))
        .await;
    let all = shop.order("returned", "greedy", 8).await;
    becomes(shop, &all, "sold").await;
    let more = shop.order("returned", "late", 1).await;
    becomes(shop, &more, "refused").await;

    shop.put("twice", json!({ "stock": 3 })).await;
    shop.order("twice", "first-round", 2).await;
    shop.change("twice", "close", None).await;
    shop.begin_round("twice", json!({ "stock": 7 })).await;
    // Until the command API has read which round it is, the order is made for the first and refused.
    eventually("an order of the second round is sold", async || {
        let second = shop.order("twice", "second-round", 4).await;
        let attempt = shop.attempt(&second).await?;
        (attempt["status"] == "sold").then_some(())
    })
    .await;
    becomes(shop, &held, "expired").await;
}

async fn becomes(shop: &Shop, attempt: &str, status: &str) {
    eventually(&format!("{attempt} is {status}"), async || {
        (shop.fate(attempt).await["status"] == status).then_some(())
    })
    .await;
}

/// Places an order whose request has a trace; returns the attempt's id.
async fn traced_order(shop: &Shop) -> String {
    shop.put("traced", json!({ "stock": 1_000 })).await;
    let headers = [(TRACEPARENT, PARENT)];
    let order = shop.try_order("traced", ("follower", "once"), 1, &headers);
    let (status, body) = order.await.expect("an answer");
    assert_eq!(status, 202, "{body}");
    text(&body["attempt_id"])
}

/// Kafka's own tool shows the member of each partition, and no lag.
async fn groups_are_at_the_end(cluster: &Cluster) {
    let groups = [Group::Deciders, Group::Projectors];
    let names = groups.map(|group| log_kafka::group_name(cluster.prefix(), group));
    let topics = [Topic::PurchaseAttempts, Topic::StockDecisions];
    let topics = topics.map(|topic| log_kafka::topic_name(cluster.prefix(), topic));
    let brokers = cluster.engines.kafka_brokers();
    let mut shown = String::new();
    let done = eventually("the groups have no lag", async || {
        let arguments = ["--bootstrap-server", &brokers, "--describe"];
        let arguments = arguments
            .into_iter()
            .chain(["--group", &names[0], "--group", &names[1]]);
        let arguments: Vec<&str> = arguments.collect();
        let main = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
        shown = block_in_place(|| run(&mut cluster.engines.kafka().tool(main, &arguments)));
        let mut done = BTreeSet::new();
        for line in shown.lines() {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let [group, topic, partition, current, end, lag, member, ..] = columns[..] else {
                continue;
            };
            if member != "-" && lag == "0" && current == end {
                done.insert((
                    group.to_owned(),
                    topic.to_owned(),
                    partition.parse::<u32>().ok()?,
                ));
            }
        }
        (done.len() == 2 * PARTITIONS as usize).then_some(done)
    })
    .await;
    println!("{shown}");
    for (group, topic) in names.iter().zip(&topics) {
        for partition in 0..PARTITIONS {
            assert!(
                done.contains(&(group.clone(), topic.clone(), partition)),
                "{shown}"
            );
        }
    }
}

/// Kafka's own console consumer has every record of a topic, with its headers.
async fn console_consumer_reads(cluster: &Cluster, log: &dyn EventLog, topic: Topic) {
    let mut expected = BTreeSet::new();
    for partition in 0..PARTITIONS {
        let end = log.end(topic, Partition(partition)).await.unwrap();
        expected.extend((0..end.0).map(|offset| (partition, offset)));
    }
    let (brokers, count) = (cluster.engines.kafka_brokers(), expected.len().to_string());
    let name = log_kafka::topic_name(cluster.prefix(), topic);
    let mut arguments = vec![
        "--bootstrap-server",
        &brokers,
        "--topic",
        &name,
        "--from-beginning",
    ];
    // It reads until it has all records, or none has come for a minute.
    arguments.extend(["--max-messages", &count, "--timeout-ms", "60000"]);
    for property in [
        "print.partition=true",
        "print.offset=true",
        "print.headers=true",
        "print.value=false",
    ] {
        arguments.extend(["--formatter-property", property]);
    }
    let main = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let stdout = block_in_place(|| run(&mut cluster.engines.kafka().tool(main, &arguments)));
    let mut found = BTreeSet::new();
    let mut traced = 0;
    for line in stdout.lines() {
        let Some((partition, rest)) = line
            .strip_prefix("Partition:")
            .and_then(|line| line.split_once("\tOffset:"))
        else {
            continue;
        };
        let (offset, headers) = rest.split_once('\t').unwrap();
        found.insert((partition.parse().unwrap(), offset.parse().unwrap()));
        traced += u32::from(headers.contains(&format!("{TRACEPARENT}:{PARENT}")));
    }
    assert_eq!(found, expected, "{name}");
    // The forged copies of decisions have their originals' headers.
    assert!(
        traced > 0,
        "no record of {name} was printed with its traceparent"
    );
    println!("the console consumer read {count} records of {name}, {traced} with the trace");
}

/// The result of the Python program.
fn recompute(cluster: &Cluster, python: &PathBuf) -> Value {
    let mut command = Command::new(python);
    command
        .arg(root().join("tests/distributed/interop/recompute.py"))
        .args([
            &cluster.engines.kafka_brokers(),
            cluster.prefix(),
            &cluster.engines.registry_url(),
        ]);
    serde_json::from_str(&run(&mut command)).unwrap()
}

/// A sale of the API, in the form of the Python program.
fn figures(sale: Value) -> (String, Value) {
    let figures = json!({
        "version": sale["version"],
        "round": sale["round"],
        "stock": sale["stock"],
        "tally": sale["attempts"],
    });
    (text(&sale["product_id"]), figures)
}

/// A Python environment with the program's imports.
fn python() -> PathBuf {
    let requirements = root().join("tests/distributed/interop/requirements.txt");
    venv::with_packages(&root().join("target/interop-venv"), &requirements)
}

/// The output of a command, which must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{stderr}\n{stdout}",
        output.status
    );
    stdout
}
