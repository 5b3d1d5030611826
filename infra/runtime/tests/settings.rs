//! Settings: which source wins, and which mistakes are reported.

use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt;
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
    assert_eq!(
        settings.http.operations_listen.to_string(),
        "127.0.0.1:9080"
    );
    assert_eq!(settings.stall.as_secs(), 10);
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
    let file = dir.path().join("doorbuster.toml");
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
    let file = dir.path().join("doorbuster.toml");
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
        "the variable DOORBUSTER_LISTN is ignored: listn is not a setting; did you mean \
         DOORBUSTER_LISTEN?"
            .into(),
        "admin_token must be 8 to 256 visible ASCII characters (from the variable \
         DOORBUSTER_ADMIN_TOKEN)"
            .into(),
        "request_timeout_ms must be a whole number of milliseconds from 1 to 3600000, not \"10s\" \
         (from the variable DOORBUSTER_REQUEST_TIMEOUT_MS)"
            .into(),
        "the variable DOORBUSTER_ZZZ is ignored: zzz is not a setting".into(),
        "listen must be HOST:PORT such as 127.0.0.1:8080 or localhost:8080, not \"localhost\" \
         (from the flag --listen)"
            .into(),
        "demo must be true or false, not \"maybe\" (from the flag --demo)".into(),
    ];
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn origins_are_as_browsers_send_them() {
    let read = |text: &str| {
        let settings = load(&["--allowed-origins", text], &[]);
        settings.map(|settings| settings.http.allowed_origins)
    };
    assert_eq!(read("").unwrap(), Vec::<String>::new());
    let good = [
        "https://shop.example.org",
        "http://localhost:3000",
        "https://xn--kthe-koa.de:8443",
        "http://127.0.0.1",
        "http://[::1]:8080",
    ];
    assert_eq!(read(&good.join(", ")).unwrap(), good);
    for bad in [
        "*",
        "null",
        "shop.example.org",
        "https://",
        "https://shop.example.org/",
        "https://shop.example.org/shop",
        "https://Shop.example.org",
        "HTTPS://shop.example.org",
        "https://shop.example.org:443",
        "http://shop.example.org:80",
        "http://shop.example.org:",
        "http://shop.example.org:080",
        "http://ann@shop.example.org",
        "http://[::1",
        "http://[0:0::1]",
        "http://käthe.de",
        "ftp://shop.example.org",
        "https://a.org,,https://b.org",
        "https://a.org https://b.org",
    ] {
        let Err(Mistakes(mistakes)) = read(bad) else {
            panic!("{bad} is no origin");
        };
        assert!(
            mistakes[0].contains("allowed_origins must be an origin"),
            "{bad}: {mistakes:?}"
        );
    }
}

#[test]
fn an_unknown_variable_is_ignored_with_a_warning_that_names_the_nearest_setting() {
    let environment = [
        ("DOORBUSTER_DRAIN_GRACE", "5"),
        ("DOORBUSTER_PORT", "8080"),
        ("DOORBUSTER_LISTEN", "127.0.0.1:9"),
    ];
    let settings = load(&[], &environment).unwrap();
    assert_eq!(settings.http.listen.port(), 9);
    let expected = [
        "the variable DOORBUSTER_DRAIN_GRACE is ignored: drain_grace is not a setting; did you \
         mean DOORBUSTER_DRAIN_GRACE_SECONDS?",
        "the variable DOORBUSTER_PORT is ignored: port is not a setting",
    ];
    assert_eq!(settings.warnings, expected);

    // So is one that is not even text, unless it is a setting.
    let not_text = OsString::from_vec(vec![0xff]);
    let load = |name: &str| {
        let environment = [(name.into(), not_text.clone())];
        Settings::from_sources(Service::Serve, &flags(&[]), environment)
    };
    assert_eq!(load("DOORBUSTER_ZZZ").unwrap().warnings.len(), 1);
    let Mistakes(found) = load("DOORBUSTER_DEMO").unwrap_err();
    assert_eq!(
        found,
        ["demo must be UTF-8 (from the variable DOORBUSTER_DEMO)"]
    );
}

#[test]
fn what_kubernetes_sets_beside_services_is_ignored() {
    let environment = [
        ("DOORBUSTER_SERVICE_HOST", "10.0.0.1"),
        ("DOORBUSTER_SERVICE_PORT", "80"),
        ("DOORBUSTER_SERVICE_PORT_HTTP", "80"),
        ("DOORBUSTER_PORT", "tcp://10.0.0.1:80"),
        ("DOORBUSTER_PORT_80_TCP", "tcp://10.0.0.1:80"),
        ("DOORBUSTER_PORT_80_TCP_PROTO", "tcp"),
        ("DOORBUSTER_PORT_80_TCP_PORT", "80"),
        ("DOORBUSTER_PORT_80_TCP_ADDR", "10.0.0.1"),
        ("DOORBUSTER_QUERY_API_SERVICE_HOST", "10.0.0.2"),
        ("DOORBUSTER_QUERY_API_PORT", "udp://10.0.0.2:80"),
        ("DOORBUSTER_QUERY_API_PORT_80_UDP_ADDR", "10.0.0.2"),
    ];
    for service in [Service::Serve, Service::Decider, Service::Audit] {
        let settings = load_for(service, &[], &environment).unwrap();
        assert_eq!(settings.warnings, [""; 0]);
    }
}

#[test]
fn a_log_level_that_would_silence_the_log_by_mistake_is_refused() {
    let level = |text| load(&["--log-level", text], &[]).map(|settings| settings.telemetry.level);
    for (text, read) in [
        ("warn", "warn"),
        ("DEBUG", "DEBUG"),
        ("off", "off"),
        ("info, command_api=debug,", "info,command_api=debug"),
        ("command_api=debug", "info,command_api=debug"),
        ("warn,[{partition=3}]=trace", "warn,[{partition=3}]=trace"),
    ] {
        assert_eq!(level(text).unwrap(), read);
    }
    for text in [
        "loud",
        "",
        ",",
        "3",
        "info,loud",
        "command_api",
        "command_api=loud",
        "=",
        "x=",
    ] {
        let Mistakes(found) = level(text).unwrap_err();
        let expected = format!(
            "log_level must be error, warn, info, debug, trace or off, or a list such as \
             info,command_api=debug, not {text:?} (from the flag --log-level)"
        );
        assert_eq!(found, [expected]);
    }
}

#[test]
fn the_address_to_listen_on_is_a_name_or_an_ip_address_with_a_port() {
    let listen = |text| load(&["--listen", text], &[]).map(|settings| settings.http.listen);
    for (text, host, port) in [
        ("localhost:8080", "localhost", 8080),
        ("door-1.example:1", "door-1.example", 1),
        ("0.0.0.0:65535", "0.0.0.0", 65_535),
        ("[::1]:0", "::1", 0),
    ] {
        let address = listen(text).unwrap();
        assert_eq!((address.host(), address.port()), (host, port));
        assert_eq!(address.to_string(), text);
    }
    for text in [
        "localhost",
        ":8080",
        "8080",
        "*:8080",
        "::1:8080",
        "[::1]",
        "[x]:1",
        "a:65536",
        "a:+1",
        "a:",
        "1.2.3:1",
        "a b:1",
        "http://a:1",
        "256.0.0.1:1",
    ] {
        assert!(listen(text).is_err(), "{text}");
    }
}

#[test]
fn a_file_that_cannot_be_read_or_understood_is_a_mistake_among_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("doorbuster.toml");
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
        let listen = service.has_api().then(|| settings.http.listen.port());
        (
            service.name(),
            listen,
            settings.http.operations_listen.port(),
        )
    });
    let expected = [
        ("command-api", Some(8081), 9081),
        ("decider", None, 9084),
        ("projector", None, 9083),
        ("query-api", Some(8082), 9082),
    ];
    assert_eq!(ports, expected);

    // A flag of another service is a mistake; variables may be shared by all services.
    let wrong = load_for(Service::Decider, &["--max-waiters", "5"], &[]).unwrap_err();
    assert_eq!(
        wrong.0,
        ["max_waiters is not a setting of decider (from the flag --max-waiters)"]
    );
    let wrong = load_for(Service::Decider, &["--listen", "[::1]:1"], &[]).unwrap_err();
    assert_eq!(
        wrong.0,
        ["listen is not a setting of decider (from the flag --listen)"]
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
    for text in ["--kafka-brokers", "127.0.0.1:9084", "--config"] {
        assert!(help.contains(text), "{text} is missing in\n{help}");
    }
    for text in ["--max-waiters", "--cql-nodes", "--data-dir", " --listen"] {
        assert!(!help.contains(text), "{text} is in\n{help}");
    }
}
