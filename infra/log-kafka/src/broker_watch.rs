//! Watches whether the brokers take records.
//!
//! A record that waits in librdkafka while no broker answers may be sent long after the request that
//! it belongs to was answered, and when a record has timed out, librdkafka sends those after it under
//! a new identity, so that the brokers do not recognize the ones that they have already. Therefore a
//! thread watches the appends. As long as they succeed it asks nothing. When they stand still, or
//! librdkafka reports that all brokers are down, it asks the brokers for the partitions' leaders. When
//! they do not answer for [`AWAY_AFTER`], appends are refused at once and those in flight are given up,
//! until they answer again.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::metadata::Metadata;
use schemas::ids::Partition;
use schemas::topics::Topic;
use tracing::{debug, info, warn};

use crate::Options;
use crate::append::Appender;
use crate::availability::Unavailable;
use crate::context::Context;
use crate::names::{Names, TopicPartition};

/// How often the thread looks at the appends, and asks again while the brokers are away.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How long appends may be in flight without any success before the brokers are asked. Less than a
/// second would ask in every election of a leader.
const STALLED_AFTER: Duration = Duration::from_secs(1);
/// How long the brokers may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How long the brokers have not answered when they count as away. Shorter interruptions are for
/// librdkafka, which sends the records again.
const AWAY_AFTER: Duration = Duration::from_secs(2);
/// How often the leaders are asked for while a partition takes no records.
const ASK_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// The thread that keeps an appender's availability up to date.
pub(crate) struct Watch {
    appender: Weak<Appender>,
    /// Asks the brokers. Another client than the producer, whose connections may be waiting for the
    /// brokers to acknowledge records.
    consumer: Arc<BaseConsumer<Context>>,
    names: Arc<Names>,
    partitions: u32,
    min_insync: usize,
}

/// What the thread remembers from one look to the next.
#[derive(Default)]
struct Interruption {
    /// Since when the brokers have not answered.
    unanswered: Option<Instant>,
    /// Since when something takes no records.
    unavailable: Option<Instant>,
    asked: Option<Instant>,
}

impl Watch {
    pub(crate) fn new(
        options: &Options,
        appender: &Arc<Appender>,
        consumer: Arc<BaseConsumer<Context>>,
        names: Arc<Names>,
    ) -> Self {
        Self {
            appender: Arc::downgrade(appender),
            consumer,
            names,
            partitions: options.partitions,
            min_insync: options.min_insync as usize,
        }
    }

    /// Starts the thread. It ends when the appender is gone.
    pub(crate) fn start(self) -> std::io::Result<()> {
        let thread = std::thread::Builder::new().name("kafka-availability".to_owned());
        thread.spawn(move || self.run()).map(drop)
    }

    fn run(&self) {
        let mut interruption = Interruption::default();
        loop {
            std::thread::sleep(LOOK_EVERY);
            let Some(appender) = self.appender.upgrade() else {
                return;
            };
            let suspected = self.consumer.context().take_suspicion()
                || appender.is_stalled(STALLED_AFTER)
                || interruption.unanswered.is_some();
            let due = |asked: Instant| asked.elapsed() >= ASK_AGAIN_AFTER;
            let lasts = interruption.unavailable.is_some();
            if suspected || lasts && interruption.asked.is_none_or(due) {
                self.ask(&mut interruption, &appender);
            }
        }
    }

    fn ask(&self, interruption: &mut Interruption, appender: &Arc<Appender>) {
        interruption.asked = Some(Instant::now());
        match self.consumer.fetch_metadata(None, ANSWER_WITHIN) {
            Ok(metadata) => {
                interruption.unanswered = None;
                let partitions = self.unwritable(&metadata);
                update(interruption, appender, None, partitions);
            }
            Err(error) => {
                let why = self.consumer.context().explain(&error);
                debug!(why, "the brokers do not report the partitions' leaders");
                let since = interruption.unanswered.get_or_insert_with(Instant::now);
                if since.elapsed() >= AWAY_AFTER {
                    let why = format!("no broker answers: {why}");
                    update(interruption, appender, Some(why), BTreeMap::new());
                    appender.give_up();
                }
            }
        }
    }

    /// The partitions that take no records, and why.
    fn unwritable(&self, metadata: &Metadata) -> BTreeMap<TopicPartition, String> {
        let mut found = BTreeMap::new();
        for topic in Topic::ALL {
            let name = self.names.topic(topic);
            let described = metadata.topics().iter().find(|it| it.name() == name);
            let partitions = described.map(|it| it.partitions()).unwrap_or_default();
            for number in 0..self.partitions {
                let partition = partitions.iter().find(|it| it.id() == number as i32);
                let why = match partition {
                    None => "does not exist".to_owned(),
                    Some(it) if it.leader() < 0 => "has no leader".to_owned(),
                    Some(it) if it.isr().len() < self.min_insync => format!(
                        "has {} in-sync replicas, but min.insync.replicas is {}",
                        it.isr().len(),
                        self.min_insync
                    ),
                    Some(_) => continue,
                };
                let partition = (topic, Partition(number));
                let what = self.names.describe(partition);
                found.insert(partition, format!("{what} {why}"));
            }
        }
        found
    }
}

fn update(
    interruption: &mut Interruption,
    appender: &Appender,
    brokers: Option<String>,
    partitions: BTreeMap<TopicPartition, String>,
) {
    let why = brokers.as_ref().or_else(|| partitions.values().next());
    match (why, interruption.unavailable) {
        (Some(why), None) => {
            interruption.unavailable = Some(Instant::now());
            let partitions = partitions.len();
            warn!(
                why,
                partitions, "Kafka takes no records; appends are refused"
            );
        }
        (None, Some(since)) => {
            interruption.unavailable = None;
            let seconds = since.elapsed().as_secs();
            info!("Kafka takes records again; recovered after {seconds} s");
        }
        _ => {}
    }
    appender.availability.set(Unavailable {
        brokers,
        partitions,
    });
}
