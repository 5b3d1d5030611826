//! The real program's services over the real engines, each in its own process.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use bytes::Bytes;
use engines::Engines;
use http_body_util::{BodyExt, Empty};
use hyper_util::client::legacy;
use hyper_util::rt::TokioExecutor;
use log_kafka::KafkaLog;
use ports::{EventLog, ReadStore};
use runtime::settings::Service;
use rustix::process::{Pid, Signal, kill_process};
use schemas::codec::Codec;
use schemas::ids::Partition;
use schemas::topics::Topic;
use serde_json::Value;
use store_scylla::ScyllaStore;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::instance::{Ended, free_address, program};

/// Partitions of every topic.
pub const PARTITIONS: u32 = 4;
/// The longest wait for any condition. It is long because the machine may be slow; no test
/// depends on how much of it is used.
pub const PATIENCE: Duration = Duration::from_secs(90);
/// A rehearsal that is long enough to lose a service in the middle.
pub const CROWD: [&str; 8] = [
    "--buyers",
    "6000",
    "--over",
    "18",
    "--products",
    "12",
    "--stock",
    "150",
];

/// Its own topics, keyspace and subjects on the shared engines, and its processes.
pub struct Cluster {
    pub engines: &'static Engines,
    settings: Vec<(&'static str, String)>,
    dir: TempDir,
    prefix: String,
    keyspace: String,
}

/// A process of the program.
pub struct Process {
    service: Service,
    child: Child,
    /// The base URL of its API; for a service without one, that of its operations.
    pub url: String,
    /// The base URL of its listener for operations.
    pub operations: String,
    output: PathBuf,
    command: Vec<(&'static str, String)>,
}

impl Cluster {
    /// A cluster without processes.
    pub async fn new() -> Self {
        let engines = tokio::task::block_in_place(engines::shared);
        let brokers = engines.kafka_brokers().split(',').count();
        let name = format!("t{:08x}", rand::random::<u32>());
        let settings = vec![
            ("KAFKA_BROKERS", engines.kafka_brokers()),
            ("KAFKA_TOPIC_PREFIX", format!("{name}.")),
            ("KAFKA_REPLICATION", brokers.min(3).to_string()),
            ("KAFKA_MIN_INSYNC", brokers.min(2).to_string()),
            ("CQL_NODES", engines.cql_node()),
            ("CQL_KEYSPACE", name.clone()),
            ("CQL_REPLICATION", "1".to_owned()),
            ("REGISTRY_URL", engines.registry_url()),
            ("PARTITIONS", PARTITIONS.to_string()),
            ("RECEIPT_KEY", "5e".repeat(32)),
        ];
        Self {
            engines,
            settings,
            dir: TempDir::new().unwrap(),
            prefix: format!("{name}."),
            keyspace: name,
        }
    }

    /// Sets a variable for the processes that are started from now on.
    pub fn set(&mut self, name: &'static str, value: &str) {
        self.settings.push((name, value.to_owned()));
    }

    /// The prefix of its topics.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Starts a service's process without waiting for it.
    pub fn start(&self, service: Service) -> Process {
        let (address, operations) = (free_address(), free_address());
        let mut settings = self.settings.clone();
        settings.push(("LISTEN", address.clone()));
        settings.push(("OPERATIONS_LISTEN", operations.clone()));
        let number = std::fs::read_dir(self.dir.path()).unwrap().count();
        let name = format!("{}-{number}.log", service.name());
        let output = self.dir.path().join(name);
        File::create(&output).unwrap();
        Process {
            service,
            child: spawn(service, &settings, &output),
            url: match service.has_api() {
                true => format!("http://{address}"),
                false => format!("http://{operations}"),
            },
            operations: format!("http://{operations}"),
            output,
            command: settings,
        }
    }

    /// Starts processes of these services, and waits until all are ready.
    pub async fn ready<const N: usize>(&self, services: [Service; N]) -> [Process; N] {
        let processes = services.map(|service| self.start(service));
        for process in &processes {
            process.becomes_ready().await;
        }
        processes
    }

    /// The program with the cluster's settings in its environment, to run a tool.
    pub fn tool(&self) -> Command {
        let mut command = program();
        command.envs(self.settings.iter().map(variable));
        command
    }

    /// Starts a rehearsal against these two services, which checks every answer by itself.
    pub fn rehearse(&self, command_api: &Process, query_api: &Process, how: &[&str]) -> Rehearsal {
        let report = self.dir.path().join("report.json");
        let output = self.dir.path().join("rehearsal.log");
        let log = File::create(&output).unwrap();
        let mut command = self.tool();
        command
            .args([
                "rehearse",
                "--target",
                &command_api.url,
                "--questions",
                &query_api.url,
            ])
            .args(["--patience", "120", "--json"])
            .arg(&report)
            .args(how)
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        Rehearsal {
            child: Ended(command.spawn().unwrap()),
            report,
            output,
        }
    }

    /// Audits both topics and the read models; everything must hold.
    pub async fn audit(&self) -> Value {
        self.read_models_catch_up().await;
        let summary = self.dir.path().join("audit.json");
        let mut command = self.tool();
        command
            .args(["audit", "--distributed", "--json"])
            .arg(&summary);
        let output = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output = output.await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{text}\n{error}");
        println!("{text}");
        serde_json::from_slice(&std::fs::read(summary).unwrap()).unwrap()
    }

    /// The log, to read what the services appended.
    pub async fn log(&self) -> KafkaLog {
        let brokers = self.engines.kafka_brokers().split(',').count();
        KafkaLog::open(log_kafka::Options {
            brokers: self.engines.kafka_brokers(),
            topic_prefix: self.prefix.clone(),
            partitions: PARTITIONS,
            replication: brokers.min(3) as u32,
            min_insync: brokers.min(2) as u32,
            queue_records: 1_000,
            queue_bytes: 10 << 20,
            append_timeout: Duration::from_secs(8),
            session_timeout: Duration::from_secs(6),
            security: log_kafka::Security::default(),
        })
        .await
        .unwrap()
    }

    /// A codec with the registry's schema ids.
    pub async fn codec(&self) -> Codec {
        let options = registry::Options {
            url: self.engines.registry_url(),
            subject_prefix: self.prefix.clone(),
            ..registry::Options::default()
        };
        registry::connect(&options).await.unwrap()
    }

    /// The read models.
    pub async fn store(&self) -> ScyllaStore {
        let store = ScyllaStore::open(store_scylla::Options {
            nodes: vec![self.engines.cql_node()],
            keyspace: self.keyspace.clone(),
            datacenter: None,
            replication: 1,
            username: None,
            password: None,
            tls: None,
            max_in_flight: 64,
        })
        .unwrap();
        store.ready(PATIENCE).await.unwrap();
        store
    }

    /// Waits until the read models have all of `stock-decisions`.
    pub async fn read_models_catch_up(&self) {
        let (log, store) = (self.log().await, self.store().await);
        eventually("the read models catch up", async || {
            let progress = store.progress().await.ok()?;
            for partition in (0..PARTITIONS).map(Partition) {
                let end = log.end(Topic::StockDecisions, partition).await.ok()?;
                let next = progress.get(&partition).map_or(0, |at| at.next.0);
                (next >= end.0).then_some(())?;
            }
            Some(())
        })
        .await;
        log.close().await;
    }
}

impl Process {
    /// Waits until `/readyz` reports ready.
    pub async fn becomes_ready(&self) {
        let ready = async || {
            let (status, _) = self.health().await?;
            (status == 200).then_some(())
        };
        if tokio::time::timeout(PATIENCE, until(ready)).await.is_err() {
            let health = self.health().await;
            panic!(
                "{} is not ready: {health:?}\n{}",
                self.service.name(),
                self.output()
            );
        }
    }

    /// Status and body of `/readyz`; none when it does not answer.
    pub async fn health(&self) -> Option<(u16, Value)> {
        let (status, body) = get(&format!("{}/readyz", self.operations)).await?;
        Some((status, serde_json::from_slice(&body).ok()?))
    }

    /// Waits until `/healthz` reports that only an operator can mend it, for this reason.
    pub async fn needs_an_operator(&self, reason: &str) {
        let what = format!("{} needs an operator: {reason}", self.service.name());
        eventually(&what, async || {
            let (status, body) = get(&format!("{}/healthz", self.operations)).await?;
            let body = String::from_utf8(body.to_vec()).unwrap();
            (status == 503 && body.contains(reason)).then_some(())
        })
        .await;
    }

    /// The partitions it works on, from `/readyz`; none when it does not answer.
    pub async fn partitions(&self) -> BTreeSet<Partition> {
        let Some((_, health)) = self.health().await else {
            return BTreeSet::new();
        };
        let components = health["components"].as_array().unwrap().iter();
        let partition = |component: &Value| {
            let name = component["name"].as_str()?;
            let number = name.strip_prefix(self.service.name())?;
            Some(Partition(number.trim().parse().ok()?))
        };
        components.filter_map(partition).collect()
    }

    /// Host and port of its listener.
    pub fn address(&self) -> &str {
        self.url.strip_prefix("http://").unwrap()
    }

    /// The sum of a metric over all its labels.
    pub async fn metric(&self, name: &str) -> f64 {
        let Some((200, body)) = get(&format!("{}/metrics", self.operations)).await else {
            return 0.0;
        };
        let text = String::from_utf8(body.to_vec()).unwrap();
        let of_name = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let figure = rest
                .starts_with(['{', ' '])
                .then(|| rest.rsplit(' ').next())??;
            figure.parse::<f64>().ok()
        });
        of_name.sum()
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGSTOP: it is paused without noticing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    /// SIGCONT.
    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    /// SIGTERM; returns its exit status.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let pid = self.child.id();
        let what = format!("{} {pid} ends after SIGTERM", self.service.name());
        eventually(&what, async || self.child.try_wait().unwrap()).await
    }

    /// Starts it again at the same address, after it has ended.
    pub fn start_again(&mut self) {
        self.child = spawn(self.service, &self.command, &self.output);
    }

    /// Its standard error so far.
    pub fn output(&self) -> String {
        std::fs::read_to_string(&self.output).unwrap()
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id().cast_signed()).unwrap();
        kill_process(pid, signal).unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            let output = self.output();
            let last: Vec<&str> = output.lines().rev().take(40).collect();
            eprintln!("--- the last output of {}:", self.service.name());
            last.iter().rev().for_each(|line| eprintln!("{line}"));
        }
    }
}

/// A running rehearsal.
pub struct Rehearsal {
    child: Ended,
    report: PathBuf,
    output: PathBuf,
}

impl Rehearsal {
    /// Whether it is still running.
    pub fn goes_on(&mut self) -> bool {
        self.child.0.try_wait().unwrap().is_none()
    }

    /// Waits for its end. Every attempt must be answered, and every invariant must hold.
    pub async fn passes(mut self) -> Value {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.0.try_wait().unwrap() {
                break status;
            }
            assert!(
                begun.elapsed() < 10 * PATIENCE,
                "the rehearsal does not end"
            );
            sleep(Duration::from_millis(100)).await;
        };
        let output = std::fs::read_to_string(&self.output).unwrap();
        assert!(status.success(), "{output}");
        println!("{output}");
        serde_json::from_slice(&std::fs::read(&self.report).unwrap()).unwrap()
    }
}

/// Waits until these two share all partitions, each with some of them.
pub async fn share(one: &Process, other: &Process) {
    let what = format!("{} and {} share the partitions", one.url, other.url);
    eventually(&what, async || {
        let (ones, others) = (one.partitions().await, other.partitions().await);
        let each = !ones.is_empty() && !others.is_empty();
        let once = ones.is_disjoint(&others) && ones.len() + others.len() == PARTITIONS as usize;
        (each && once).then_some(())
    })
    .await;
}

/// Waits until a condition holds.
pub async fn eventually<T>(what: &str, probe: impl AsyncFnMut() -> Option<T>) -> T {
    match tokio::time::timeout(PATIENCE, until(probe)).await {
        Ok(it) => it,
        Err(_) => panic!("not in {} s: {what}", PATIENCE.as_secs()),
    }
}

async fn until<T>(mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    loop {
        if let Some(it) = probe().await {
            return it;
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Status and body; none when there is no answer in 5 seconds.
pub async fn get(url: &str) -> Option<(u16, Bytes)> {
    let client: legacy::Client<_, Empty<Bytes>> =
        legacy::Client::builder(TokioExecutor::new()).build_http();
    let exchange = async {
        let response = client.get(url.parse().unwrap()).await.ok()?;
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.ok()?.to_bytes();
        Some((status, body))
    };
    tokio::time::timeout(Duration::from_secs(5), exchange)
        .await
        .ok()?
}

fn spawn(service: Service, settings: &[(&'static str, String)], output: &PathBuf) -> Child {
    let output = File::options().append(true).open(output).unwrap();
    program()
        .arg(service.name())
        .envs(settings.iter().map(variable))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output)
        .spawn()
        .unwrap()
}

fn variable((name, value): &(&'static str, String)) -> (String, String) {
    (format!("DOORBUSTER_{name}"), value.clone())
}
