//! Its own topics and keyspace on shared engines, and processes of the real program on them.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use engines::Engines;
use futures::stream::{self, StreamExt, TryStreamExt};
use log_kafka::KafkaLog;
use ports::{EventLog, LogRecord, NewRecord};
use runtime::settings::Service;
use schemas::codec::Codec;
use schemas::command::{Command, CommandBody, PlaceAttempt, SaleTerms};
use schemas::decision::DecisionRecord;
use schemas::fence::{Fence, Verdict};
use schemas::ids::{AttemptId, Money, Offset, Partition, ProductId};
use schemas::topics::Topic;
use store_scylla::ScyllaStore;

use crate::load::{PRODUCT, TOKEN};
use crate::server::{PATIENCE, Server, eventually, program};

/// The partition that the product is in where there is one only.
pub const PARTITION: Partition = Partition(0);
/// The most requests that a store has in flight: the product's default.
pub const CQL_IN_FLIGHT: usize = 256;

/// Records of one append, and appends at once, when topics are filled.
const CALL: usize = 1_000;
const CALLS_AT_ONCE: usize = 8;

/// Topics, subjects and a keyspace that nobody else uses.
pub struct Site {
    pub brokers: String,
    pub cql_node: String,
    pub keyspace: String,
    pub topic_prefix: String,
    registry_url: String,
    partitions: u32,
}

impl Site {
    pub fn new(engines: &Engines, partitions: u32) -> Self {
        let name = format!("b{:08x}", rand::random::<u32>());
        Self {
            brokers: engines.kafka_brokers(),
            cql_node: engines.cql_node(),
            topic_prefix: format!("{name}."),
            keyspace: name,
            registry_url: engines.registry_url(),
            partitions,
        }
    }

    /// The same topics with an empty keyspace.
    pub fn with_new_keyspace(&self) -> Self {
        Self {
            brokers: self.brokers.clone(),
            cql_node: self.cql_node.clone(),
            keyspace: format!("b{:08x}", rand::random::<u32>()),
            topic_prefix: self.topic_prefix.clone(),
            registry_url: self.registry_url.clone(),
            partitions: self.partitions,
        }
    }

    pub async fn log(&self) -> anyhow::Result<KafkaLog> {
        let options = log_kafka::Options {
            brokers: self.brokers.clone(),
            topic_prefix: self.topic_prefix.clone(),
            partitions: self.partitions,
            replication: 1,
            min_insync: 1,
            queue_records: 65_536,
            queue_bytes: 8 << 20,
            append_timeout: Duration::from_secs(8),
            session_timeout: Duration::from_secs(6),
            security: log_kafka::Security::default(),
        };
        Ok(KafkaLog::open(options).await?)
    }

    pub async fn codec(&self) -> anyhow::Result<Arc<Codec>> {
        let options = registry::Options {
            url: self.registry_url.clone(),
            subject_prefix: self.topic_prefix.clone(),
            ..registry::Options::default()
        };
        Ok(Arc::new(registry::connect(&options).await?))
    }

    /// The read models, with their tables there.
    pub async fn store(&self) -> anyhow::Result<ScyllaStore> {
        let store = ScyllaStore::open(store_scylla::Options {
            nodes: vec![self.cql_node.clone()],
            keyspace: self.keyspace.clone(),
            datacenter: None,
            replication: 1,
            username: None,
            password: None,
            tls: None,
            max_in_flight: CQL_IN_FLIGHT,
        })?;
        store.ready(PATIENCE).await?;
        Ok(store)
    }

    /// A service of the real program, in a process of its own.
    pub async fn start(&self, service: Service) -> anyhow::Result<Server> {
        let settings = [
            ("KAFKA_BROKERS", self.brokers.clone()),
            ("KAFKA_TOPIC_PREFIX", self.topic_prefix.clone()),
            ("KAFKA_REPLICATION", "1".to_owned()),
            ("KAFKA_MIN_INSYNC", "1".to_owned()),
            ("CQL_NODES", self.cql_node.clone()),
            ("CQL_KEYSPACE", self.keyspace.clone()),
            ("CQL_REPLICATION", "1".to_owned()),
            ("REGISTRY_URL", self.registry_url.clone()),
            ("PARTITIONS", self.partitions.to_string()),
            ("RECEIPT_KEY", "5e".repeat(32)),
            ("ADMIN_TOKEN", TOKEN.to_owned()),
        ];
        let settings = settings.map(|(name, value)| (format!("DOORBUSTER_{name}"), value));
        let mut command = tokio::process::Command::new(program("doorbuster")?);
        command.arg(service.name()).envs(settings);
        Server::start_product(command, service.has_api()).await
    }
}

/// A sale of this many units, open from the start.
pub fn sale(stock: u32, hold_ms: Option<i64>) -> Command {
    Command {
        product_id: product(),
        body: CommandBody::PutSale(SaleTerms {
            name: "Hot".into(),
            price: Money {
                minor: 100,
                currency: "EUR".into(),
            },
            stock,
            limit_per_buyer: None,
            hold_ms,
            opens_at_ms: 0,
            closes_at_ms: None,
        }),
        if_version: None,
    }
}

/// The attempt with this number, for one unit; each has its own buyer.
pub fn attempt(number: u32) -> Command {
    let product_id = product();
    let buyer_id = format!("buyer-{number}").parse().expect("it is an id");
    Command {
        body: CommandBody::PlaceAttempt(PlaceAttempt {
            attempt_id: AttemptId::from_key(&product_id, &buyer_id, "once", 1),
            buyer_id,
            quantity: 1,
            round: None,
        }),
        product_id,
        if_version: None,
    }
}

fn product() -> ProductId {
    PRODUCT.parse().expect("it is an id")
}

/// A command as the command API appends it.
pub fn record(codec: &Codec, command: Command) -> NewRecord {
    NewRecord {
        key: Bytes::from_static(PRODUCT.as_bytes()),
        value: codec.encode_command(command).into(),
        headers: vec![],
    }
}

/// Appends a sale and then this many attempts on it to `purchase-attempts`.
pub async fn fill(
    log: &KafkaLog,
    codec: &Codec,
    sale: Command,
    attempts: u32,
) -> anyhow::Result<()> {
    let append = |records| log.append(Topic::PurchaseAttempts, PARTITION, records);
    append(vec![record(codec, sale)]).await?;
    let first_of_calls = (0..attempts).step_by(CALL);
    let call = |first: u32| {
        let numbers = first..attempts.min(first + CALL as u32);
        append(numbers.map(|n| record(codec, attempt(n))).collect())
    };
    let calls = stream::iter(first_of_calls).map(call);
    let appended = calls.buffered(CALLS_AT_ONCE);
    appended.try_for_each(async |_| Ok(())).await?;
    Ok(())
}

/// All records of a topic from an offset on, in order, up to its current end.
pub async fn visit(
    log: &KafkaLog,
    topic: Topic,
    from: Offset,
    mut visit: impl FnMut(LogRecord) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let end = log.end(topic, PARTITION).await?;
    let mut reader = log.read(topic, PARTITION, from).await?;
    let mut next = from;
    while next < end {
        let records = tokio::time::timeout(PATIENCE, reader.next()).await??;
        for record in records {
            next = record.offset.next();
            visit(record)?;
        }
    }
    Ok(())
}

/// Waits until `stock-decisions` has this many records.
pub async fn decided(log: &KafkaLog, records: i64) -> anyhow::Result<()> {
    eventually("everything is decided", async || {
        let end = log.end(Topic::StockDecisions, PARTITION).await?;
        Ok((end.0 >= records).then_some(()))
    })
    .await
}

/// What `stock-decisions` has from a claim on.
pub struct Decided {
    /// From the append of the claim to that of the first decision that counts.
    pub first: Duration,
    /// The same to the last one.
    pub last: Duration,
    /// Decisions that count.
    pub count: u64,
}

/// Reads `stock-decisions` back. `fence` is the state before `from`, the offset of a claim.
pub async fn read_back(
    log: &KafkaLog,
    codec: &Codec,
    from: Offset,
    mut fence: Fence,
) -> anyhow::Result<Decided> {
    let (mut claimed, mut first, mut last, mut count) = (None, None, 0, 0);
    visit(log, Topic::StockDecisions, from, |record| {
        let decision: DecisionRecord = codec.decode_decision(&record.value)?;
        match fence.pass(record.offset, &decision) {
            Verdict::Claimed => claimed = Some(record.appended_at_ms),
            Verdict::Counts => {
                first.get_or_insert(record.appended_at_ms);
                last = record.appended_at_ms;
                count += 1;
            }
            Verdict::Dropped => {}
        }
        Ok(())
    })
    .await?;
    let claimed = claimed.context("there is no claim")?;
    let first = first.context("there is no decision that counts")?;
    let since = |at_ms: i64| Duration::from_millis((at_ms - claimed).max(0) as u64);
    Ok(Decided {
        first: since(first),
        last: since(last),
        count,
    })
}
