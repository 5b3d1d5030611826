//! What a service reports about the engines that it uses, as long as it runs.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use log_kafka::{KafkaLog, OpenError};
use metrics::counter;
use ports::{EventLog, ReadStore};
use runtime::health::{Component, PROBE_WITHIN, REPORT_EVERY};
use runtime::interruption::Interruption;
use runtime::metrics::{CQL_ERRORS, CQL_RETRIES, KAFKA_ERRORS, KAFKA_TIMEOUTS};
use schemas::ids::Partition;
use schemas::topics::Topic;
use store_scylla::ScyllaStore;
use tokio::time::timeout;
use tracing::{error, info, warn};

/// How often the topics' settings are checked.
const CHECK_TOPICS_EVERY: Duration = Duration::from_secs(30);

/// How many partitions in a row do not answer when all of Kafka does not.
const ALONE: u32 = 2;

/// Begins the counters of the engines' clients at zero, before the engines are reached.
pub(super) fn counters_at_zero() {
    for kind in log_kafka::ERROR_KINDS {
        counter!(KAFKA_ERRORS, "kind" => kind).increment(0);
    }
    for kind in store_scylla::ERROR_KINDS {
        counter!(CQL_ERRORS, "kind" => kind).increment(0);
    }
    for counted in [KAFKA_TIMEOUTS, CQL_RETRIES] {
        counter!(counted).increment(0);
    }
}

/// Publishes what the log has counted.
pub(super) async fn count_kafka_errors(log: Arc<KafkaLog>) -> Infallible {
    loop {
        for (kind, count) in log.errors() {
            counter!(KAFKA_ERRORS, "kind" => kind).absolute(count);
        }
        counter!(KAFKA_TIMEOUTS).absolute(log.appends_timed_out());
        tokio::time::sleep(REPORT_EVERY).await;
    }
}

/// Publishes what the read store has counted.
pub(super) async fn count_cql_errors(store: Arc<ScyllaStore>) -> Infallible {
    loop {
        for (kind, count) in store.errors() {
            counter!(CQL_ERRORS, "kind" => kind).absolute(count);
        }
        counter!(CQL_RETRIES).absolute(store.retries());
        tokio::time::sleep(REPORT_EVERY).await;
    }
}

/// Reports whether the brokers answer, each time for another partition. In some services nothing else
/// shows it. A partition that alone does not answer leaves the others well.
pub(super) async fn kafka(log: Arc<dyn EventLog>, component: Component) -> Infallible {
    let mut failing: BTreeMap<Partition, String> = BTreeMap::new();
    let (mut in_a_row, mut partition) = (0, Partition(0));
    loop {
        partition = Partition((partition.0 + 1) % log.partitions());
        match log.end(Topic::PurchaseAttempts, partition).await {
            Ok(_) => {
                if in_a_row >= ALONE {
                    // Kafka was away, and is back.
                    failing.clear();
                }
                in_a_row = 0;
                failing.remove(&partition);
                match failing.first_key_value() {
                    None => component.working(),
                    Some((partition, error)) => {
                        component.degraded(format!("partition {partition}: {error}"));
                    }
                }
            }
            Err(error) => {
                in_a_row += 1;
                if in_a_row >= log.partitions().min(ALONE) {
                    component.failing(error.to_string());
                }
                failing.insert(partition, error.to_string());
                if in_a_row < ALONE {
                    continue;
                }
            }
        }
        tokio::time::sleep(REPORT_EVERY).await;
    }
}

/// Reports whether the read store answers, and with `report` why it does not. The command API is degraded
/// without it: it reads from it whether a product is known, and accepts orders all the same. A projector
/// fails without it, although partitions that have nothing to project do not notice.
pub(super) async fn store(
    store: Arc<dyn ReadStore>,
    component: Component,
    report: fn(&Component, String),
) -> Infallible {
    let mut away = Interruption::default();
    loop {
        let why = match timeout(PROBE_WITHIN, store.progress()).await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("the read store does not answer".to_owned()),
        };
        match why {
            None => {
                if let Some(seconds) = away.end() {
                    info!("the read store answers again; recovered after {seconds} s");
                }
                component.working();
            }
            Some(why) => {
                if away.is_new(&why) {
                    warn!(why, "the read store is away");
                }
                report(&component, why);
            }
        }
        tokio::time::sleep(REPORT_EVERY).await;
    }
}

/// Reports whether the topics have the settings that they must have, which anyone may change at any
/// time. A service with a wrong one continues, since it can do nothing better.
pub(super) async fn topics(log: Arc<KafkaLog>, component: Component) -> Infallible {
    let mut changed = Interruption::default();
    let mut report = tokio::time::interval(REPORT_EVERY);
    loop {
        let check = async {
            tokio::time::sleep(CHECK_TOPICS_EVERY).await;
            log.check_topics().await
        };
        tokio::pin!(check);
        let checked = loop {
            tokio::select! {
                checked = &mut check => break checked,
                _ = report.tick() => match changed.why() {
                    Some(why) => component.degraded(why),
                    None => component.working(),
                },
            }
        };
        match checked {
            Ok(()) => {
                if let Some(seconds) = changed.end() {
                    info!("the topics' settings are right again; recovered after {seconds} s");
                }
            }
            // The component of Kafka reports it.
            Err(OpenError::Unreachable(_)) => {}
            Err(error) => {
                let why = error.to_string();
                if changed.is_new(&why) {
                    error!("a topic was changed: {why}");
                }
            }
        }
    }
}
