//! All services in one process: a sale from order to answer, restarts, the description of the
//! routes compared with the routes, and how the process starts and ends.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use doorbuster::instance::Instance;
use doorbuster::{file_limit, serve};
use runtime::drain::Drain;
use runtime::settings::{Flags, Service, Settings};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// How long anything that must happen is waited for. It is long, since the machine may be slow; no test
/// passes or fails by how much of it is used.
const PATIENCE: Duration = Duration::from_secs(60);

/// Linux's flag of `open` not to wait.
const O_NONBLOCK: i32 = 0o4000;

const TOKEN: &str = "let-me-in";
const ADMIN: &str = "authorization: Bearer let-me-in\r\n";
const BUYER: &str = "x-buyer-id: b-1\r\n";

fn settings(data_dir: &Path) -> Settings {
    let flags = Flags::default()
        .with("listen", "127.0.0.1:0")
        .with("data_dir", data_dir.to_str().unwrap())
        .with("admin_token", TOKEN)
        .with("drain_grace_seconds", "5");
    Settings::from_sources(Service::Serve, &flags, []).unwrap()
}

async fn start(data_dir: &Path) -> Instance {
    let running = try_start(data_dir).await.unwrap();
    until_ready(running.address()).await;
    running
}

async fn try_start(data_dir: &Path) -> anyhow::Result<Instance> {
    let settings = settings(data_dir);
    let drain = Drain::new(settings.drain_grace);
    serve::start(settings, drain).await
}

async fn until_ready(address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, report) = call(address, "GET", "/readyz", "", "").await;
        if status == 200 {
            return;
        }
        assert!(Instant::now() < deadline, "not ready in time: {report}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// Status and body of a request on its own connection.
async fn call(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n\
         content-type: application/json\r\n{headers}\r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    let read = stream.read_to_end(&mut bytes);
    timeout(PATIENCE, read)
        .await
        .expect("an answer within 20 s")
        .unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let status = text
        .get(9..12)
        .and_then(|status| status.parse().ok())
        .unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    (
        status,
        serde_json::from_str(body).unwrap_or_else(|_| body.into()),
    )
}

fn sale(stock: u32) -> String {
    let price = json!({"minor": 100, "currency": "EUR"});
    json!({"name": "Boot", "price": price, "stock": stock}).to_string()
}

#[tokio::test]
async fn acknowledged_attempts_are_answered_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let at = running.address();
    let put = call(at, "PUT", "/api/admin/flash-sales/boot", ADMIN, &sale(1)).await;
    assert_eq!(put.0, 202, "{}", put.1);

    let mut attempts = Vec::new();
    for _ in 0..2 {
        let order = "/api/flash-sales/boot/order";
        let (status, taken) = call(at, "POST", order, BUYER, r#"{"quantity":1}"#).await;
        assert_eq!(status, 202, "{taken}");
        attempts.push(format!(
            "/api/attempts/{}?wait=5",
            taken["attempt_id"].as_str().unwrap()
        ));
    }
    let mut answers = Vec::new();
    for attempt in &attempts {
        answers.push(call(at, "GET", attempt, "", "").await);
    }
    assert_eq!(
        (&answers[0].1["status"], &answers[1].1["status"]),
        (&json!("sold"), &json!("refused"))
    );
    let sales = call(at, "GET", "/api/flash-sales", "", "").await.1;
    let ids: Vec<_> = sales["sales"]
        .as_array()
        .unwrap()
        .iter()
        .map(|sale| &sale["product_id"])
        .collect();
    assert_eq!(ids, ["boot", "demo-sneaker"]);
    let demo = "/api/flash-sales/demo-sneaker";
    let opens_at = call(at, "GET", demo, "", "").await.1["opens_at"].clone();

    // Acknowledged, but perhaps not decided yet when the drain starts.
    let order = "/api/flash-sales/boot/order";
    let (_, last) = call(at, "POST", order, BUYER, r#"{"quantity":1}"#).await;
    running.shutdown().await.unwrap();

    let running = start(dir.path()).await;
    let at = running.address();
    for (attempt, answer) in attempts.iter().zip(&answers) {
        assert_eq!(&call(at, "GET", attempt, "", "").await, answer);
    }
    let last = format!(
        "/api/attempts/{}?wait=5",
        last["attempt_id"].as_str().unwrap()
    );
    assert_eq!(call(at, "GET", &last, "", "").await.1["status"], "refused");
    let (_, again) = call(at, "GET", demo, "", "").await;
    assert!(opens_at.is_string());
    assert_eq!(again["opens_at"], opens_at, "the demo sale is created once");
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_trace_leads_from_the_request_to_its_outcome() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let at = running.address();
    let put = call(at, "PUT", "/api/admin/flash-sales/boot", ADMIN, &sale(1)).await;
    assert_eq!(put.0, 202, "{}", put.1);

    let ordered_in = "0af7651916cd43dd8448eb211c80319c";
    let cancelled_in = "4bf92f3577b34da6a3ce929d0e0e4736";
    let order = "/api/flash-sales/boot/order";
    let traced = |trace: &str| {
        format!(
            "{BUYER}traceparent: 00-{trace}-b9c7c989f97918e1-01\r\ntracestate: congo=t61rcWkgMzE\r\n"
        )
    };
    let one = r#"{"quantity":1}"#;
    let (_, taken) = call(at, "POST", order, &traced(ordered_in), one).await;
    let id = taken["attempt_id"].as_str().unwrap().to_owned();
    let (_, refused) = call(at, "POST", order, BUYER, one).await;
    let refused = refused["attempt_id"].as_str().unwrap().to_owned();
    let (_, sold) = call(at, "GET", &format!("/api/attempts/{id}?wait=5"), "", "").await;
    assert_eq!(
        (&sold["status"], &sold["trace_id"]),
        (&json!("sold"), &json!(ordered_in))
    );
    let path = format!("/api/attempts/{refused}?wait=5");
    let (_, other) = call(at, "GET", &path, "", "").await;
    assert_eq!(other["status"], "refused");
    assert_eq!(
        other.get("trace_id"),
        None,
        "there is no trace id without a trace"
    );

    let cancel = format!("{order}/{id}/cancel");
    let (_, taken) = call(at, "POST", &cancel, &traced(cancelled_in), "").await;
    let position = &taken["position"];
    let at_least = format!("{}:{}", position["partition"], position["offset"]);
    let path = format!("/api/attempts/{id}?at_least={at_least}");
    let (_, cancelled) = call(at, "GET", &path, "", "").await;
    let expected = (&json!("cancelled"), &json!(cancelled_in));
    assert_eq!((&cancelled["status"], &cancelled["trace_id"]), expected);
    let path = format!("/api/buyers/me/orders?at_least={at_least}");
    let (_, mine) = call(at, "GET", &path, BUYER, "").await;
    assert_eq!(mine["orders"][0]["trace_id"], cancelled_in, "{mine}");

    // After a restart only the store has the answer.
    running.shutdown().await.unwrap();
    let running = start(dir.path()).await;
    let path = format!("/api/attempts/{id}");
    let (_, stored) = call(running.address(), "GET", &path, "", "").await;
    assert_eq!((&stored["status"], &stored["trace_id"]), expected);
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_data_directory_belongs_to_one_process() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let error = try_start(dir.path())
        .await
        .err()
        .expect("the directory is in use");
    let text = format!("{error:#}");
    assert!(
        text.contains("in use") && text.contains(dir.path().to_str().unwrap()),
        "{text}"
    );
    running.shutdown().await.unwrap();
    start(dir.path()).await.shutdown().await.unwrap();
}

#[tokio::test]
async fn every_described_route_exists_and_answers_as_described() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let at = running.address();
    let (status, description) = call(at, "GET", "/openapi.json", "", "").await;
    assert_eq!(status, 200);
    let mut described = 0;
    for (template, operations) in description["paths"].as_object().unwrap() {
        let path = template
            .replace("{product_id}", "demo-sneaker")
            .replace("{attempt_id}", "0188bb5c-0000-4000-8000-000000000001");
        for (method, operation) in operations.as_object().unwrap() {
            described += 1;
            let method = method.to_uppercase();
            for (headers, body) in [("", ""), (BUYER, "{}"), (ADMIN, r#"{"quantity":1}"#)] {
                let (status, answer) = call(at, &method, &path, headers, body).await;
                let case = format!("{method} {template} with {headers:?} {body}: {answer}");
                let code = answer["code"].as_str().unwrap_or_default();
                assert!(
                    !["not_found", "method_not_allowed", "internal"].contains(&code),
                    "{case}"
                );
                assert!(
                    operation["responses"].get(status.to_string()).is_some(),
                    "{status} {case}"
                );
            }
            let (status, _) = call(at, "TRACE", &path, "", "").await;
            assert_eq!(status, 405, "TRACE {template}");
        }
    }
    let expected = [
        ("post", "/api/flash-sales/{product_id}/order"),
        (
            "post",
            "/api/flash-sales/{product_id}/order/{attempt_id}/cancel",
        ),
        ("put", "/api/admin/flash-sales/{product_id}"),
        ("post", "/api/admin/flash-sales/{product_id}/open"),
        ("post", "/api/admin/flash-sales/{product_id}/pause"),
        ("post", "/api/admin/flash-sales/{product_id}/close"),
        ("post", "/api/admin/flash-sales/{product_id}/stock"),
        ("get", "/api/flash-sales"),
        ("get", "/api/flash-sales/{product_id}"),
        ("get", "/api/flash-sales/{product_id}/intents"),
        ("get", "/api/buyers/me/orders"),
        ("get", "/api/attempts/{attempt_id}"),
        ("get", "/healthz"),
        ("get", "/readyz"),
        ("get", "/metrics"),
    ];
    for (method, path) in expected {
        assert!(
            description["paths"][path].get(method).is_some(),
            "{method} {path} is not described"
        );
    }
    for (method, path) in &expected[..7] {
        let parameters = description["paths"][path][method]["parameters"].as_array();
        let named = |name| parameters.unwrap().iter().any(|it| it["name"] == name);
        assert!(
            named("traceparent") && named("tracestate"),
            "the trace of {method} {path} is not described"
        );
    }
    assert_eq!(
        described,
        expected.len(),
        "{:?}",
        description["paths"].as_object().unwrap().keys()
    );
    let schemas = &description["components"]["schemas"];
    assert!(
        schemas["Problem"]["properties"]["retry"].is_object(),
        "{schemas}"
    );
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn unknown_routes_are_problems_and_the_drain_ends_long_polls() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let at = running.address();
    assert_eq!(
        call(at, "GET", "/nowhere", "", "").await.1["code"],
        "not_found"
    );
    assert_eq!(
        call(at, "DELETE", "/api/flash-sales", "", "").await.1["code"],
        "method_not_allowed"
    );
    assert_eq!(
        call(at, "POST", "/healthz", "", "").await.1["code"],
        "method_not_allowed"
    );

    let polling = tokio::spawn(async move {
        call(at, "GET", "/api/flash-sales?at_least=0:1000000", "", "").await
    });
    sleep(Duration::from_millis(200)).await;
    running.shutdown().await.unwrap();
    // A poll that waited to its end would be answered with not_caught_up.
    let (status, answer) = polling.await.unwrap();
    assert_eq!(
        (status, &answer["code"]),
        (503, &json!("read_model_unavailable")),
        "{answer}"
    );
}

/// The binary itself, killed when dropped.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Process {
    fn start(data_dir: &Path) -> (Self, SocketAddr) {
        Self::start_as(Command::new(env!("CARGO_BIN_EXE_doorbuster")), data_dir)
    }

    fn start_as(mut command: Command, data_dir: &Path) -> (Self, SocketAddr) {
        let mut child = command
            .args(["--listen", "127.0.0.1:0", "--data-dir"])
            .arg(data_dir)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let process = Self(child);
        let line = output.find_map(|line| {
            let line = line.unwrap();
            Some(line.trim().strip_prefix("Watch")?.trim().to_owned())
        });
        let address = line.expect("the welcome text names the address");
        let address = address
            .strip_prefix("http://")
            .unwrap()
            .trim_end_matches('/');
        (process, address.parse().unwrap())
    }

    fn signal(&self) {
        self.send(Signal::TERM);
    }

    fn send(&self, signal: Signal) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The exit status, in time.
    async fn status(&mut self) -> Option<i32> {
        for _ in 0..PATIENCE.as_millis() / 10 {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            sleep(Duration::from_millis(10)).await;
        }
        panic!("the process did not end");
    }
}

#[tokio::test]
async fn one_signal_drains_and_a_second_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, at) = Process::start(dir.path());
    assert_eq!(call(at, "GET", "/healthz", "", "").await.0, 200);
    process.signal();
    assert_eq!(process.status().await, Some(0));

    let (mut process, at) = Process::start(dir.path());
    until_ready(at).await;
    // A request whose body is still to come: the drain waits for it.
    let unfinished = "POST /api/flash-sales/demo-sneaker/order HTTP/1.1\r\nhost: x\r\n\
        x-buyer-id: me\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{";
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(unfinished.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(200)).await;
    process.signal();
    sleep(Duration::from_millis(200)).await;
    assert!(
        process.0.try_wait().unwrap().is_none(),
        "it waits for the request"
    );
    process.signal();
    assert_eq!(process.status().await, Some(130));
}

#[tokio::test]
async fn it_listens_on_a_name() {
    let dir = tempfile::tempdir().unwrap();
    let flags = Flags::default()
        .with("listen", "localhost:0")
        .with("data_dir", dir.path().to_str().unwrap());
    let settings = Settings::from_sources(Service::Serve, &flags, []).unwrap();
    let running = serve::start(settings, Drain::new(Duration::from_secs(5)))
        .await
        .unwrap();
    assert!(running.address().ip().is_loopback());
    until_ready(running.address()).await;
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn a_process_that_drains_is_not_ready_before_it_stops_accepting() {
    let start = |dir: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorbuster"));
        command.args(["--drain-delay-seconds", "600"]);
        Process::start_as(command, dir)
    };
    let dir = tempfile::tempdir().unwrap();
    let (mut process, at) = start(dir.path());
    until_ready(at).await;
    process.signal();
    let draining = async {
        while call(at, "GET", "/readyz", "", "").await.0 != 503 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, draining)
        .await
        .expect("it becomes not ready");
    let (_, report) = call(at, "GET", "/readyz", "", "").await;
    assert_eq!(report["draining"], true, "{report}");
    assert_eq!(call(at, "GET", "/healthz", "", "").await.0, 200);
    let order = "/api/flash-sales/demo-sneaker/order";
    let (status, answer) = call(at, "POST", order, BUYER, r#"{"quantity":1}"#).await;
    assert_eq!(status, 202, "requests are still answered: {answer}");
    process.signal();
    assert_eq!(process.status().await, Some(130));

    // Somebody at a terminal does not wait.
    let (mut process, _) = start(dir.path());
    process.send(Signal::INT);
    assert_eq!(process.status().await, Some(0));
}

#[tokio::test]
async fn a_signal_during_the_start_is_not_lost() {
    // The start waits for ever, since the pipe in place of the key does not end.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("receipt.key");
    assert!(
        Command::new("mkfifo")
            .arg(&path)
            .status()
            .unwrap()
            .success()
    );
    let child = Command::new(env!("CARGO_BIN_EXE_doorbuster"))
        .args(["--listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    let reads = async {
        loop {
            // It can be opened once the process reads it.
            let pipe = File::options()
                .write(true)
                .custom_flags(O_NONBLOCK)
                .open(&path);
            match pipe {
                Ok(pipe) => return pipe,
                Err(_) => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    let _pipe = timeout(PATIENCE, reads)
        .await
        .expect("the start reads the key");
    process.signal();
    let status = process.status().await;
    assert_eq!(status, Some(0), "it ends by itself, not by the signal");
}

#[test]
fn files_are_kept_for_what_is_not_a_connection() {
    for (limit, connections) in [(65_536, 65_024), (1_024, 512), (256, 128), (1, 1), (0, 1)] {
        assert_eq!(
            file_limit::connections_within(limit),
            connections,
            "{limit}"
        );
    }
}

#[tokio::test]
async fn a_low_limit_of_open_files_refuses_connections_instead_of_hanging() {
    let dir = tempfile::tempdir().unwrap();
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_doorbuster");
    command.args(["-c", "ulimit -n 256; exec \"$0\" \"$@\"", program]);
    let (_process, at) = Process::start_as(command, dir.path());
    until_ready(at).await;
    let mut open = Vec::new();
    for _ in 0..300 {
        open.push(TcpStream::connect(at).await.unwrap());
    }
    let (status, answer) = call(at, "GET", "/healthz", "", "").await;
    assert_eq!((status, &answer["code"]), (503, &json!("overloaded")));
    drop(open);
    until_ready(at).await;
}

#[test]
fn all_mistakes_in_the_settings_are_reported_and_help_has_examples() {
    let run = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_doorbuster"));
        let output = command
            .args(arguments)
            .env("DOORBUSTER_PARTITION", "1")
            .output()
            .unwrap();
        let text =
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code(), text)
    };
    let (status, text) = run(&["--listen", "here", "--demo", "perhaps"]);
    assert_eq!(status, Some(2));
    for part in [
        "listen must be HOST:PORT",
        "demo must be true or false",
        "did you mean DOORBUSTER_PARTITIONS?",
    ] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
    let (status, text) = run(&["--help"]);
    assert_eq!(status, Some(0));
    for part in ["serve", "rehearse", "Examples:", "--data-dir"] {
        assert!(text.contains(part), "{part} is missing in\n{text}");
    }
}
