//! `doorbuster skip` as an operator runs it, on a data directory.

mod support;

use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use doorbuster::demo;
use log_embedded::{EmbeddedLog, Options};
use ports::clock::SystemClock;
use ports::{CheckedClock, EventLog, NewRecord};
use schemas::ids::{Offset, Partition};
use schemas::placement::Placement;
use schemas::topics::Topic;
use serde_json::Value;
use support::{Serving, doorbuster, wait_until};

/// Status, standard output and standard error of the program with these arguments.
fn run(dir: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = doorbuster();
    let output = command
        .args(arguments)
        .arg("--data-dir")
        .arg(dir)
        .env_remove("USER")
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

fn skip(dir: &Path, partition: &str, offset: &str) -> (Option<i32>, String, String) {
    let record = ["skip", "--partition", partition, "--offset", offset];
    let why = ["--reason", "not ours", "--by", "carol"];
    run(dir, &[&record[..], &why].concat())
}

/// The skip is refused for this reason.
fn is_refused((status, stdout, stderr): (Option<i32>, String, String), reason: &str) {
    assert_eq!((status, &*stdout), (Some(2), ""), "{stderr}");
    assert!(stderr.contains(reason), "{reason} is missing in: {stderr}");
}

fn serve(dir: &Path) -> Serving {
    let mut command = doorbuster();
    command.arg("serve");
    Serving::start(command, dir, Stdio::null())
}

/// Appends a record that only a newer version can decode, in the demo sale's partition; returns
/// partition and offset.
async fn append_newer(dir: &Path) -> (Partition, Offset) {
    let clock = CheckedClock::new(Arc::new(SystemClock), Duration::MAX);
    let log = EmbeddedLog::open(&dir.join("log"), Options::default(), Arc::new(clock)).unwrap();
    let partition = Placement::new(log.partitions()).partition_of(&demo::PRODUCT.parse().unwrap());
    let newer = NewRecord {
        value: Bytes::from_static(b"\0\0\0\0\x63newer"),
        ..NewRecord::default()
    };
    let offset = log.append(Topic::PurchaseAttempts, partition, vec![newer]);
    let offset = offset.await.unwrap();
    log.close().unwrap();
    (partition, offset)
}

/// The JSON in an answer.
fn body(answer: &str) -> Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

fn audit_holds(dir: &Path, part: &str) {
    let (status, stdout, stderr) = run(dir, &["audit"]);
    assert_eq!(status, Some(0), "{stdout}{stderr}");
    assert!(stdout.contains(part), "{part} is missing in: {stdout}");
}

#[tokio::test]
async fn an_operator_skips_the_record_at_which_a_partition_stands() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    is_refused(skip(dir, "0", "0"), "is not a data directory");
    let serving = serve(dir);
    serving.until_ready();
    assert_eq!(serving.terminate(), Some(0));
    let (partition, offset) = append_newer(dir).await;
    let at = [partition.to_string(), offset.to_string()];
    let [partition, offset] = at.each_ref().map(String::as_str);

    let serving = serve(dir);
    serving.until_ready();
    let behind = body(&serving.order());
    let advice = format!("doorbuster skip --partition {partition} --offset {offset}");
    wait_until("health names the record", || {
        let health = serving.ask("/readyz");
        health.contains(&advice).then_some(())
    });
    is_refused(skip(dir, partition, offset), "is in use by another process");
    assert_eq!(serving.terminate(), Some(0));
    audit_holds(dir, "");

    is_refused(
        skip(dir, "8", offset),
        "there is no partition 8; partitions are 0 to 7",
    );
    is_refused(skip(dir, partition, "0"), "the partition is past it");
    let next = (offset.parse::<i64>().unwrap() + 1).to_string();
    let stands = format!("the partition stands at record {offset} of purchase-attempts");
    is_refused(skip(dir, partition, &next), &stands);
    let other = if partition == "0" { "1" } else { "0" };
    is_refused(skip(dir, other, "0"), "every record of purchase-attempts");
    let record = ["skip", "--partition", partition, "--offset", offset];
    let without = |more: &[&str]| run(dir, &[&record[..], more].concat());
    is_refused(without(&["--reason", "x"]), "--by NAME");
    is_refused(
        without(&["--reason", " ", "--by", "carol"]),
        "--reason must have",
    );

    let (status, stdout, stderr) = skip(dir, partition, offset);
    assert_eq!(status, Some(0), "{stderr}");
    let skipped = format!("skipped record {offset} of purchase-attempts, partition {partition}");
    assert!(stdout.contains(&skipped), "{stdout}");
    // The same command again, as after a lost answer, changes nothing and succeeds.
    let (status, stdout, stderr) = skip(dir, partition, offset);
    assert_eq!(status, Some(0), "{stderr}");
    assert!(
        stdout.contains("was skipped before, by operator carol: not ours"),
        "{stdout}"
    );
    let line = format!("offset {offset}: skipped by operator carol: not ours");
    audit_holds(dir, &line);

    let serving = serve(dir);
    serving.until_ready();
    let attempt = behind["attempt_id"].as_str().unwrap();
    let path = format!("/api/attempts/{attempt}?wait=30");
    let fate = body(&serving.call("GET", &path, ""));
    assert_ne!(fate["status"], "queued", "{fate}");
    let health = body(&serving.ask("/readyz"));
    assert!(!health.to_string().contains("doorbuster skip"), "{health}");
    assert_eq!(serving.terminate(), Some(0));
    audit_holds(dir, &line);
}
