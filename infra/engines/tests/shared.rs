//! The engines themselves: they answer, keep their data over a stop, and are shared by all callers. nextest runs
//! one of these tests at a time, since they stop parts that others use.

use std::io::Write;
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use engines::{DIRECTORY_VARIABLE, Engines, Error};
use rustix::process::{Pid, Signal, kill_process};
use scylla::client::session_builder::SessionBuilder;

fn assert_all_answer(engines: &Engines) {
    let parts = engines.status();
    let names: Vec<_> = parts.iter().map(|part| part.name.as_str()).collect();
    assert_eq!(
        names,
        ["kafka-1", "kafka-2", "kafka-3", "cassandra", "registry"]
    );
    for part in parts {
        assert!(part.pid.is_some(), "{} does not run", part.name);
        assert_eq!(part.problem, None, "{}", part.name);
    }
}

/// The standard output of one of Kafka's tools.
fn tool(engines: &Engines, main_class: &str, arguments: &[&str], input: &str) -> String {
    let brokers = engines.kafka_brokers();
    let arguments = [&["--bootstrap-server", &brokers], arguments].concat();
    let mut command = engines.kafka().tool(main_class, &arguments);
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let pid = Pid::from_child(&child);
    child
        .stdin
        .take()
        .unwrap()
        .write_all(input.as_bytes())
        .unwrap();
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output().unwrap()));
    // A producer, for example, retries for minutes.
    let output = receiver
        .recv_timeout(Duration::from_secs(180))
        .unwrap_or_else(|_| {
            kill_process(pid, Signal::KILL).unwrap();
            panic!("{main_class} {arguments:?} did not end within 180 s")
        });
    let Output {
        status,
        stdout,
        stderr,
    } = output;
    let stderr = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{main_class} {arguments:?}: {stderr}");
    String::from_utf8(stdout).unwrap()
}

fn create_topic(engines: &Engines, topic: &str) {
    let create = ["--create", "--topic", topic, "--partitions", "3"];
    tool(engines, "org.apache.kafka.tools.TopicCommand", &create, "");
}

fn produce(engines: &Engines, topic: &str, records: &[String]) {
    let class = "org.apache.kafka.tools.ConsoleProducer";
    let arguments = ["--topic", topic, "--command-property", "acks=all"];
    tool(engines, class, &arguments, &(records.join("\n") + "\n"));
}

/// The first `count` records of a topic, sorted.
fn consume(engines: &Engines, topic: &str, count: usize) -> Vec<String> {
    let class = "org.apache.kafka.tools.consumer.ConsoleConsumer";
    let count = count.to_string();
    let from = ["--topic", topic, "--from-beginning"];
    let until = ["--max-messages", &count, "--timeout-ms", "60000"];
    let output = tool(engines, class, &[&from[..], &until].concat(), "");
    let mut records: Vec<_> = output.lines().map(str::to_owned).collect();
    records.sort();
    records
}

/// Records that sort by their number.
fn records(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers
        .map(|number| format!("record-{number:05}"))
        .collect()
}

#[test]
fn all_callers_get_the_same_set_and_all_parts_answer() {
    let call = || thread::spawn(|| engines::shared().dir().to_owned());
    let dirs = [call(), call()].map(|thread| thread.join().unwrap());
    let shared = engines::shared();
    assert_eq!(dirs, [shared.dir(), shared.dir()]);
    assert_all_answer(shared);
    let settings = shared.settings();
    let setting = |name| {
        let found = settings.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| value.as_str()).unwrap()
    };
    assert_eq!(setting("DOORBUSTER_KAFKA_BROKERS"), shared.kafka_brokers());
    assert_eq!(setting("DOORBUSTER_KAFKA_BROKERS").split(',').count(), 3);
    assert_eq!(setting("DOORBUSTER_KAFKA_REPLICATION"), "3");
    assert_eq!(setting("DOORBUSTER_KAFKA_MIN_INSYNC"), "2");
    assert_eq!(setting("DOORBUSTER_CQL_NODES"), shared.cql_node());
    assert_eq!(setting("DOORBUSTER_REGISTRY_URL"), shared.registry_url());
}

/// Another process, which is this test program with a single test, gets the set from its environment.
#[test]
fn another_process_attaches_to_the_set() {
    let shared = engines::shared();
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "attached", "--ignored", "--nocapture"])
        .env(DIRECTORY_VARIABLE, shared.dir())
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}");
    assert!(stdout.contains(&shared.kafka_brokers()), "{stdout}");
    // The end of the other process does not affect the set.
    assert_all_answer(shared);
}

/// The other process of the test above: it restarts a part of a set that it did not start.
#[test]
#[ignore = "run by another_process_attaches_to_the_set"]
fn attached() {
    let shared = engines::shared();
    println!("{}", shared.kafka_brokers());
    shared.registry().stop().unwrap();
    shared.registry().start().unwrap();
    assert_all_answer(shared);
}

#[test]
fn a_cluster_works_without_one_broker_and_takes_it_back() {
    let shared = engines::shared();
    let kafka = shared.kafka();
    let topic = "without-one-broker";
    create_topic(shared, topic);
    produce(shared, topic, &records(0..100));
    let pid = |name: &str| {
        let parts = shared.status();
        parts
            .into_iter()
            .find(|part| part.name == name)
            .unwrap()
            .pid
    };
    let before = pid("kafka-1");
    kafka.kill(1).unwrap();
    assert_eq!(pid("kafka-1"), None);
    produce(shared, topic, &records(100..200));
    assert_eq!(consume(shared, topic, 200), records(0..200));
    kafka.start(1).unwrap();
    assert_ne!(pid("kafka-1"), before);
    assert_all_answer(shared);
    assert!(matches!(
        kafka.kill(4),
        Err(Error::NoBroker {
            number: 4,
            brokers: 3
        })
    ));
    assert!(matches!(
        kafka.start(0),
        Err(Error::NoBroker { number: 0, .. })
    ));
}

#[test]
fn records_survive_a_kill_of_all_brokers_at_once() {
    let shared = engines::shared();
    let topic = "all-brokers-at-once";
    create_topic(shared, topic);
    produce(shared, topic, &records(0..1000));
    shared.kafka().restart_all().unwrap();
    assert_all_answer(shared);
    produce(shared, topic, &records(1000..1100));
    assert_eq!(consume(shared, topic, 1100), records(0..1100));
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_survive_a_stop_of_cassandra() {
    let shared = engines::shared();
    let node = shared.cql_node();
    let session = SessionBuilder::new()
        .known_node(&node)
        .build()
        .await
        .unwrap();
    for statement in [
        "CREATE KEYSPACE kept WITH replication = \
         {'class': 'NetworkTopologyStrategy', 'replication_factor': 1}",
        "CREATE TABLE kept.rows (id int PRIMARY KEY, word text)",
        "INSERT INTO kept.rows (id, word) VALUES (1, 'still here')",
    ] {
        session.query_unpaged(statement, ()).await.unwrap();
    }
    shared.cassandra().stop().unwrap();
    assert!(
        SessionBuilder::new()
            .known_node(&node)
            .build()
            .await
            .is_err()
    );
    shared.cassandra().start().unwrap();
    assert_all_answer(shared);
    let session = SessionBuilder::new()
        .known_node(&node)
        .build()
        .await
        .unwrap();
    let answer = session
        .query_unpaged("SELECT id, word FROM kept.rows", ())
        .await
        .unwrap();
    let row = answer
        .into_rows_result()
        .unwrap()
        .single_row::<(i32, String)>()
        .unwrap();
    assert_eq!(row, (1, "still here".to_owned()));
}

#[test]
fn schemas_survive_a_stop_of_the_registry() {
    let shared = engines::shared();
    let url = shared.registry_url();
    let schema = r#"{"schema": "{\"type\": \"string\"}"}"#;
    let version = "/subjects/kept-value/versions";
    let id = http("POST", &url, version, schema);
    assert!(id.starts_with("{\"id\":"), "{id}");
    shared.registry().stop().unwrap();
    shared.registry().start().unwrap();
    let kept = http("GET", &url, "/subjects/kept-value/versions/1", "");
    assert!(
        kept.contains(id.trim_matches(['{', '}'])),
        "{id}, then {kept}"
    );
}

/// The body of the registry's answer.
fn http(method: &str, url: &str, path: &str, body: &str) -> String {
    use std::io::Read;
    let (address, api) = url
        .strip_prefix("http://")
        .unwrap()
        .split_once('/')
        .unwrap();
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    let request = format!(
        "{method} /{api}{path} HTTP/1.0\r\nhost: {address}\r\ncontent-length: {}\r\n\
         content-type: application/vnd.schemaregistry.v1+json\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    body.to_owned()
}
