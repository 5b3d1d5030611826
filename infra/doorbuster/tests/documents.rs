//! The documents name only settings, flags and metrics that exist.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use support::doorbuster;

/// Flags of other programs that documents name.
const OTHERS_FLAGS: [&str; 32] = [
    // cargo, rustc, cargo-fuzz and nextest
    "--all-targets",
    "--bin",
    "--cfg",
    "--features",
    "--fuzz-dir",
    "--locked",
    "--no-fail-fast",
    "--release",
    "--target-dir",
    "--test",
    "--workspace",
    // our scripts
    "--yes",
    // Kafka's, Cassandra's and ScyllaDB's programs
    "--bootstrap-server",
    "--describe",
    "--group",
    "--list",
    "--memory",
    "--overprovisioned",
    "--seeds",
    "--smp",
    // docker, apt, curl, useradd
    "--build",
    "--volumes",
    "--no-install-recommends",
    "--fail",
    "--show-error",
    "--silent",
    "--create-home",
    "--home-dir",
    "--gid",
    "--uid",
    // every program
    "--help",
    "--version",
];
/// Variables that are not settings: of the tests, and of what Kubernetes sets.
const OTHER_VARIABLES: [&str; 4] = [
    "DOORBUSTER_CONFIG",
    "DOORBUSTER_WRITE_GOLDEN",
    "DOORBUSTER_SERVICE_HOST",
    "DOORBUSTER_PORT",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every document, by name. Of the changelog only what is not released, since flags of released
/// versions may have gone.
fn documents() -> Vec<(String, String)> {
    let mut found = Vec::new();
    collect(&root(), &mut found);
    let released = "\n## 0.";
    for (name, text) in &mut found {
        if name.ends_with("CHANGELOG.md") {
            text.truncate(text.find(released).unwrap());
        }
    }
    assert!(found.len() > 30, "only {} documents", found.len());
    found
}

fn collect(dir: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let is_document = [".md", ".yaml"].iter().any(|end| name.ends_with(end))
            || ["Dockerfile", "Caddyfile"].contains(&&*name);
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            collect(&path, found);
        } else if is_document {
            let text = fs::read_to_string(&path).unwrap();
            found.push((path.display().to_string(), text));
        }
    }
}

/// The words of a text that begin so, where a word has only such characters.
fn words<'a>(text: &'a str, prefix: &str, is_part: fn(char) -> bool) -> BTreeSet<&'a str> {
    let words = text.split(|c| !is_part(c));
    words.filter(|word| word.starts_with(prefix)).collect()
}

/// The flags that a text names; not arrows, and not rules of dashes.
fn flags(text: &str) -> BTreeSet<&str> {
    let mut words = words(text, "--", |c| c == '-' || c.is_ascii_alphanumeric());
    let begins = |word: &str| word[2..].starts_with(|c: char| c.is_ascii_lowercase());
    words.retain(|word| begins(word) && !word.ends_with('-'));
    words
}

fn variables(text: &str) -> BTreeSet<&str> {
    words(text, "DOORBUSTER_", |c| {
        c == '_' || c.is_ascii_alphanumeric()
    })
}

fn snake_case<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    words(text, prefix, |c| c == '_' || c.is_ascii_alphanumeric())
}

/// The help of every command.
fn help() -> String {
    let help_of = |arguments: &[&str]| {
        let output = doorbuster().args(arguments).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let own = help_of(&["--help"]);
    let commands = own
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .take_while(|line| !line.is_empty());
    // A line that is indented further continues a description.
    let names = commands.filter(|line| !line.starts_with("   "));
    let names: Vec<_> = names
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert!(names.contains(&"serve"), "{own}");
    let help: Vec<_> = names
        .iter()
        .map(|name| help_of(&[name, "--help"]))
        .collect();
    help.join("\n")
}

/// The flags that a program's source declares.
fn declared_flags(source: &str) -> Vec<String> {
    let text = fs::read_to_string(root().join(source)).unwrap();
    let mut found = Vec::new();
    let mut is_flag = false;
    for line in text.lines().map(str::trim) {
        is_flag |= line.starts_with("#[arg(long");
        let field = line.split_once(": ").map(|(name, _)| name);
        if let Some(name) = field.filter(|_| is_flag && !line.starts_with(['#', '/'])) {
            found.push(format!("--{}", name.replace('_', "-")));
            is_flag = false;
        }
    }
    assert!(!found.is_empty(), "{source} declares no flags");
    found
}

#[test]
fn every_flag_in_the_documents_exists() {
    let help = help();
    let mut known = flags(&help);
    let other_programs = ["infra/engines/src/main.rs", "tests/simulation/src/main.rs"];
    let declared = other_programs.map(declared_flags).concat();
    known.extend(declared.iter().map(String::as_str));
    known.extend(OTHERS_FLAGS);
    for (name, text) in documents() {
        for flag in flags(&text) {
            assert!(known.contains(flag), "{name} names {flag}");
        }
    }
}

#[test]
fn every_setting_in_the_documents_exists() {
    let help = help();
    let settings = variables(&help);
    assert!(settings.contains("DOORBUSTER_DRAIN_GRACE_SECONDS"));
    for (name, text) in documents() {
        for variable in variables(&text) {
            let is_prefix = variable == "DOORBUSTER_";
            let known = settings.contains(variable) || OTHER_VARIABLES.contains(&variable);
            assert!(is_prefix || known, "{name} names {variable}");
        }
        // The keys of the file that begin like nothing else.
        for prefix in ["kafka_", "cql_", "registry_", "append_queue_", "drain_"] {
            for key in snake_case(&text, prefix) {
                let variable = format!("DOORBUSTER_{}", key.to_uppercase());
                let known = settings.contains(&*variable) || TESTS.contains(&key);
                assert!(known, "{name} names {key}");
            }
        }
    }
}

/// Tests that engines' documents name, which begin like settings.
const TESTS: [&str; 2] = ["kafka_secure", "cql_secure"];

#[test]
fn every_metric_in_the_documents_exists() {
    let source = fs::read_to_string(root().join("infra/runtime/src/metrics.rs")).unwrap();
    let metrics = snake_case(&source, "doorbuster_");
    for (name, text) in documents() {
        for metric in snake_case(&text, "doorbuster_") {
            // The series of a histogram.
            let metric = metric.trim_end_matches("_bucket");
            let known = metrics.contains(metric) || metric == "doorbuster_";
            assert!(known, "{name} names {metric}");
        }
    }
}
