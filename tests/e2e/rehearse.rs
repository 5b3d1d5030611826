//! `doorbuster rehearse`, the real program against itself: a crowd, a shop's recorded demand
//! compared with an oracle, and the same with a SIGKILL in the middle.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::demand::{demand_file, first_rows};
use crate::instance::{Ended, free_address, program};
use crate::oracle::{self, as_expected};
use crate::serving::serve;

/// Rows of the demand file: enough for a kill in the middle.
const SLICE_ROWS: usize = 40_000;

#[test]
fn ten_thousand_buyers_get_exactly_ten_items() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("report.json");
    let kept = dir.path().join("kept");
    let output = rehearse(&["--keep", kept.to_str().unwrap()], &json)
        .output()
        .unwrap();
    let report = report(&output, &json);
    audit_agrees(&kept.join("data"), &report);
    let totals = &report["totals"];
    assert_eq!(totals["accepted"], 10, "{totals}");
    assert_eq!(totals["buyers_served"], 10, "{totals}");
    assert_eq!(totals["buyers_answered"], 10_000, "{totals}");
    assert_eq!(totals["answered"], totals["attempts"], "{totals}");
    assert!(totals["repeated"].as_u64().unwrap() > 500, "{totals}");
    assert!(
        totals["refused"]["not_open_yet"].as_u64().unwrap() > 0,
        "{totals}"
    );
    let product = &report["products"][0];
    assert_eq!(
        (&product["sold"], &product["available"]),
        (&10.into(), &0.into())
    );
    assert_eq!(report["products"].as_array().unwrap().len(), 1);
}

#[test]
fn recorded_demand_has_the_result_of_the_oracle() {
    let dir = tempfile::tempdir().unwrap();
    let json = dir.path().join("report.json");
    let demand = demand_file();
    let begun = Instant::now();
    let kept = dir.path().join("kept");
    let options = [
        "--file",
        demand.to_str().unwrap(),
        "--keep",
        kept.to_str().unwrap(),
    ];
    let output = rehearse(&options, &json).output().unwrap();
    let report = report(&output, &json);
    audit_agrees(&kept.join("data"), &report);
    println!("{} rows in {:?}", report["totals"]["rows"], begun.elapsed());
    assert_eq!(as_expected(&report), oracle::expect(&demand, 8));
}

#[test]
fn a_kill_in_the_middle_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (json, data) = (dir.path().join("report.json"), dir.path().join("data"));
    let slice = dir.path().join("slice.csv.gz");
    first_rows(&demand_file(), SLICE_ROWS, &slice);
    let address = free_address();
    let mut instance = Ended(serve(&address, &data));
    let url = format!("http://{address}");
    let options = ["--target", &url, "--file", slice.to_str().unwrap()];
    let rehearsal = rehearse(&options, &json)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut rehearsal = rehearsal.unwrap();

    let taken_before = wait_for_attempts(&mut rehearsal, &url);
    instance.0.kill().unwrap();
    instance.0.wait().unwrap();
    assert!(
        rehearsal.try_wait().unwrap().is_none(),
        "killed too late to be in the middle"
    );
    let _instance = Ended(serve(&address, &data));

    let output = rehearsal.wait_with_output().unwrap();
    let report = report(&output, &json);
    let totals = &report["totals"];
    assert!(
        totals["resent"].as_u64().unwrap() > 0,
        "it never noticed: {totals}"
    );
    assert!(
        totals["attempts"].as_u64().unwrap() > taken_before,
        "{totals}"
    );
    assert_eq!(as_expected(&report), oracle::expect(&slice, 8));
    // The restarted service still runs on it.
    audit_agrees(&data, &report);
}

/// The audit of an instance's data passes, and counts the same.
fn audit_agrees(data: &Path, report: &Value) {
    let json = data.with_extension("audit.json");
    let mut audit = program();
    audit
        .arg("audit")
        .arg("--data-dir")
        .arg(data)
        .arg("--json")
        .arg(&json);
    let output = audit.output().unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{stdout}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    println!("{stdout}");
    let audited: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    let (totals, audited) = (&report["totals"], &audited["totals"]);
    let count = |of: &Value, what: &str| of[what].as_u64().unwrap();
    // The log has every copy of a repeated attempt, the report each attempt once.
    let attempts = count(audited, "attempts") - count(audited, "repeated");
    assert_eq!(attempts, count(totals, "attempts"), "{audited}");
    assert_eq!(audited["accepted"], totals["accepted"], "{audited}");
}

/// Waits until the instance has accepted some thousand attempts.
fn wait_for_attempts(rehearsal: &mut Child, url: &str) -> u64 {
    let begun = Instant::now();
    loop {
        let body = get(url, "/api/flash-sales?limit=500");
        let sales: Value = serde_json::from_str(&body).unwrap_or_default();
        let sales = sales["sales"].as_array().cloned().unwrap_or_default();
        let count = |sale: &Value, what: &str| sale["attempts"][what].as_u64().unwrap_or(0);
        let taken = sales
            .iter()
            .map(|sale| count(sale, "accepted") + count(sale, "refused"))
            .sum();
        if taken > 500 {
            return taken;
        }
        assert!(
            rehearsal.try_wait().unwrap().is_none(),
            "the rehearsal ended too early"
        );
        assert!(
            begun.elapsed() < Duration::from_secs(60),
            "no attempts within a minute"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The body of a GET, or an empty text without an answer.
fn get(url: &str, path: &str) -> String {
    let exchange = || {
        let address = url.trim_start_matches("http://");
        let mut stream = std::net::TcpStream::connect(address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let answer = std::io::read_to_string(stream)?;
        let body = answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned());
        std::io::Result::Ok(body.unwrap_or_default())
    };
    exchange().unwrap_or_default()
}

/// The report of a successful rehearsal.
fn report(output: &Output, json: &Path) -> Value {
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert!(
        output.status.success(),
        "{}\n{stdout}\n{stderr}",
        output.status
    );
    println!("{stdout}");
    let report: Value = serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap();
    assert_eq!(report["passed"], true);
    assert!(report["invariants"].as_array().unwrap().len() >= 6);
    report
}

fn rehearse(options: &[&str], json: &Path) -> Command {
    let mut command = program();
    command
        .arg("rehearse")
        .args(options)
        .arg("--json")
        .arg(json);
    command
}
