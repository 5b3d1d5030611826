//! The description at `/openapi.json`: rules over the whole document, and a validator that others
//! wrote.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use doorbuster::serve;
use runtime::drain::Drain;
use runtime::settings::{Flags, Service, Settings};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The document of an instance with all services.
async fn document() -> Value {
    let dir = tempfile::tempdir().unwrap();
    let flags = Flags::default()
        .with("listen", "127.0.0.1:0")
        .with("data_dir", dir.path().to_str().unwrap());
    let settings = Settings::from_sources(Service::Serve, &flags, []).unwrap();
    let drain = Drain::new(settings.drain_grace);
    let running = serve::start(settings, drain).await.unwrap();
    let mut stream = TcpStream::connect(running.address()).await.unwrap();
    let request = b"GET /openapi.json HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    running.shutdown().await.unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    serde_json::from_str(body).unwrap()
}

fn entries(value: &Value) -> impl Iterator<Item = (&str, &Value)> {
    let entries = value.as_object().into_iter().flatten();
    entries.map(|(name, value)| (name.as_str(), value))
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn is_text(value: &Value) -> bool {
    value.as_str().is_some_and(|text| !text.trim().is_empty())
}

/// What is wrong with the document, a line each.
fn faults(document: &Value) -> Vec<String> {
    let mut faults = vec![];
    let tags: Vec<&Value> = items(&document["tags"]).map(|tag| &tag["name"]).collect();
    for tag in items(&document["tags"]) {
        if !is_text(&tag["description"]) {
            faults.push(format!("the tag {} has no description", tag["name"]));
        }
    }
    for (path, operations) in entries(&document["paths"]) {
        for (method, operation) in entries(operations) {
            let of = format!("{method} {path}");
            if !is_text(&operation["summary"]) {
                faults.push(format!("{of} has no summary"));
            }
            if !is_text(&operation["operationId"]) {
                faults.push(format!("{of} has no operationId"));
            }
            if items(&operation["tags"]).count() != 1 {
                faults.push(format!("{of} has not one tag"));
            }
            for tag in items(&operation["tags"]) {
                if !tags.contains(&tag) {
                    faults.push(format!("{of} has the tag {tag}, which is not declared"));
                }
            }
            faults.extend(faults_of_responses(&of, &operation["responses"]));
            for parameter in items(&operation["parameters"]) {
                let of = format!("{of}, parameter {}", parameter["name"]);
                if !is_text(&parameter["description"]) {
                    faults.push(format!("{of} has no description"));
                }
                let name = parameter["name"].as_str().unwrap();
                faults.extend(faults_of_bounds(&of, name, &parameter["schema"]));
            }
        }
    }
    for (name, schema) in entries(&document["components"]["schemas"]) {
        for (property, schema) in entries(&schema["properties"]) {
            let of = format!("{name}.{property}");
            faults.extend(faults_of_bounds(&of, property, schema));
        }
    }
    faults
}

/// The statuses that every route may answer with.
const EVERY_ROUTE: [&str; 4] = ["400", "414", "431", "500"];

fn faults_of_responses(of: &str, responses: &Value) -> Vec<String> {
    let mut faults = vec![];
    for status in EVERY_ROUTE {
        if responses.get(status).is_none() {
            faults.push(format!("{of} has no {status}"));
        }
    }
    for (status, response) in entries(responses) {
        if !is_text(&response["description"]) {
            faults.push(format!("{of}: {status} has no description"));
        }
        for (media_type, content) in entries(&response["content"]) {
            let is_problem = content["schema"]["$ref"] == "#/components/schemas/Problem";
            let is_declared = media_type == "application/problem+json";
            let is_error = status.starts_with(['4', '5']);
            if is_problem != is_declared || (is_problem && !is_error) {
                faults.push(format!("{of}: {status} is {media_type}"));
            }
            if is_error && !is_problem && !matches!(of, "get /healthz" | "get /readyz") {
                faults.push(format!("{of}: {status} is no problem document"));
            }
        }
    }
    faults
}

/// Checks that ids, positions and quantities have patterns and bounds.
fn faults_of_bounds(of: &str, name: &str, schema: &Value) -> Vec<String> {
    let needed: &[&str] = match name {
        "product_id" | "buyer_id" | "X-Buyer-Id" | "Idempotency-Key" | "after" | "next"
        | "at_least" | "currency" => &["pattern", "minLength", "maxLength"],
        "attempt_id" => &["format", "minLength", "maxLength"],
        "quantity" | "limit" | "wait" => &["minimum", "maximum"],
        "offset" | "partition" => &["minimum"],
        _ => &[],
    };
    let missing = needed.iter().filter(|key| schema.get(**key).is_none());
    missing
        .map(|key| format!("{of} has no {key}: {schema}"))
        .collect()
}

#[tokio::test]
async fn the_description_keeps_its_rules() {
    let document = document().await;
    assert!(entries(&document["paths"]).count() >= 14);
    let faults = faults(&document);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[tokio::test]
async fn a_validator_of_others_finds_no_fault() {
    let document = document().await;
    let python = tokio::task::spawn_blocking(python).await.unwrap();
    let mut validator = Command::new(python)
        .args(["-m", "openapi_spec_validator", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let text = document.to_string();
    let mut input = validator.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = validator.wait_with_output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(output.status.success(), "{text}");
}

const GET_PYTHON: &str = "the description is validated with Python 3.9 or newer and its venv \
                          module; on Debian: apt-get install python3 python3-venv";

/// A Python with the validator, installed once under `target/`.
fn python() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let venv = here.join("../../target/openapi-venv");
    let requirements = here.join("tests/openapi/requirements.txt");
    let (python, installed) = (venv.join("bin/python"), venv.join("installed.txt"));
    let wanted = fs::read(&requirements).unwrap();
    if fs::read(&installed).is_ok_and(|there| there == wanted) {
        return python;
    }
    let _ = fs::remove_dir_all(&venv);
    let mut make = Command::new("python3");
    let made = make.args(["-m", "venv"]).arg(&venv).output();
    let made = made.unwrap_or_else(|error| panic!("python3 is needed ({error}): {GET_PYTHON}"));
    let text = String::from_utf8_lossy(&made.stderr);
    assert!(
        made.status.success(),
        "python3 -m venv failed: {GET_PYTHON}\n{text}"
    );
    let fetched = Command::new(&python)
        .args([
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "-r",
        ])
        .arg(&requirements)
        .output()
        .unwrap();
    assert!(
        fetched.status.success(),
        "the packages of {} could not be fetched; that takes a network with the Python package \
         index, or one of its mirrors, named by PIP_INDEX_URL:\n{}",
        requirements.display(),
        String::from_utf8_lossy(&fetched.stderr)
    );
    fs::write(installed, wanted).unwrap();
    python
}
