//! Settings: a TOML file, then a line of three dashes, then variables, `NAME=value` a line.
//!
//! Accepted settings are within their bounds. Otherwise all mistakes are reported at once: the
//! mistake of a single variable is reported among all others, too, with its name. No secret is
//! ever shown.

use std::ffi::OsString;
use std::fs;

use runtime::settings::{Flags, Mistakes, Service, Settings};

/// The mark in secrets, which must not be shown.
const HIDDEN: &str = "S3CRET";

pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (file, variables) = text.split_once("\n---\n").unwrap_or((&text, ""));
    let variables: Vec<(&str, &str)> = variables
        .lines()
        .filter_map(|line| line.split_once('='))
        // It could name any file of this machine; the input has its own file.
        .filter(|(name, _)| *name != "DOORBUSTER_CONFIG")
        .collect();
    let dir = crate::scratch();
    let path = dir.path().join("doorbuster.toml");
    fs::write(&path, file).expect("the file can be written");
    let path = path.to_str().expect("the path is text");
    for service in [Service::Serve, Service::CommandApi, Service::QueryApi] {
        let all = [&variables[..], &[("DOORBUSTER_CONFIG", path)]].concat();
        let loaded = load(service, &all);
        let shown = match &loaded {
            Ok(settings) => {
                check(settings);
                format!("{settings:?}")
            }
            Err(mistakes) => {
                assert!(!mistakes.0.is_empty());
                mistakes.to_string()
            }
        };
        if only_in_secrets(file, &variables) {
            assert!(!shown.contains(HIDDEN), "{shown}");
        }
        assert_reported_at_once(service, &variables, &loaded);
    }
}

fn load(service: Service, variables: &[(&str, &str)]) -> Result<Settings, Mistakes> {
    let variables = variables
        .iter()
        .map(|(name, value)| (OsString::from(*name), OsString::from(*value)));
    Settings::from_sources(service, &Flags::default(), variables)
}

fn check(settings: &Settings) {
    let Settings { http, log, .. } = settings;
    assert!((1..=1_000_000).contains(&http.max_connections));
    assert!(http.max_waiters <= 1_000_000);
    assert!((1..=3_600_000).contains(&http.request_timeout.as_millis()));
    assert!((1..=1024).contains(&log.partitions));
    assert!((1..=16_777_216).contains(&log.append_queue_records));
    assert!((1 << 20..=48 << 20).contains(&log.append_queue_bytes));
    assert!(settings.drain_grace.as_secs() <= 3_600);
    assert!(!settings.data_dir.as_os_str().is_empty());
    let (kafka, cql) = (&settings.kafka, &settings.cql);
    assert!(!kafka.brokers.is_empty() && !cql.nodes.is_empty());
    assert!((1..=kafka.replication).contains(&kafka.min_insync));
    assert!((1..=32_768).contains(&cql.max_in_flight));
    assert_eq!(cql.username.is_some(), cql.password.is_some());
    assert!(settings.registry.url.starts_with("http"));
}

/// Whether the mark is only in the values of secret variables.
fn only_in_secrets(file: &str, variables: &[(&str, &str)]) -> bool {
    let is_secret = |name: &str| {
        [
            "ADMIN_TOKEN",
            "RECEIPT_KEY",
            "CQL_PASSWORD",
            "KAFKA_KEY_PASSWORD",
        ]
        .iter()
        .any(|secret| name.strip_prefix("DOORBUSTER_") == Some(secret))
    };
    let mut others = variables.iter().filter(|(name, _)| !is_secret(name));
    let elsewhere = others.any(|(name, value)| name.contains(HIDDEN) || value.contains(HIDDEN));
    !elsewhere && !file.contains(HIDDEN)
}

/// A variable that is wrong alone is wrong among others. Only a setting that is given twice may be
/// taken from the other source.
fn assert_reported_at_once(
    service: Service,
    variables: &[(&str, &str)],
    loaded: &Result<Settings, Mistakes>,
) {
    for variable in variables {
        let same = |other: &&(&str, &str)| other.0.eq_ignore_ascii_case(variable.0);
        if variables.iter().filter(same).count() > 1 {
            continue;
        }
        let Err(alone) = load(service, &[*variable]) else {
            continue;
        };
        let from = format!("(from the variable {})", variable.0);
        for mistake in alone.0.iter().filter(|mistake| mistake.ends_with(&from)) {
            let reported = loaded.as_ref().is_err_and(|all| all.0.contains(mistake));
            assert!(reported, "{mistake}: not reported among {loaded:?}");
        }
    }
}
