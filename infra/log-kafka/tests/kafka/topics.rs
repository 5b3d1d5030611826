//! Topics: created with the right settings, and refused with the name of a wrong one.

use log_kafka::{KafkaLog, OpenError, Options, topic_name};
use ports::EventLog;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use schemas::topics::Topic;

use crate::{fresh_options, open};

/// Each checked setting with its right value and a wrong one.
const SETTINGS: [(&str, &str, &str); 8] = [
    ("message.timestamp.type", "LogAppendTime", "CreateTime"),
    ("cleanup.policy", "delete", "compact"),
    ("retention.ms", "-1", "604800000"),
    ("retention.bytes", "-1", "1000000000"),
    ("min.insync.replicas", "2", "1"),
    ("unclean.leader.election.enable", "false", "true"),
    ("max.message.bytes", "1048576", "1000000"),
    ("compression.type", "producer", "gzip"),
];

#[tokio::test(flavor = "multi_thread")]
async fn topics_are_created_once_by_two_logs_that_open_at_the_same_time() {
    let options = fresh_options("create").await;
    let (one, other) = tokio::join!(
        KafkaLog::open(options.clone()),
        KafkaLog::open(options.clone())
    );
    assert_eq!(one.unwrap().partitions(), 2);
    assert_eq!(other.unwrap().partitions(), 2);
    open(&options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wrong_setting_is_refused_by_name() {
    for (name, right, wrong) in SETTINGS {
        let options = Options {
            replication: 3,
            min_insync: 2,
            ..fresh_options("wrong").await
        };
        create(&options, Topic::StockDecisions, 2, 3, Some((name, wrong))).await;
        let refused = KafkaLog::open(options.clone()).await.err();
        let Some(OpenError::Misconfigured {
            topic,
            setting,
            found,
            expected,
            remedy,
        }) = refused
        else {
            panic!("{name}: {refused:?}")
        };
        assert_eq!(
            topic,
            topic_name(&options.topic_prefix, Topic::StockDecisions)
        );
        assert_eq!((setting.as_str(), found.as_str()), (name, wrong));
        assert!(expected.ends_with(right), "{name}: {expected}");
        // The remedy works. Applying one takes long, so only two are tested.
        if ["message.timestamp.type", "min.insync.replicas"].contains(&name) {
            run(&remedy).await;
            open(&options).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_is_changed_while_the_log_is_open_is_found_until_it_is_put_right() {
    let options = fresh_options("changed").await;
    let log = open(&options).await;
    assert_eq!(log.check_topics().await, Ok(()));
    let topic = topic_name(&options.topic_prefix, Topic::StockDecisions);
    for (name, _, wrong) in [SETTINGS[0], SETTINGS[2]] {
        run(&format!(
            "kafka-configs.sh --bootstrap-server {} --alter --entity-type topics --entity-name \
             {topic} --add-config {name}={wrong}",
            options.brokers
        ))
        .await;
        let Err(OpenError::Misconfigured {
            setting,
            found,
            remedy,
            ..
        }) = log.check_topics().await
        else {
            panic!("{name} was not noticed")
        };
        assert_eq!((setting.as_str(), found.as_str()), (name, wrong));
        run(&remedy).await;
        assert_eq!(log.check_topics().await, Ok(()));
    }
}

/// Runs a remedy, which is a call of Kafka's own tool for settings.
async fn run(remedy: &str) {
    let (tool, arguments) = remedy.split_once(' ').unwrap();
    assert_eq!(tool, "kafka-configs.sh");
    let arguments = arguments.to_owned();
    let ran = tokio::task::spawn_blocking(move || {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        let kafka = engines::shared().kafka();
        kafka.tool("kafka.admin.ConfigCommand", &arguments).output()
    });
    let ran = ran.await.unwrap().unwrap();
    assert!(ran.status.success(), "{remedy}: {ran:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_number_of_partitions_is_refused() {
    for there in [1, 3] {
        let options = fresh_options("partitions").await;
        create(&options, Topic::ProductSnapshots, there, 1, None).await;
        let refused = KafkaLog::open(options.clone()).await.err().unwrap();
        let OpenError::Misconfigured {
            setting,
            found,
            expected,
            ..
        } = &refused
        else {
            panic!("{refused:?}")
        };
        let error = (setting.as_str(), found.as_str(), expected.as_str());
        assert_eq!(error, ("partitions", there.to_string().as_str(), "2"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn too_few_replicas_are_refused() {
    let options = fresh_options("replicas").await;
    create(&options, Topic::PurchaseAttempts, 2, 1, None).await;
    let requested = Options {
        replication: 2,
        ..options.clone()
    };
    let refused = KafkaLog::open(requested).await.err().unwrap();
    let OpenError::Misconfigured {
        setting,
        found,
        expected,
        ..
    } = &refused
    else {
        panic!("{refused:?}")
    };
    let error = (setting.as_str(), found.as_str(), expected.as_str());
    assert_eq!(error, ("replication factor", "1", "at least 2"));
    // More replicas than requested are accepted.
    let options = fresh_options("replicas").await;
    create(&options, Topic::PurchaseAttempts, 2, 3, None).await;
    open(&options).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn more_replicas_than_brokers_are_a_passing_failure() {
    let options = Options {
        replication: 9,
        ..fresh_options("brokers").await
    };
    let refused = KafkaLog::open(options).await.err().unwrap();
    let OpenError::Unreachable(why) = &refused else {
        panic!("{refused:?}")
    };
    assert!(why.contains("9 replicas"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unreachable_brokers_are_named() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap().to_string();
    drop(free);
    let options = crate::options(address.clone(), "nowhere-".to_owned());
    let refused = KafkaLog::open(options).await.err().unwrap();
    let OpenError::Unreachable(why) = &refused else {
        panic!("{refused:?}")
    };
    assert!(
        why.contains(&address) && why.contains("Connection refused"),
        "{why}"
    );
}

#[tokio::test]
async fn invalid_options_are_refused() {
    let good = crate::options("127.0.0.1:1".to_owned(), String::new());
    let mut with_space = good.clone();
    with_space.topic_prefix = "a shop-".to_owned();
    let mut login = good.clone();
    login.security.protocol = log_kafka::Protocol::SaslPlaintext;
    login.security.sasl_mechanism = Some("GSSAPI".to_owned());
    let mut anonymous = login.clone();
    anonymous.security.sasl_mechanism = Some("PLAIN".to_owned());
    let mut no_such_file = good.clone();
    no_such_file.security.protocol = log_kafka::Protocol::Ssl;
    no_such_file.security.ca_file = Some("/no/such/file".into());
    let wrong = [
        (
            Options {
                brokers: " ".to_owned(),
                ..good.clone()
            },
            "brokers",
        ),
        (
            Options {
                partitions: 0,
                ..good.clone()
            },
            "partitions",
        ),
        (
            Options {
                min_insync: 2,
                ..good.clone()
            },
            "min_insync",
        ),
        (
            Options {
                queue_records: 0,
                ..good
            },
            "queue_records",
        ),
        (with_space, "topic prefix"),
        (login, "SCRAM-SHA-256"),
        (anonymous, "password"),
        (no_such_file, "/no/such/file"),
    ];
    for (options, named) in wrong {
        let refused = KafkaLog::open(options).await.err().unwrap();
        let OpenError::Options(why) = &refused else {
            panic!("{refused:?}")
        };
        assert!(why.contains(named), "{named}: {why}");
    }
}

#[test]
fn secrets_are_not_shown() {
    let mut options = crate::options("127.0.0.1:1".to_owned(), String::new());
    options.security.key_password = Some("hush".to_owned());
    options.security.sasl_password = Some("hush".to_owned());
    options.security.sasl_username = Some("shop".to_owned());
    let shown = format!("{options:?}");
    assert!(!shown.contains("hush"), "{shown}");
    assert!(
        shown.contains("shop") && shown.contains("hidden"),
        "{shown}"
    );
}

/// Creates a topic with one wrong setting.
async fn create(
    options: &Options,
    topic: Topic,
    partitions: i32,
    replication: i32,
    wrong: Option<(&str, &str)>,
) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &options.brokers)
        .create()
        .unwrap();
    let name = topic_name(&options.topic_prefix, topic);
    let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(replication));
    let new = SETTINGS
        .iter()
        .fold(new, |new, (name, right, _)| match wrong {
            Some((this, wrong)) if this == *name => new.set(name, wrong),
            _ => new.set(name, right),
        });
    // With one replica, 2 is not valid, and the test is about something else.
    let new = if replication == 1 {
        new.set("min.insync.replicas", "1")
    } else {
        new
    };
    for created in admin
        .create_topics([&new], &AdminOptions::new())
        .await
        .unwrap()
    {
        created.unwrap();
    }
}
