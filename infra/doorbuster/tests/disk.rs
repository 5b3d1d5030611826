//! The whole program on a disk that hangs, that fails, and that is full. What was acknowledged is never
//! lost, health shows what is wrong, and what needs no restart heals by itself.

mod support;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use log_embedded::{EmbeddedLog, Options};
use ports::clock::SystemClock;
use ports::{CheckedClock, EventLog, NewRecord};
use rustix::process::{Pid, Resource, Rlimit, Signal, kill_process, prlimit};
use schemas::ids::Partition;
use schemas::topics::Topic;
use serde_json::Value;
use support::{Serving, call, children, doorbuster, in_namespaces, in_shell, wait_until};

/// Starts the program, which asks for a restart when nothing has moved for six seconds.
fn start(mut command: Command, dir: &Path) -> Serving {
    command.args(["--stall-seconds", "1"]);
    Serving::start(command, dir, Stdio::null())
}

/// The attempt that an answer acknowledges; none if it is refused.
fn acknowledged(answer: &str) -> Option<String> {
    answer.starts_with("HTTP/1.1 202").then(|| {
        let (_, body) = answer.split_once("\r\n\r\n").unwrap();
        let body: Value = serde_json::from_str(body).unwrap();
        body["attempt_id"].as_str().unwrap().to_owned()
    })
}

/// The attempts of these many orders, all of which are acknowledged.
fn orders(serving: &Serving, count: usize) -> Vec<String> {
    serving.until_ready();
    let order = |_| acknowledged(&serving.order()).expect("it is acknowledged");
    (0..count).map(order).collect()
}

/// Orders until an order is refused; returns that answer, and adds the attempts before it to `taken`.
fn order_until_refused(serving: &Serving, taken: &mut Vec<String>) -> String {
    wait_until("an order is refused", || {
        let answer = serving.order();
        let attempt = acknowledged(&answer);
        let refused = attempt.is_none().then_some(answer);
        taken.extend(attempt);
        refused
    })
}

fn is_decided(serving: &Serving, attempts: &[String]) {
    for attempt in attempts {
        wait_until("the attempt is decided", || {
            let path = format!("/api/attempts/{attempt}?wait=10");
            let answer = serving.call("GET", &path, "");
            let decided = answer.starts_with("HTTP/1.1 200") && !answer.contains(r#""queued""#);
            decided.then_some(())
        });
    }
}

/// Waits until a probe has this status and names the reason.
fn until_health(serving: &Serving, probe: &str, status: u16, reason: &str) {
    let expected = format!("HTTP/1.1 {status}");
    wait_until(&format!("{probe} is {status} for: {reason}"), || {
        let report = serving.ask(probe);
        (report.starts_with(&expected) && report.contains(reason)).then_some(())
    });
}

fn audit_holds(dir: &Path) {
    let mut audit = doorbuster();
    let output = audit.arg("audit").arg("--data-dir").arg(dir).output();
    let output = output.unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{text}{error}");
}

/// A library that lets syncs hang while a file exists.
fn hanging_syncs(dir: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/hang_sync.c");
    let library = dir.join("hang_sync.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-o"]).arg(&library);
    let compiled = compiler.arg(source).arg("-ldl").status();
    assert!(compiled.expect("a C compiler, cc, is needed").success());
    library
}

#[test]
fn a_sync_that_hangs_is_not_healthy_and_the_log_continues_when_it_returns() {
    let (dir, tools) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let hang = tools.path().join("hang");
    let mut command = doorbuster();
    command.env("LD_PRELOAD", hanging_syncs(tools.path()));
    command.env("HANG_SYNC", &hang);
    let serving = start(command, dir.path());
    let taken = orders(&serving, 5);

    File::create(&hang).unwrap();
    let address = serving.address;
    let waiting = std::thread::spawn(move || {
        let path = "/api/flash-sales/demo-sneaker/order";
        call(address, "POST", path, r#"{"quantity":1}"#)
    });
    until_health(&serving, "/readyz", 503, "records wait, and none was taken");
    until_health(
        &serving,
        "/healthz",
        503,
        "records wait, and none was taken",
    );
    fs::remove_file(&hang).unwrap();
    until_health(&serving, "/healthz", 200, "");
    until_health(&serving, "/readyz", 200, "");
    let answer = waiting.join().unwrap();
    let was_refused = answer.starts_with("HTTP/1.1 503") || answer.starts_with("HTTP/1.1 408");
    assert!(was_refused || acknowledged(&answer).is_some(), "{answer}");
    let taken = [
        taken,
        orders(&serving, 1),
        acknowledged(&answer).into_iter().collect(),
    ]
    .concat();
    is_decided(&serving, &taken);
    assert_eq!(serving.terminate(), Some(0));

    let serving = start(doorbuster(), dir.path());
    is_decided(&serving, &taken);
    assert_eq!(serving.terminate(), Some(0));
    audit_holds(dir.path());
}

/// After a write that failed nobody knows what the file has, so the log stops until a restart has read
/// it.
#[test]
fn a_write_that_fails_stops_the_log_until_a_restart_which_has_all_that_was_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let serving = start(in_shell("trap '' XFSZ"), dir.path());
    let mut taken = orders(&serving, 5);
    let unlimited = rustix::process::getrlimit(Resource::Fsize);
    let nothing = Rlimit {
        current: Some(0),
        ..unlimited
    };
    let pid = Pid::from_child(&serving.process.0);
    prlimit(Some(pid), Resource::Fsize, nothing).unwrap();
    let refused = order_until_refused(&serving, &mut taken);
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    for probe in ["/readyz", "/healthz"] {
        until_health(&serving, probe, 503, "check the disk, then restart");
    }
    // Room that returns does not mend it.
    prlimit(Some(pid), Resource::Fsize, unlimited).unwrap();
    let answer = serving.order();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("log_unavailable"), "{answer}");
    assert_eq!(serving.terminate(), Some(1), "the log cannot be closed");

    let serving = start(doorbuster(), dir.path());
    taken.extend(orders(&serving, 1));
    is_decided(&serving, &taken);
    assert_eq!(serving.terminate(), Some(0));
    audit_holds(dir.path());
}

/// A log whose only segment, of 64 MiB, is full but for some kilobytes. What fills it every reader drops.
async fn nearly_full_log(dir: &Path) {
    let log = dir.join("log");
    fs::create_dir(&log).unwrap();
    let clock = CheckedClock::new(Arc::new(SystemClock), Duration::MAX);
    let opened = EmbeddedLog::open(&log, Options::default(), Arc::new(clock)).unwrap();
    for bytes in [vec![900_000; 74], vec![470_000]].concat() {
        let filling = NewRecord {
            value: Bytes::from(vec![b'x'; bytes]),
            ..NewRecord::default()
        };
        let appended = opened.append(Topic::StockDecisions, Partition(0), vec![filling]);
        appended.await.unwrap();
    }
    opened.close().unwrap();
    // The service creates the others.
    for entry in fs::read_dir(&log).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("segment-") && name != "segment-0000000001" {
            fs::remove_file(path).unwrap();
        }
    }
}

/// Writes to a file until the disk is full.
fn fill_disk(path: &Path) {
    let mut file = File::create(path).unwrap();
    let kilobytes = [b'x'; 4096];
    while file.write_all(&kilobytes).is_ok() {}
}

#[tokio::test]
async fn on_a_full_disk_orders_are_refused_and_all_goes_on_when_there_is_room_again() {
    let (prepared, mounted) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    nearly_full_log(prepared.path()).await;
    // Without the ballast there is room for three more segments, with it for none.
    let script = format!(
        "set -e; mount -t tmpfs -o size=320m tmpfs '{full}'; cp -a '{prepared}'/. '{full}'; \
         head -c 245000000 /dev/zero > '{full}/ballast'",
        full = mounted.path().display(),
        prepared = prepared.path().display(),
    );
    let mut serving = start(in_namespaces(&["--mount"], &script), mounted.path());
    let program = children(Pid::from_child(&serving.process.0)).pop().unwrap();
    // The mount is only in the program's namespace.
    let inside = format!("/proc/{program}/root{}", mounted.path().display());
    let inside = Path::new(&inside);
    until_health(&serving, "/readyz", 200, "make room on the disk");
    let mut taken = orders(&serving, 5);
    fill_disk(&inside.join("more-ballast"));

    let refused = order_until_refused(&serving, &mut taken);
    assert!(refused.starts_with("HTTP/1.1 503"), "{refused}");
    assert!(refused.contains("\r\nretry-after: "), "{refused}");
    // What was sold before can still be read, so it is degraded; no restart would help.
    wait_until("health names what waits, and for what", || {
        let report = serving.ask("/readyz");
        let texts = [
            "waiting until the log takes records",
            "make room on the disk",
        ];
        texts.iter().all(|text| report.contains(text)).then_some(())
    });
    until_health(&serving, "/healthz", 200, "");

    for ballast in ["ballast", "more-ballast"] {
        fs::remove_file(inside.join(ballast)).unwrap();
    }
    taken.extend(orders(&serving, 5));
    wait_until("nothing is degraded", || {
        let report = serving.ask("/readyz");
        let (_, body) = report.split_once("\r\n\r\n")?;
        let report: Value = serde_json::from_str(body).unwrap();
        (report["ok"] == true && report["degraded"] == false).then_some(())
    });
    is_decided(&serving, &taken);
    audit_holds(inside);
    kill_process(program, Signal::TERM).unwrap();
    assert_eq!(serving.process.end(), Some(0));
}
