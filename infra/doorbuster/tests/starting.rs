//! What is answered while the process starts.

mod support;

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use support::{call, doorbuster, end_of, wait_until};

#[test]
fn a_start_answers_from_the_first_moment() {
    // The start waits for ever, since the pipe in place of the key does not end.
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("receipt.key");
    let made = Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    let [address, operations] = [(); 2].map(|()| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    });
    let mut child = doorbuster()
        .args(["--listen", &address.to_string()])
        .args(["--operations-listen", &operations.to_string()])
        .arg("--data-dir")
        .arg(dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    wait_until("it listens", || TcpStream::connect(address).ok());
    let report = wait_until("the log has been read", || {
        let report = call(operations, "GET", "/readyz", "");
        report.contains("segment 1 of 1").then_some(report)
    });
    assert!(report.starts_with("HTTP/1.1 503"), "{report}");
    assert!(report.contains(r#""name":"start""#), "{report}");
    let alive = call(operations, "GET", "/healthz", "");
    assert!(alive.starts_with("HTTP/1.1 200"), "{alive}");
    let metrics = call(operations, "GET", "/metrics", "");
    assert!(metrics.contains("\ndoorbuster_ready 0\n"), "{metrics}");
    let answer = call(address, "GET", "/api/flash-sales", "");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.contains("retry-after: 1\r\n"), "{answer}");
    assert!(answer.contains(r#""code":"starting""#), "{answer}");

    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(end_of(&mut child), Some(0));
}
