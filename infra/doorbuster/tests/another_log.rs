//! A data directory whose log is not the one that its read models were made from.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use support::{Serving, doorbuster, wait_until};
use tempfile::TempDir;

fn serve(data_dir: &Path) -> Serving {
    let mut command = doorbuster();
    command.arg("serve");
    Serving::start(command, data_dir, Stdio::null())
}

/// A data directory with this many orders, whose service has stopped.
fn sold(orders: usize) -> TempDir {
    let dir = TempDir::new().unwrap();
    let serving = serve(dir.path());
    serving.until_ready();
    for _ in 0..orders {
        assert!(serving.order().starts_with("HTTP/1.1 202"));
    }
    // What was answered is in the read models once the service has stopped.
    assert_eq!(serving.terminate(), Some(0));
    dir
}

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").args([from, to]).status();
    assert!(copied.unwrap().success());
}

/// The service refuses the log, by name, and so it does after a restart.
fn is_refused(dir: &Path, reason: &str) {
    for start in 0..2 {
        let serving = serve(dir);
        let order = serving.order();
        assert!(order.starts_with("HTTP/1.1 503"), "start {start}: {order}");
        assert!(order.contains("log_unavailable"), "{order}");
        assert!(order.contains("was not accepted"), "{order}");
        let health = wait_until("it is red", || {
            let health = serving.ask("/healthz");
            health.starts_with("HTTP/1.1 503").then_some(health)
        });
        assert!(health.contains(reason), "{health}");
        serving.terminate();
    }
}

#[test]
fn the_log_of_another_directory_is_refused() {
    let (one, other) = (sold(3), sold(30));
    for dir in [&one, &other] {
        fs::rename(dir.path().join("log"), dir.path().join("own-log")).unwrap();
    }
    copy(&other.path().join("own-log"), &one.path().join("log"));
    is_refused(one.path(), "the read models are of log");
    copy(&one.path().join("own-log"), &other.path().join("log"));
    is_refused(other.path(), "the read models are of log");
    // With the log that it belongs to it goes on.
    fs::remove_dir_all(one.path().join("log")).unwrap();
    fs::rename(one.path().join("own-log"), one.path().join("log")).unwrap();
    serve(one.path()).until_ready();
}

/// A log that was restored to an earlier state. It stays red although each start makes it longer.
#[test]
fn an_earlier_state_of_the_log_is_refused() {
    let dir = sold(3);
    copy(&dir.path().join("log"), &dir.path().join("earlier"));
    let serving = serve(dir.path());
    serving.until_ready();
    (0..20).for_each(|_| assert!(serving.order().starts_with("HTTP/1.1 202")));
    assert_eq!(serving.terminate(), Some(0));
    fs::remove_dir_all(dir.path().join("log")).unwrap();
    fs::rename(dir.path().join("earlier"), dir.path().join("log")).unwrap();
    is_refused(dir.path(), "has lost its end");
    // Without the read models this log is as good as any; they are made again from it.
    fs::remove_file(dir.path().join("read-models.redb")).unwrap();
    serve(dir.path()).until_ready();
}
