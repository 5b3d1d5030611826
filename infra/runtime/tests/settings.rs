//! Settings: which source wins, and which mistakes are reported.

use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::time::Duration;

use clap::{Args, Command, FromArgMatches};
use runtime::settings::{
    Flags, KafkaProtocol, LogFormat, Mistakes, Secret, Service, Settings, help_for,
};

fn flags(arguments: &[&str]) -> Flags {
    let command = Flags::augment_args(Command::new("doorbuster").no_binary_name(true));
    let matches = command.try_get_matches_from(arguments).unwrap();
    Flags::from_arg_matches(&matches).unwrap()
}

fn load(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Settings, Mistakes> {
    load_for(Service::Serve, arguments, environment)
}

fn load_for(
    service: Service,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Result<Settings, Mistakes> {
    let environment = environment
        .iter()
        .map(|(name, text)| (name.into(), text.into()));
    Settings::from_sources(
        service,
        &flags(arguments),
        environment.collect::<Vec<(OsString, OsString)>>(),
    )
}

#[test]
fn defaults_are_valid_and_stay_on_this_machine() {
    let settings = load(&[], &[("PATH", "/bin")]).unwrap();
    assert_eq!(settings.http.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.data_dir, Path::new("./.doorbuster"));
    assert_eq!(settings.log.partitions, 8);
    assert_eq!(settings.drain_delay, Duration::ZERO);
    assert_eq!(settings.drain_grace, Duration::from_secs(20));
    assert!(settings.http.admin_token.is_none());
    assert!(settings.demo);
}

#[test]
fn a_log_filter_compares_a_field_s_value_as_it_is() {
    // As a regular expression it would need more memory than the library allows.
    let filter = format!(r"info,[{{product={}}}]=debug", r"\w".repeat(2_000));
    let settings = load(&[], &[("DOORBUSTER_LOG_LEVEL", &filter)]).unwrap();
    assert_eq!(settings.telemetry.level, filter);
}

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("door.toml");
    let text = "listen = '127.0.0.1:1'\npartitions = 2\ndemo = false\nlog_format = 'json'\n";
    fs::write(&file, text).unwrap();
    let file = file.to_str().unwrap();
    let environment = [
        ("DOORBUSTER_CONFIG", file),
        ("DOORBUSTER_LISTEN", "127.0.0.1:2"),
        ("DOORBUSTER_PARTITIONS", "3"),
    ];

    let settings = load(&["--listen", "127.0.0.1:3"], &environment).unwrap();
    assert_eq!(settings.http.listen.port(), 3);
    assert_eq!(settings.log.partitions, 3);
    assert_eq!(settings.telemetry.format, LogFormat::Json);
    assert!(!settings.demo);
    assert_eq!(settings.http.max_waiters, 10_000);

    // The file that a flag names is read instead of the environment's.
    let settings = load(&["--config", file], &[("DOORBUSTER_CONFIG", "/nowhere")]).unwrap();
    assert_eq!(settings.log.partitions, 2);
}

#[test]
fn every_mistake_is_reported_at_once_with_its_name_and_source() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("door.toml");
    fs::write(
        &file,
        "partitions = 0\nadmin_tokn = 'x'\nlog_format = ['json']\n",
    )
    .unwrap();
    let from_file = format!("(from the file {})", file.display());
    let environment = [
        ("DOORBUSTER_CONFIG", file.to_str().unwrap()),
        ("DOORBUSTER_LISTN", "127.0.0.1:1"),
        ("DOORBUSTER_ADMIN_TOKEN", "short"),
        ("DOORBUSTER_REQUEST_TIMEOUT_MS", "10s"),
        ("DOORBUSTER_ZZZ", "1"),
    ];
    let arguments = ["--listen", "localhost", "--demo", "maybe"];

    let Mistakes(mut found) = load(&arguments, &environment).unwrap_err();
    found.sort();
    let mut expected = [
        format!("partitions must be a whole number from 1 to 1024, not \"0\" {from_file}"),
        format!("admin_tokn is not a setting; did you mean admin_token? {from_file}"),
        format!("log_format must be a single value {from_file}"),
        "listn is not a setting; did you mean DOORBUSTER_LISTEN? (from the variable \
         DOORBUSTER_LISTN)"
            .into(),
        "admin_token must be 8 to 256 visible ASCII characters (from the variable \
         DOORBUSTER_ADMIN_TOKEN)"
            .into(),
        "request_timeout_ms must be a whole number of milliseconds from 1 to 3600000, not \"10s\" \
         (from the variable DOORBUSTER_REQUEST_TIMEOUT_MS)"
            .into(),
        "zzz is not a setting (from the variable DOORBUSTER_ZZZ)".into(),
        "listen must be ADDR:PORT such as 127.0.0.1:8080, not \"localhost\" (from the flag \
         --listen)"
            .into(),
        "demo must be true or false, not \"maybe\" (from the flag --demo)".into(),
    ];
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_file_that_cannot_be_read_or_understood_is_a_mistake_among_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("door.toml");
    let missing = load(&["--config", file.to_str().unwrap(), "--demo", "x"], &[]).unwrap_err();
    assert_eq!(missing.0.len(), 2, "{missing}");
    assert!(missing.0[0].contains("cannot be read"), "{missing}");

    fs::write(&file, "listen = \n").unwrap();
    let broken = load(&["--config", file.to_str().unwrap(), "--demo", "x"], &[]).unwrap_err();
    assert_eq!(broken.0.len(), 2, "{broken}");
    assert!(broken.0[0].contains("is not TOML"), "{broken}");
}

#[test]
fn secrets_are_never_shown() {
    let key = "ab".repeat(32);
    let arguments = [
        "--admin-token",
        "a-very-secret-token",
        "--receipt-key",
        &key,
    ];
    let shown = format!("{:?}", load(&arguments, &[]).unwrap());
    assert!(
        !shown.contains("very-secret") && !shown.contains("abab"),
        "{shown}"
    );
    assert!(shown.contains("AdminToken(hidden)"), "{shown}");

    let wrong = load(&["--admin-token", "tok", "--receipt-key", "abab"], &[]).unwrap_err();
    assert!(
        !wrong.to_string().contains("tok\"") && !wrong.to_string().contains("abab"),
        "{wrong}"
    );
}

#[test]
fn each_service_has_its_own_settings_and_defaults() {
    let key = ("DOORBUSTER_RECEIPT_KEY", &*"ab".repeat(32));
    let ports = Service::ALONE.map(|service| {
        let settings = load_for(service, &[], &[key]).unwrap();
        (service.name(), settings.http.listen.port())
    });
    let expected = [
        ("command-api", 8081),
        ("decider", 8084),
        ("projector", 8083),
        ("query-api", 8082),
    ];
    assert_eq!(ports, expected);

    // A flag of another service is a mistake; variables may be shared by all services.
    let wrong = load_for(Service::Decider, &["--max-waiters", "5"], &[]).unwrap_err();
    assert_eq!(
        wrong.0,
        ["max_waiters is not a setting of decider (from the flag --max-waiters)"]
    );
    let shared = [("DOORBUSTER_MAX_WAITERS", "nonsense")];
    assert!(load_for(Service::Decider, &[], &shared).is_ok());
    assert!(load_for(Service::QueryApi, &[], &shared).is_err());
}

#[test]
fn settings_that_do_not_fit_together_are_mistakes() {
    let missing_key = load_for(Service::CommandApi, &[], &[]).unwrap_err();
    assert!(
        missing_key.0[0].starts_with("receipt_key must be given"),
        "{missing_key}"
    );
    let cases: [(&[&str], &str); 5] = [
        (
            &["--kafka-min-insync", "4"],
            "kafka_min_insync must be no more than kafka_replication",
        ),
        (
            &["--kafka-protocol", "sasl_ssl"],
            "kafka_sasl_username and kafka_sasl_password",
        ),
        (&["--cql-username", "x"], "cql_username and cql_password"),
        (&["--cql-nodes", "host"], "cql_nodes must be HOST:PORT"),
        (
            &["--kafka-ca-file", "/nowhere"],
            "kafka_ca_file must be a file that can be read",
        ),
    ];
    for (arguments, expected) in cases {
        let wrong = load_for(Service::Projector, arguments, &[]).unwrap_err();
        assert!(wrong.0[0].starts_with(expected), "{arguments:?}: {wrong}");
    }
}

#[test]
fn the_settings_of_the_engines_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("ca.pem");
    fs::write(&file, "").unwrap();
    let environment = [
        ("DOORBUSTER_KAFKA_BROKERS", "a:1, b:2"),
        ("DOORBUSTER_KAFKA_PROTOCOL", "SASL_SSL"),
        ("DOORBUSTER_KAFKA_CA_FILE", file.to_str().unwrap()),
        ("DOORBUSTER_KAFKA_SASL_USERNAME", "ann"),
        ("DOORBUSTER_KAFKA_SASL_PASSWORD", "open-sesame"),
        ("DOORBUSTER_CQL_NODES", "c:3"),
        ("DOORBUSTER_CQL_USERNAME", "ann"),
        ("DOORBUSTER_CQL_PASSWORD", "open-sesame"),
        ("DOORBUSTER_REGISTRY_URL", "https://registry/api/"),
        ("DOORBUSTER_REGISTRY_PASSWORD", "open-sesame"),
    ];
    let settings = load_for(Service::Projector, &[], &environment).unwrap();
    assert_eq!(settings.kafka.brokers, ["a:1", "b:2"]);
    assert_eq!(settings.kafka.protocol, KafkaProtocol::SaslSsl);
    assert_eq!(settings.kafka.ca_file.as_deref(), Some(&*file));
    assert_eq!(
        settings.kafka.sasl_password,
        Some(Secret("open-sesame".into()))
    );
    assert_eq!(settings.cql.nodes, ["c:3"]);
    assert_eq!(settings.registry.url, "https://registry/api");
    assert!(!format!("{settings:?}").contains("sesame"));
}

#[test]
fn help_lists_every_setting_with_its_default_and_variable() {
    let help = Flags::augment_args(Command::new("x"))
        .render_help()
        .to_string();
    for text in [
        "--config",
        "--listen",
        "127.0.0.1:8080",
        "DOORBUSTER_DATA_DIR",
        "--log-format",
    ] {
        assert!(help.contains(text), "{text} is missing in\n{help}");
    }
}

#[test]
fn a_services_help_lists_only_what_the_service_uses() {
    let command = help_for(Service::Decider, Flags::augment_args(Command::new("x")));
    let help = command.clone().render_help().to_string();
    for text in ["--kafka-brokers", "127.0.0.1:8084", "--config"] {
        assert!(help.contains(text), "{text} is missing in\n{help}");
    }
    for text in ["--max-waiters", "--cql-nodes", "--data-dir"] {
        assert!(!help.contains(text), "{text} is in\n{help}");
    }
}
