//! The files of a deployment: the compose file, compared with the program and with what the tests run, and
//! the proxy's settings, tried with the real proxy.

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use serde_json::Value;
use support::{PATIENCE, Process, doorbuster, python, wait_until};

const SERVICES: [&str; 4] = ["command-api", "decider", "projector", "query-api"];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn deployment(file: &str) -> String {
    fs::read_to_string(root().join("infra/deploy").join(file)).unwrap()
}

/// The services of the compose file, by name, with anchors resolved.
fn composed() -> BTreeMap<String, Value> {
    let mut file = python::yaml(&root().join("infra/deploy/compose.yaml"));
    serde_json::from_value(file["services"].take()).unwrap()
}

/// The services of the compose file that run the program: name, command, and what it has.
fn instances() -> Vec<(String, String, Value)> {
    let ours = composed().into_iter().filter_map(|(name, service)| {
        let command = service["command"].as_str()?.to_owned();
        (service["image"] == "doorbuster").then_some((name, command, service))
    });
    ours.collect()
}

#[test]
fn every_service_has_settings_and_secrets_that_it_uses_and_no_others() {
    let instances = instances();
    for command in SERVICES {
        let output = doorbuster().args([command, "--help"]).output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        let uses = |setting: &str| help.contains(&format!("DOORBUSTER_{setting}"));
        let of_command = instances.iter().filter(|(_, it, _)| it == command);
        let mut count = 0;
        for (name, _, service) in of_command {
            count += service["deploy"]["replicas"].as_u64().unwrap_or(1);
            let settings = service["environment"].as_object().unwrap();
            for setting in settings.keys() {
                let setting = setting.strip_prefix("DOORBUSTER_").unwrap();
                assert!(uses(setting), "{name} does not use {setting}");
            }
            for secret in ["ADMIN_TOKEN", "RECEIPT_KEY"] {
                let given = settings.contains_key(&format!("DOORBUSTER_{secret}"));
                assert_eq!(given, uses(secret), "{secret} of {name}");
            }
        }
        assert!(count >= 2, "{count} instances of {command}");
    }
}

#[test]
fn health_is_asked_for_where_the_service_answers() {
    let proxy = deployment("Caddyfile");
    for (name, _, service) in instances() {
        let port_of = |setting: &str| {
            let address = service["environment"][setting].as_str()?;
            address.rsplit(':').next().map(str::to_owned)
        };
        let operations = port_of("DOORBUSTER_OPERATIONS_LISTEN").unwrap();
        let probe = service["healthcheck"]["test"].as_array().unwrap().last();
        let expected = format!("http://127.0.0.1:{operations}/readyz");
        assert_eq!(probe.unwrap().as_str().unwrap(), expected, "{name}");
        let is_proxied = name.starts_with("command-api") || name.starts_with("query-api");
        let port = port_of("DOORBUSTER_LISTEN");
        assert_eq!(port.is_some(), is_proxied, "{name} has an API");
        if let Some(port) = port {
            assert!(proxy.contains(&format!(" {name}:{port} ")), "{name}");
            assert!(
                proxy.contains(&format!("\thealth_port {operations}\n")),
                "{name}"
            );
        }
    }
}

/// The version of an artifact in a pom of `infra/engines/maven`.
fn tested(pom: &str, artifact: &str) -> String {
    let pom = fs::read_to_string(root().join("infra/engines/maven").join(pom)).unwrap();
    let (_, after) = pom
        .split_once(&format!("<artifactId>{artifact}</artifactId>"))
        .unwrap();
    let (_, version) = after.split_once("<version>").unwrap();
    version.split_once("</version>").unwrap().0.to_owned()
}

#[test]
fn images_are_the_versions_that_the_tests_run() {
    let kafka = tested("kafka.pom.xml", "kafka_2.13");
    let registry = tested("registry.pom.xml", "apicurio-registry-app");
    let cassandra = tested("cassandra.pom.xml", "cassandra-all");
    let images: BTreeSet<String> = composed()
        .values()
        .map(|service| service["image"].as_str().unwrap().to_owned())
        .collect();
    let expected = [
        format!("apache/kafka:{kafka}"),
        format!("apicurio/apicurio-registry-kafkasql:{registry}"),
        format!("caddy:{}", proxy_version()),
        "doorbuster".to_owned(),
        // In no registry of packages: the tests run Cassandra in its place.
        "scylladb/scylla:2025.4".to_owned(),
    ];
    assert_eq!(images, BTreeSet::from(expected));
    let text = deployment("compose.yaml").replace("\n#", "");
    assert!(text.contains(&format!(
        "Apache Cassandra {cassandra} in place of ScyllaDB"
    )));
    let toolchain = fs::read_to_string(root().join("rust-toolchain.toml")).unwrap();
    let compiler = toolchain.split('"').nth(1).unwrap();
    assert!(deployment("Dockerfile").contains(&format!("FROM rust:{compiler}-bookworm")));
}

#[test]
fn the_image_runs_as_a_numeric_user_and_is_built_from_sources_alone() {
    let users = deployment("Dockerfile");
    let users: Vec<_> = users
        .lines()
        .filter_map(|line| line.strip_prefix("USER "))
        .collect();
    assert_eq!(users, ["65532:65532"]);

    let ignored = fs::read_to_string(root().join(".dockerignore")).unwrap();
    let mut lines = ignored
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    assert_eq!(lines.next(), Some("*"), "what is not named is left out");
    let taken: BTreeSet<_> = lines.filter_map(|line| line.strip_prefix('!')).collect();
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let (_, members) = manifest.split_once("members = [").unwrap();
    let members = members
        .split_once(']')
        .unwrap()
        .0
        .split('"')
        .skip(1)
        .step_by(2);
    for member in members.chain(["Cargo.toml", "Cargo.lock", "rust-toolchain.toml"]) {
        let top = member.split('/').next().unwrap();
        assert!(taken.contains(top), "{member} is not in the image's build");
    }
}

/// The proxy that `tests/tools.sh` installs, else one on the path.
fn proxy() -> Command {
    let installed = root().join("target/tools/bin/caddy");
    match installed.exists() {
        true => Command::new(installed),
        false => Command::new("caddy"),
    }
}

fn proxy_version() -> String {
    let output = proxy().arg("version").output().unwrap_or_else(|error| {
        panic!("the proxy's settings are tried with Caddy ({error}): tests/quick installs it")
    });
    let text = String::from_utf8(output.stdout).unwrap();
    let version = text.split_whitespace().next().unwrap();
    version.trim_start_matches('v').to_owned()
}

/// A service behind the proxy. It answers every request with its name.
struct Upstream {
    is_ready: AtomicBool,
    /// It reads requests and closes their connections without an answer.
    is_dying: AtomicBool,
    /// It accepts no more connections.
    is_gone: AtomicBool,
    address: SocketAddr,
    /// Requests go here, with the name.
    requests: Sender<(&'static str, String)>,
}

impl Upstream {
    /// Serves on a listener until it is gone.
    fn serve(self: Arc<Self>, name: &'static str, listener: TcpListener) {
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if self.is_gone.load(Ordering::SeqCst) {
                    return;
                }
                // It fails when the proxy has gone.
                let _ = self.answer(name, stream);
            }
        });
    }

    /// Closes its port for requests.
    fn leave(&self) {
        self.is_gone.store(true, Ordering::SeqCst);
        wait_until("its port is closed", || {
            TcpStream::connect(self.address).is_err().then_some(())
        });
    }

    fn answer(&self, name: &'static str, mut stream: TcpStream) -> std::io::Result<()> {
        let mut head = String::new();
        let mut lines = BufReader::new(stream.try_clone()?);
        while !head.ends_with("\r\n\r\n") {
            if lines.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let line = head.lines().next().unwrap_or_default();
        let line = line.trim_end_matches(" HTTP/1.1");
        let is_operation = stream.local_addr()?.port() != self.address.port();
        let status = if is_operation && line == "GET /readyz" {
            match self.is_ready.load(Ordering::SeqCst) {
                true => "200 OK",
                false => "503 Service Unavailable",
            }
        } else {
            let _ = self.requests.send((name, line.to_owned()));
            if self.is_dying.load(Ordering::SeqCst) {
                return Ok(());
            }
            "200 OK"
        };
        let length = name.len();
        write!(
            stream,
            "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{name}"
        )
    }
}

const UPSTREAMS: [&str; 4] = [
    "command-api-1",
    "command-api-2",
    "query-api-1",
    "query-api-2",
];

/// A listener for each service, on an address of its own and all on one port, as in containers.
fn same_port() -> Vec<TcpListener> {
    let bind = |number: usize, port: u16| TcpListener::bind((format!("127.0.0.{number}"), port));
    loop {
        let first = bind(11, 0).unwrap();
        let port = first.local_addr().unwrap().port();
        let others = (12..11 + UPSTREAMS.len()).map(|number| bind(number, port));
        // Another program may have the port on one of them.
        if let Ok(others) = others.collect::<Result<Vec<_>, _>>() {
            return std::iter::once(first).chain(others).collect();
        }
    }
}

/// The proxy with the deployment's settings, in front of services of the test.
struct Deployment {
    _proxy: Process,
    shoppers: SocketAddr,
    sellers: SocketAddr,
    upstreams: BTreeMap<&'static str, Arc<Upstream>>,
    requests: Receiver<(&'static str, String)>,
}

impl Deployment {
    fn start() -> Self {
        let free = || {
            TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap()
        };
        let (shoppers, sellers) = (free(), free());
        let adapted = proxy()
            .args(["adapt", "--config"])
            .arg(root().join("infra/deploy/Caddyfile"))
            .output()
            .unwrap();
        let errors = String::from_utf8_lossy(&adapted.stderr);
        assert!(adapted.status.success(), "{errors}");
        let mut settings = String::from_utf8(adapted.stdout).unwrap();
        settings = settings.replace(r#"":8080""#, &format!(r#""{shoppers}""#));
        settings = settings.replace(r#"":8081""#, &format!(r#""{sellers}""#));

        let (sender, requests) = channel();
        let mut upstreams = BTreeMap::new();
        let services = UPSTREAMS.into_iter().zip(same_port()).zip(same_port());
        for ((name, listener), operations) in services {
            let address = listener.local_addr().unwrap();
            let port = operations.local_addr().unwrap().port();
            settings = settings.replace(r#""port":9080,"#, &format!(r#""port":{port},"#));
            let upstream = Arc::new(Upstream {
                is_ready: AtomicBool::new(true),
                is_dying: AtomicBool::new(false),
                is_gone: AtomicBool::new(false),
                address,
                requests: sender.clone(),
            });
            settings = settings.replace(&format!("{name}:8080"), &address.to_string());
            upstream.clone().serve(name, listener);
            upstream.clone().serve(name, operations);
            upstreams.insert(name, upstream);
        }
        let mut child = proxy()
            .args(["run", "--config", "-"])
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(settings.as_bytes())
            .unwrap();
        let deployment = Self {
            _proxy: Process(child),
            shoppers,
            sellers,
            upstreams,
            requests,
        };
        for address in [shoppers, sellers] {
            wait_until("the proxy listens", || TcpStream::connect(address).ok());
        }
        deployment
    }

    /// The answer to a request, and the services that got it.
    fn call(&self, to: SocketAddr, request: &str) -> (String, Vec<&'static str>) {
        let mut stream = TcpStream::connect(to).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let head = "host: shop\r\nconnection: close\r\ncontent-length: 0";
        write!(stream, "{request} HTTP/1.1\r\n{head}\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        (
            answer,
            self.requests.try_iter().map(|(name, _)| name).collect(),
        )
    }

    /// Sends requests until ten in a row got the expected answer from these services.
    fn until_answered_by(&self, request: &str, expected: &[&str]) {
        wait_until(&format!("{request} is answered by {expected:?}"), || {
            let answered = (0..10).all(|_| {
                let (answer, by) = self.call(self.shoppers, request);
                let by_expected = by.iter().all(|name| expected.contains(name));
                answer.starts_with("HTTP/1.1 200") && by.len() == 1 && by_expected
            });
            answered.then_some(())
        });
    }
}

const ORDER: &str = "POST /api/flash-sales/boot/order";
const ATTEMPT: &str = "GET /api/attempts/a?wait=10";

#[test]
fn the_proxy_serves_shoppers_and_keeps_internal_paths_closed() {
    let deployment = Deployment::start();
    deployment.until_answered_by(ORDER, &["command-api-1", "command-api-2"]);
    deployment.until_answered_by(ATTEMPT, &["query-api-1", "query-api-2"]);
    for request in [
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET //metrics",
        "PUT /api/admin/flash-sales/boot",
        "POST /api/admin/flash-sales/boot/open",
        "POST /api/%61dmin/flash-sales/boot/open",
        "POST /api//admin/flash-sales/boot/open",
        "POST /API/ADMIN/flash-sales/boot/open",
    ] {
        let (answer, by) = deployment.call(deployment.shoppers, request);
        assert!(answer.starts_with("HTTP/1.1 404"), "{request}: {answer}");
        assert!(
            answer.contains("application/problem+json"),
            "{request}: {answer}"
        );
        assert!(by.is_empty(), "{request} reached {by:?}");
    }
    let request = "PUT /api/admin/flash-sales/boot";
    let (answer, by) = deployment.call(deployment.sellers, request);
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(by[0].starts_with("command-api"), "{by:?}");
}

#[test]
fn the_proxy_follows_readiness_and_repeats_only_what_is_safe() {
    let deployment = Deployment::start();
    let upstreams = &deployment.upstreams;
    upstreams["command-api-1"]
        .is_ready
        .store(false, Ordering::SeqCst);
    upstreams["query-api-2"]
        .is_ready
        .store(false, Ordering::SeqCst);
    deployment.until_answered_by(ORDER, &["command-api-2"]);
    deployment.until_answered_by(ATTEMPT, &["query-api-1"]);
    upstreams["query-api-2"]
        .is_ready
        .store(true, Ordering::SeqCst);
    wait_until("query-api-2 is used again", || {
        let (_, by) = deployment.call(deployment.shoppers, ATTEMPT);
        (by == ["query-api-2"]).then_some(())
    });

    // A query whose connection breaks is sent to the other one.
    upstreams["query-api-1"]
        .is_dying
        .store(true, Ordering::SeqCst);
    wait_until("a query was tried at both", || {
        let (answer, by) = deployment.call(deployment.shoppers, ATTEMPT);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        (by.len() > 1).then_some(())
    });
    // A command that was not sent is sent to the other one, before the proxy has noticed.
    upstreams["command-api-1"]
        .is_ready
        .store(true, Ordering::SeqCst);
    deployment.until_answered_by(ORDER, &["command-api-1", "command-api-2"]);
    upstreams["command-api-1"].leave();
    for _ in 0..10 {
        let (answer, by) = deployment.call(deployment.shoppers, ORDER);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(by, ["command-api-2"]);
    }
    // Nobody knows what became of one that was sent: the client repeats it.
    upstreams["command-api-2"]
        .is_dying
        .store(true, Ordering::SeqCst);
    let (answer, by) = deployment.call(deployment.shoppers, ORDER);
    assert!(answer.starts_with("HTTP/1.1 502"), "{answer}");
    assert!(answer.contains("Retry-After: 1"), "{answer}");
    assert!(answer.contains("application/problem+json"), "{answer}");
    assert_eq!(by.len(), 1, "the command was sent once");
}
