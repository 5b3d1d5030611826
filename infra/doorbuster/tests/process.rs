//! How the process starts and ends: signals, the limit of open files, and its settings.

mod support;

use std::fs::File;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use doorbuster::file_limit;
use rustix::process::Signal;
use support::{Process, Serving, doorbuster, in_shell, wait_until};

/// Linux's flag of `open` not to wait.
const O_NONBLOCK: i32 = 0o4000;

fn start(command: Command, dir: &Path) -> Serving {
    Serving::start(command, dir, Stdio::null())
}

#[test]
fn one_signal_drains_and_a_second_ends_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let serving = start(doorbuster(), dir.path());
    assert!(serving.ask("/healthz").starts_with("HTTP/1.1 200"));
    assert_eq!(serving.terminate(), Some(0));

    let mut serving = start(doorbuster(), dir.path());
    serving.until_ready();
    // A request whose body is still to come: the drain waits for it.
    let unfinished = "POST /api/flash-sales/demo-sneaker/order HTTP/1.1\r\nhost: x\r\n\
        x-buyer-id: me\r\ncontent-type: application/json\r\ncontent-length: 14\r\n\r\n{";
    let mut stream = TcpStream::connect(serving.address).unwrap();
    stream.write_all(unfinished.as_bytes()).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    serving.process.send(Signal::TERM);
    std::thread::sleep(Duration::from_millis(200));
    assert!(!serving.process.has_ended(), "it waits for the request");
    serving.process.send(Signal::TERM);
    assert_eq!(serving.process.end(), Some(130));
}

#[test]
fn a_process_that_drains_is_not_ready_before_it_stops_accepting() {
    let start = |dir: &Path| {
        let mut command = doorbuster();
        command.args(["--drain-delay-seconds", "600"]);
        start(command, dir)
    };
    let dir = tempfile::tempdir().unwrap();
    let mut serving = start(dir.path());
    serving.until_ready();
    serving.process.send(Signal::TERM);
    let report = wait_until("it is not ready", || {
        let report = serving.ask("/readyz");
        report.starts_with("HTTP/1.1 503").then_some(report)
    });
    assert!(report.contains(r#""draining":true"#), "{report}");
    assert!(serving.ask("/healthz").starts_with("HTTP/1.1 200"));
    let answer = serving.order();
    assert!(
        answer.starts_with("HTTP/1.1 202"),
        "requests are still answered: {answer}"
    );
    serving.process.send(Signal::TERM);
    assert_eq!(serving.process.end(), Some(130));

    // Somebody at a terminal does not wait.
    let mut serving = start(dir.path());
    serving.process.send(Signal::INT);
    assert_eq!(serving.process.end(), Some(0));
}

#[test]
fn a_signal_during_the_start_is_not_lost() {
    // The start waits for ever, since the pipe in place of the key does not end.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("receipt.key");
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let child = doorbuster()
        .args(["--listen", "127.0.0.1:0"])
        .args(["--operations-listen", "127.0.0.1:0", "--data-dir"])
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut process = Process(child);
    // It can be opened once the process reads it.
    let _pipe = wait_until("the start reads the key", || {
        let mut options = File::options();
        options
            .write(true)
            .custom_flags(O_NONBLOCK)
            .open(&path)
            .ok()
    });
    process.send(Signal::TERM);
    assert_eq!(
        process.end(),
        Some(0),
        "it ends by itself, not by the signal"
    );
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

#[test]
fn a_low_limit_of_open_files_refuses_connections_instead_of_hanging() {
    let dir = tempfile::tempdir().unwrap();
    let serving = start(in_shell("ulimit -n 256"), dir.path());
    serving.until_ready();
    let connect = |_| TcpStream::connect(serving.address).unwrap();
    let open: Vec<_> = (0..300).map(connect).collect();
    let answer = serving.call("GET", "/api/flash-sales", "");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains(r#""code":"overloaded""#), "{answer}");
    // The listener for operations is not under that bound.
    let answer = serving.ask("/readyz");
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    drop(open);
    serving.until_ready();
}

#[test]
fn all_mistakes_in_the_settings_are_reported_and_help_has_examples() {
    let run = |arguments: &[&str]| {
        let mut command = doorbuster();
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
