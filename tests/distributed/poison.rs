//! Records that others put into `purchase-attempts` with a producer of their own: what nobody can
//! decode, and what only a newer version can.

use std::time::Duration;

use hyper::Method;
use log_kafka::topic_name;
use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use registry::Options;
use runtime::settings::Service::{CommandApi, Decider, Projector, QueryApi};
use schemas::ids::{Offset, Partition};
use schemas::placement::Placement;
use schemas::topics::Topic;
use serde_json::{Value, json};

use crate::cluster::{Cluster, PARTITIONS, Process, eventually, get};
use crate::shop::{Shop, send};

const TOPIC: Topic = Topic::PurchaseAttempts;
const PRODUCT: &str = "lamp";

fn partition() -> Partition {
    Placement::new(PARTITIONS).partition_of(&PRODUCT.parse().unwrap())
}

/// Appends a record with this value, or a tombstone, to the product's partition; returns its offset.
async fn produce(cluster: &Cluster, value: Option<&[u8]>) -> Offset {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", cluster.engines.kafka_brokers())
        .create()
        .unwrap();
    let topic = topic_name(cluster.prefix(), TOPIC);
    let mut record = FutureRecord::to(&topic)
        .key(PRODUCT)
        .partition(partition().0.cast_signed());
    record.payload = value;
    let delivered = producer.send(record, Duration::from_secs(60)).await;
    let delivered = delivered.map_err(|(error, _)| error).unwrap();
    Offset(delivered.offset)
}

/// What became of the command at this offset.
async fn outcome(query_api: &Process, offset: Offset) -> Value {
    let what = format!("the command at {offset} has an outcome");
    eventually(&what, async || {
        let url = format!(
            "{}/api/commands/{}-{offset}?wait=3",
            query_api.url,
            partition()
        );
        let (status, body) = get(&url).await?;
        let body: Value = serde_json::from_slice(&body).unwrap();
        (status == 200 && body["status"] != "pending").then_some(body)
    })
    .await
}

/// Waits until the product's decider is ready and its health has all of these texts.
async fn reports(decider: &Process, texts: &[&str]) {
    let what = format!("the decider's health has {texts:?}");
    eventually(&what, async || {
        let (status, health) = decider.health().await?;
        let name = format!("decider {}", partition());
        let components = health["components"].as_array().unwrap();
        let own = components.iter().find(|it| it["name"] == *name)?;
        let detail = own["detail"].as_str().unwrap();
        let has_all = texts.iter().all(|text| detail.contains(text));
        (status == 200 && health["degraded"] == true && has_all).then_some(())
    })
    .await;
}

async fn order_is_sold(shop: &Shop, buyer: &str) {
    let attempt = shop.order(PRODUCT, buyer, 1).await;
    assert_eq!(shop.fate(&attempt).await["status"], "sold", "{buyer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_and_a_tombstone_are_skipped_and_orders_behind_them_are_decided() {
    let cluster = Cluster::new().await;
    let [command_api, query_api, _projector, decider] = cluster
        .ready([CommandApi, QueryApi, Projector, Decider])
        .await;
    let shop = Shop::at(&command_api, &query_api);
    let terms = json!({ "stock": 5, "opens_at": "2026-01-01T00:00:00Z" });
    shop.put(PRODUCT, terms).await;
    order_is_sold(&shop, "before").await;

    let garbage = produce(&cluster, Some(b"garbage")).await;
    let tombstone = produce(&cluster, None).await;
    order_is_sold(&shop, "behind").await;
    for offset in [garbage, tombstone] {
        let outcome = outcome(&query_api, offset).await;
        assert_eq!(
            (&outcome["status"], &outcome["reason"]),
            (&json!("refused"), &json!("undecodable")),
            "{outcome}"
        );
    }
    let last = format!(
        "record {tombstone} of purchase-attempts, partition {}",
        partition()
    );
    reports(&decider, &["skipped 2 records", &last]).await;
    let skipped = decider.metric("doorbuster_records_skipped_total").await;
    assert_eq!(skipped, 2.0);
    let report = cluster.audit().await;
    assert_eq!(report["skipped"].as_array().unwrap().len(), 2, "{report}");
}

/// Registers a later version of the schema of commands, as a newer program does; returns its id.
async fn register_newer(cluster: &Cluster) -> u32 {
    let mut schema: Value =
        serde_json::from_str(include_str!("../../schemas/avro/purchase-attempts.avsc")).unwrap();
    let field = json!({ "name": "from_later", "type": ["null", "string"], "default": null });
    schema["fields"].as_array_mut().unwrap().push(field);
    let options = Options {
        subject_prefix: cluster.prefix().to_owned(),
        ..Options::default()
    };
    let url = format!(
        "{}/subjects/{}/versions",
        cluster.engines.registry_url(),
        options.subject(TOPIC)
    );
    let body = json!({ "schema": schema.to_string() });
    let (status, answer) = send(Method::POST, &url, &[], Some(&body)).await.unwrap();
    assert_eq!(status, 200, "{answer}");
    answer["id"].as_u64().unwrap().try_into().unwrap()
}

/// Exit status and all output of `doorbuster skip --distributed` for a record of the partition.
async fn skip(cluster: &Cluster, partition: &str, offset: Offset) -> (Option<i32>, String) {
    let mut command = cluster.tool();
    let offset = offset.to_string();
    command.args(["skip", "--distributed", "--partition", partition]);
    command.args(["--offset", &offset, "--by", "carol", "--reason", "not ours"]);
    let output = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = output.await.unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_skips_a_newer_versions_record_while_the_services_run() {
    let cluster = Cluster::new().await;
    let [command_api, query_api, _projector, decider] = cluster
        .ready([CommandApi, QueryApi, Projector, Decider])
        .await;
    let shop = Shop::at(&command_api, &query_api);
    let terms = json!({ "stock": 5, "opens_at": "2026-01-01T00:00:00Z" });
    shop.put(PRODUCT, terms).await;
    order_is_sold(&shop, "before").await;

    let id = register_newer(&cluster).await;
    let newer = [&[0][..], &id.to_be_bytes(), &[0xff; 20]].concat();
    let newer = produce(&cluster, Some(&newer)).await;
    let behind = shop.order(PRODUCT, "behind", 1).await;
    let advice = format!(
        "doorbuster skip --partition {} --offset {newer}",
        partition()
    );
    reports(&decider, &[&advice]).await;
    assert_eq!(shop.attempt(&behind).await.unwrap()["status"], "queued");

    let own = partition().to_string();
    for (partition, offset, why) in [
        (&*own, newer.next(), "the partition stands at record"),
        (&*own, Offset(0), "the partition is past it"),
        ("4", newer, "there is no partition 4; partitions are 0 to 3"),
    ] {
        let (status, text) = skip(&cluster, partition, offset).await;
        assert_eq!(status, Some(2), "{text}");
        assert!(text.contains(why), "{text}");
    }
    let (status, text) = skip(&cluster, &own, newer).await;
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains(&format!("skipped record {newer}")), "{text}");
    assert_eq!(shop.fate(&behind).await["status"], "sold");
    assert_eq!(outcome(&query_api, newer).await["reason"], "skipped");
    let report = cluster.audit().await;
    assert_eq!(report["skipped"][0]["by"], "carol", "{report}");
}
