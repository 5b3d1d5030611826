//! Topics that are deleted, created again or altered by Kafka's own tools, under the services and
//! while they are stopped.

use log_kafka::topic_name;
use ports::EventLog;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewPartitions};
use rdkafka::client::DefaultClientContext;
use runtime::settings::Service::{CommandApi, Decider, Projector, QueryApi};
use schemas::ids::Partition;
use schemas::topics::Topic;
use serde_json::json;

use crate::cluster::{Cluster, PARTITIONS, Process, eventually};
use crate::shop::Shop;

fn admin(cluster: &Cluster) -> AdminClient<DefaultClientContext> {
    ClientConfig::new()
        .set("bootstrap.servers", cluster.engines.kafka_brokers())
        .create()
        .unwrap()
}

fn topics(cluster: &Cluster) -> [String; 3] {
    Topic::ALL.map(|topic| topic_name(cluster.prefix(), topic))
}

/// Deletes all topics, and creates them again, empty, as a service that starts does.
async fn replace_topics(cluster: &Cluster) {
    let names = topics(cluster);
    let deleted = admin(cluster)
        .delete_topics(&names.each_ref().map(String::as_str), &AdminOptions::new())
        .await;
    deleted.unwrap().into_iter().for_each(|deleted| {
        deleted.unwrap();
    });
    let log = cluster.log().await;
    let end = eventually("the topics are empty", async || {
        log.end(Topic::PurchaseAttempts, Partition(0)).await.ok()
    });
    end.await;
    log.close().await;
}

/// Sells the whole stock of a product, and waits until the read models have it.
async fn sell(cluster: &Cluster, shop: &Shop, product: &str, units: u32) {
    let terms = json!({ "stock": units, "opens_at": "2026-01-01T00:00:00Z" });
    shop.put(product, terms).await;
    for n in 0..units {
        let attempt = shop.order(product, &format!("buyer-{n}"), 1).await;
        assert_eq!(shop.fate(&attempt).await["status"], "sold");
    }
    cluster.read_models_catch_up().await;
}

/// An order is refused; nothing is acknowledged that nobody can find afterwards.
async fn is_closed(shop: &Shop) {
    let order = shop.try_order("lamp", ("late", "late"), 1, &[]).await;
    let (status, body) = order.expect("it is answered");
    assert_eq!((status, &body["code"]), (503, &json!("log_unavailable")));
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_that_are_created_again_stop_every_service_until_an_operator_acts() {
    let cluster = Cluster::new().await;
    let services = [CommandApi, QueryApi, Projector, Decider];
    let processes = cluster.ready(services).await;
    let shop = Shop::at(&processes[0], &processes[1]);
    sell(&cluster, &shop, "lamp", 3).await;

    replace_topics(&cluster).await;
    for process in &processes {
        process.needs_an_operator("").await;
    }
    is_closed(&shop).await;
    drop(processes);

    // A restart changes nothing. Deciders know no other log, and are well.
    let [command_api, query_api, projector] =
        [CommandApi, QueryApi, Projector].map(|service| cluster.start(service));
    for process in [&command_api, &query_api, &projector] {
        process.needs_an_operator("").await;
    }
    is_closed(&Shop::at(&command_api, &query_api)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_with_more_partitions_than_the_log_began_with_are_refused() {
    let mut cluster = Cluster::new().await;
    let [command_api, query_api, _projector, _decider] = cluster
        .ready([CommandApi, QueryApi, Projector, Decider])
        .await;
    let shop = Shop::at(&command_api, &query_api);
    sell(&cluster, &shop, "lamp", 3).await;
    drop((command_api, query_api, _projector, _decider));

    let more = PARTITIONS as usize * 2;
    let names = topics(&cluster);
    let altered = names.each_ref().map(|name| NewPartitions::new(name, more));
    let altered = admin(&cluster)
        .create_partitions(&altered, &AdminOptions::new())
        .await;
    altered.unwrap().into_iter().for_each(|altered| {
        altered.unwrap();
    });
    cluster.set("PARTITIONS", &more.to_string());
    let reason = format!("begun with {PARTITIONS} partitions");
    let processes: [Process; 4] =
        [CommandApi, QueryApi, Projector, Decider].map(|service| cluster.start(service));
    for process in &processes {
        process.needs_an_operator(&reason).await;
    }
    is_closed(&Shop::at(&processes[0], &processes[1])).await;

    let mut audit = cluster.tool();
    audit.args(["audit", "--distributed"]);
    let output = tokio::task::spawn_blocking(move || audit.output().unwrap());
    let output = output.await.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains(&reason), "{text}");
}
