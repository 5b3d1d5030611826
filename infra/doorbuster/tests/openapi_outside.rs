//! The description at `/openapi.json` in the hands of tools that others wrote: a validator, a linter, and a
//! client that a generator makes from it.

mod support;

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::json;
use support::instance::{ADMIN, call, description, start};
use support::python;
use tempfile::TempDir;

fn here() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi"))
}

/// A directory with the description in `openapi.json`.
async fn written_down() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let text = description().await.to_string();
    fs::write(dir.path().join("openapi.json"), text).unwrap();
    dir
}

/// Runs a tool, which must succeed.
fn run(command: &mut Command) {
    let name = format!("{command:?}");
    let output = command.output();
    let Output {
        status,
        stdout,
        stderr,
    } = output.unwrap_or_else(|error| panic!("{name}: {error}"));
    let text = [stdout, stderr].concat();
    let text = String::from_utf8_lossy(&text);
    assert!(status.success(), "{name}: {status}\n{text}");
}

#[tokio::test]
async fn a_validator_finds_no_fault() {
    let dir = written_down().await;
    let mut validator = Command::new(python::with_packages());
    run(validator
        .current_dir(dir.path())
        .args(["-m", "openapi_spec_validator", "openapi.json"]));
}

#[tokio::test]
async fn spectral_has_no_remarks() {
    let dir = written_down().await;
    let mut linter = Command::new(spectral());
    run(linter
        .current_dir(dir.path())
        .args([
            "lint",
            "openapi.json",
            "--fail-severity",
            "warn",
            "--ruleset",
        ])
        .arg(here().join("spectral.yaml")));
}

#[tokio::test]
async fn a_generated_client_buys_and_cancels() {
    let data = tempfile::tempdir().unwrap();
    let running = start(data.path()).await;
    let at = running.address();
    let price = json!({"minor": 100, "currency": "EUR"});
    let sale = json!({"name": "Boot", "price": price, "stock": 1}).to_string();
    let put = call(at, "PUT", "/api/admin/flash-sales/boot", ADMIN, &sale).await;
    assert_eq!(put.0, 202, "{}", put.1);
    let position = &put.1["position"];
    let (partition, offset) = (&position["partition"], &position["offset"]);
    let path = format!("/api/flash-sales/boot?at_least={partition}:{offset}");
    assert_eq!(call(at, "GET", &path, "", "").await.0, 200);

    let dir = written_down().await;
    let python = python::with_packages();
    let mut generator = Command::new(python.with_file_name("openapi-python-client"));
    run(generator
        .current_dir(dir.path())
        .args(["generate", "--path", "openapi.json", "--meta", "none"])
        .args(["--output-path", "shop_client", "--fail-on-warning"])
        .arg("--config")
        .arg(here().join("client.yaml")));
    let mut shopper = Command::new(python);
    shopper
        .arg("-B")
        .arg(here().join("shop.py"))
        .arg(format!("http://{at}"))
        .env("PYTHONPATH", dir.path());
    let shopping = tokio::task::spawn_blocking(move || run(&mut shopper));
    shopping.await.unwrap();
    running.shutdown().await.unwrap();
}

/// The linter, installed once under `target/`.
fn spectral() -> PathBuf {
    let dir = here().join("../../../../target/openapi-node");
    let program = dir.join("node_modules/.bin/spectral");
    fs::create_dir_all(&dir).unwrap();
    let lock = File::create(dir.join("lock")).unwrap();
    lock.lock().unwrap();
    let wanted = fs::read(here().join("package-lock.json")).unwrap();
    let installed = dir.join("installed.json");
    if fs::read(&installed).is_ok_and(|there| there == wanted) {
        return program;
    }
    for name in ["package.json", "package-lock.json"] {
        fs::copy(here().join(name), dir.join(name)).unwrap();
    }
    let fetched = Command::new("npm")
        .current_dir(&dir)
        .args(["ci", "--no-audit", "--no-fund", "--ignore-scripts"])
        .output();
    let fetched = fetched.unwrap_or_else(|error| {
        panic!(
            "the description is linted by Spectral, which takes node 18 or newer and npm ({error}); \
             on Debian: apt-get install npm"
        )
    });
    assert!(
        fetched.status.success(),
        "Spectral could not be fetched; that takes a network with npm's registry, or a mirror of it that \
         npm is configured for:\n{}",
        String::from_utf8_lossy(&fetched.stderr)
    );
    fs::write(installed, wanted).unwrap();
    program
}
