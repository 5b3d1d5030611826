//! The alert rules for Prometheus: they do what their cases show, every alert has a section in the runbook, and
//! every metric that they use exists.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use support::{Serving, doorbuster, python};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn deployment(file: &str) -> PathBuf {
    root().join("infra/deploy").join(file)
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn rules() -> Vec<Value> {
    let file = python::yaml(&deployment("alerts.yaml"));
    let rules = items(&file["groups"]).flat_map(|group| items(&group["rules"]));
    rules.cloned().collect()
}

fn text(value: &Value) -> String {
    value
        .as_str()
        .unwrap_or_else(|| panic!("{value} is no text"))
        .to_owned()
}

#[test]
fn the_rules_do_what_their_cases_show() {
    // The one that tests/tools.sh fetches, else one on the path.
    let fetched = root().join("target/tools/bin/promtool");
    for (what, file) in [("check", "alerts.yaml"), ("test", "alerts.test.yaml")] {
        let mut promtool = match fetched.exists() {
            true => Command::new(&fetched),
            false => Command::new("promtool"),
        };
        let output = promtool
            .args([what, "rules"])
            .arg(deployment(file))
            .output();
        let output = output.unwrap_or_else(|error| {
            panic!("the rules are tried with promtool ({error}), which tests/quick fetches")
        });
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(output.status.success(), "{text}");
    }
}

#[test]
fn every_alert_has_a_case_that_fires_it_and_a_section_in_the_runbook() {
    let cases = python::yaml(&deployment("alerts.test.yaml"));
    let cases = items(&cases["tests"]).flat_map(|test| items(&test["alert_rule_test"]));
    let fired: BTreeSet<String> = cases
        .filter(|case| items(&case["exp_alerts"]).next().is_some())
        .map(|case| text(&case["alertname"]))
        .collect();
    let runbook = fs::read_to_string(root().join("infra/docs/runbook.md")).unwrap();
    let mut alerts = BTreeSet::new();
    for rule in rules() {
        let alert = text(&rule["alert"]);
        let annotations = &rule["annotations"];
        let link = format!("infra/docs/runbook.md#{}", alert.to_lowercase());
        assert_eq!(text(&annotations["runbook"]), link, "{alert}");
        assert!(
            runbook.contains(&format!("\n### {alert}\n")),
            "{alert} has no section"
        );
        assert!(!text(&annotations["summary"]).is_empty());
        assert!(
            ["page", "ticket"].contains(&&*text(&rule["labels"]["severity"])),
            "{alert}"
        );
        alerts.insert(alert);
    }
    assert_eq!(alerts, fired, "every alert is fired by a case");
    let sections = runbook
        .lines()
        .filter_map(|line| line.strip_prefix("### Doorbuster"));
    assert_eq!(
        sections.count(),
        alerts.len(),
        "every section is of an alert"
    );
}

/// The metrics that an expression uses: words outside of selectors, quotation marks and label lists.
fn metrics(expression: &str) -> BTreeSet<String> {
    let is_part = |c: char| c == '_' || c.is_ascii_alphanumeric();
    let words = expression.split(|c| !is_part(c)).map(str::to_owned);
    let prefixes = ["doorbuster_", "process_"];
    words
        .filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)))
        .collect()
}

#[test]
fn every_metric_in_the_rules_is_shown_by_an_instance() {
    let dir = tempfile::tempdir().unwrap();
    let serving = Serving::start(doorbuster(), dir.path(), Stdio::null());
    serving.until_ready();
    let shown = serving.metrics();
    // Everything else is there from the start or the first order.
    let later = [
        // The fence has dropped nothing.
        "doorbuster_decisions_dropped_total",
        // The service has no Kafka and no CQL store.
        "doorbuster_kafka_client_errors_total",
        "doorbuster_cql_client_errors_total",
    ];
    let names: BTreeSet<_> = rules()
        .iter()
        .flat_map(|rule| metrics(&text(&rule["expr"])))
        .collect();
    assert!(names.len() > 15, "{names:?}");
    for name in names {
        let is_shown = shown.lines().any(|line| {
            let rest = line.strip_prefix(&name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
        });
        assert!(
            is_shown || later.contains(&&*name),
            "there is no {name} in\n{shown}"
        );
    }
}
