//! Connecting to a real registry and following it: learned ids, refused schemas, and errors when it does
//! not answer.

mod support;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, Uri};
use registry::{Options, RegistryError, connect, connect_to_read, follow};
use reqwest::Method;
use schemas::codec::DecodeError;
use schemas::topics::Topic;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use support::{
    TOPIC, call, closed_proxy, command, newer, newer_bytes, options, register, registered,
    schema_id, until,
};

#[tokio::test]
async fn records_carry_the_ids_that_the_registry_gave() {
    let options = options().await;
    let first = connect(&options).await.unwrap();
    let again = connect(&options).await.unwrap();
    let bytes = first.encode_command(command());
    assert_eq!(bytes, again.encode_command(command()));
    assert_eq!(again.decode_command(&bytes), Ok(command()));
    for topic in Topic::ALL {
        let subject = options.subject(topic);
        let path = format!("subjects/{subject}/versions");
        let (_, versions) = call(&options, Method::GET, &path, Value::Null).await;
        assert_eq!(versions, json!([1]), "{topic} is registered once");
        let path = format!("{path}/1");
        let (_, version) = call(&options, Method::GET, &path, Value::Null).await;
        let schema: Value = serde_json::from_str(version["schema"].as_str().unwrap()).unwrap();
        let current: Value = serde_json::from_str(topic.schema_json()).unwrap();
        assert_eq!(schema, current, "{topic}");
        if topic == TOPIC {
            assert_eq!(version["id"], schema_id(&bytes));
        }
    }
}

#[tokio::test]
async fn services_that_start_at_the_same_time_get_the_same_ids() {
    for _ in 0..5 {
        let options = options().await;
        let connects = (0..4).map(|_| {
            let options = options.clone();
            tokio::spawn(async move { connect(&options).await.unwrap() })
        });
        let mut written = BTreeSet::new();
        for connected in connects.collect::<Vec<_>>() {
            written.insert(connected.await.unwrap().encode_command(command()));
        }
        assert_eq!(written.len(), 1);
        for topic in Topic::ALL {
            let path = format!("subjects/{}/versions", options.subject(topic));
            let (_, versions) = call(&options, Method::GET, &path, Value::Null).await;
            assert_eq!(versions, json!([1]), "{topic} is registered once");
        }
    }
}

/// A registry that may only be read: it passes look-ups on and refuses every change. Returns options
/// with its address.
async fn read_only(options: &Options) -> Options {
    let target = options.url.clone();
    let answer = async move |method: Method, uri: Uri, body: String| {
        let path = uri.path();
        let looks_up = method == Method::POST && !path.ends_with("/versions");
        if method != Method::GET && !looks_up {
            let refused = json!({ "error_code": 42205, "message": "it is in read only mode" });
            return (StatusCode::UNPROCESSABLE_ENTITY, refused.to_string());
        }
        let request = reqwest::Client::new().request(method, format!("{target}{uri}"));
        let request = match body.is_empty() {
            true => request,
            false => request
                .header("content-type", "application/json")
                .body(body),
        };
        let answer = request.send().await.unwrap();
        (answer.status(), answer.text().await.unwrap())
    };
    let Options { url, .. } = serve(Router::new().fallback(answer)).await;
    Options {
        url,
        ..options.clone()
    }
}

#[tokio::test]
async fn a_registry_that_may_only_be_read_is_enough_when_it_has_the_schemas() {
    let options = options().await;
    let through = read_only(&options).await;
    // Without the schemas they would have to be registered.
    let error = connect(&through).await.err().unwrap();
    assert!(error.to_string().contains("read only mode"), "{error}");

    let direct = connect(&options).await.unwrap();
    let subject = options.subject(TOPIC);
    // Whether the compatibility is set or must stay as it is.
    for level in ["FULL_TRANSITIVE", "BACKWARD"] {
        let body = json!({ "compatibility": level });
        let path = format!("config/{subject}");
        let (status, answer) = call(&options, Method::PUT, &path, body).await;
        assert_eq!(status, 200, "{answer}");
        let codec = connect(&through).await.unwrap();
        assert_eq!(
            codec.encode_command(command()),
            direct.encode_command(command())
        );
    }
    let path = format!("subjects/{subject}/versions");
    let (_, versions) = call(&options, Method::GET, &path, Value::Null).await;
    assert_eq!(versions, json!([1]));
}

#[tokio::test]
async fn who_only_reads_registers_nothing() {
    let options = options().await;
    let subject = options.subject(Topic::ALL[0]);
    let absent = connect_to_read(&options).await.err().unwrap();
    assert_eq!(absent, RegistryError::Absent { subject });
    for topic in Topic::ALL {
        let path = format!("subjects/{}/versions", options.subject(topic));
        let (status, answer) = call(&options, Method::GET, &path, Value::Null).await;
        assert_eq!(status, 404, "{answer}");
    }
    let bytes = connect(&options).await.unwrap().encode_command(command());
    let codec = connect_to_read(&options).await.unwrap();
    assert_eq!(codec.decode_command(&bytes), Ok(command()));
}

#[tokio::test]
async fn every_version_under_a_subject_is_read_from_the_start() {
    let options = options().await;
    let subject = options.subject(TOPIC);
    let other = registered(&options, &subject, &newer("note")).await;
    let codec = connect(&options).await.unwrap();
    let bytes = codec.encode_command(command());
    assert_ne!(schema_id(&bytes), other, "the current schema is written");
    assert_eq!(codec.decode_command(&newer_bytes(other)), Ok(command()));
    // The same bytes do not fit the current schema: each record is read by its own schema.
    let current = newer_bytes(schema_id(&bytes));
    assert!(matches!(
        codec.decode_command(&current),
        Err(DecodeError::Malformed(_))
    ));
}

#[tokio::test]
async fn subjects_accept_only_schemas_compatible_with_every_version() {
    let options = options().await;
    connect(&options).await.unwrap();
    for topic in Topic::ALL {
        let path = format!("config/{}", options.subject(topic));
        let (_, config) = call(&options, Method::GET, &path, Value::Null).await;
        assert_eq!(config["compatibilityLevel"], "FULL_TRANSITIVE", "{topic}");
    }
    // A field is removed and comes back with another type: compatible with the version before, but
    // not with all versions.
    let subject = options.subject(TOPIC);
    registered(&options, &subject, &newer("note")).await;
    registered(&options, &subject, &newer("remark")).await;
    let retyped = newer("note").replace(r#"["null","long"]"#, r#"["null","string"]"#);
    assert_ne!(retyped, newer("note"));
    let (status, answer) = register(&options, &subject, &retyped).await;
    assert_eq!(status, 409, "{answer}");
}

#[tokio::test]
async fn another_products_schema_under_our_subject_is_refused() {
    let options = options().await;
    let subject = options.subject(Topic::StockDecisions);
    let foreign = r#"{"type":"record","name":"Shelf","fields":[{"name":"n","type":"int"}]}"#;
    registered(&options, &subject, foreign).await;
    let error = connect(&options).await.err().unwrap();
    let RegistryError::Incompatible {
        subject: at,
        message,
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!(at, &subject);
    assert!(message.contains("ncompatible"), "{message}");
    assert!(error.to_string().contains(&subject), "{error}");
}

#[tokio::test]
async fn an_unknown_id_is_learned_if_it_is_under_the_topics_subject() {
    let options = options().await;
    let codec = Arc::new(connect(&options).await.unwrap());
    let stop = CancellationToken::new();
    let following = tokio::spawn(follow(options.clone(), codec.clone(), stop.clone()));

    let elsewhere = format!("{}elsewhere", options.subject_prefix);
    let foreign = registered(&options, &elsewhere, &newer("foreign")).await;
    let ours = registered(&options, &options.subject(TOPIC), &newer("note")).await;
    let unknown = |id| Err(DecodeError::UnknownSchema { id, topic: TOPIC });
    // An id that is not registered, one under another subject, and ours, all at once.
    let unregistered = 2_000_000_000;
    for id in [unregistered, foreign, ours] {
        assert_eq!(codec.decode_command(&newer_bytes(id)), unknown(id));
    }
    let learned = || codec.decode_command(&newer_bytes(ours)) == Ok(command());
    until("the newer version is read", learned).await;
    for id in [unregistered, foreign] {
        let refused = Err(DecodeError::ForeignSchema { id, topic: TOPIC });
        let skipped = || codec.decode_command(&newer_bytes(id)) == refused;
        until("it is known as another's", skipped).await;
    }

    stop.cancel();
    timeout(Duration::from_secs(5), following)
        .await
        .expect("`follow` ends")
        .unwrap();
}

#[tokio::test]
async fn an_unreachable_registry_is_asked_again() {
    let options = options().await;
    let codec = Arc::new(connect(&options).await.unwrap());
    let other = registered(&options, &options.subject(TOPIC), &newer("note")).await;
    let (url, open) = closed_proxy(&options).await;
    let through = Options {
        url,
        ..options.clone()
    };
    let error = connect(&through).await.err().unwrap();
    assert!(matches!(error, RegistryError::Unreachable(_)), "{error}");

    let stop = CancellationToken::new().drop_guard();
    tokio::spawn(follow(through, codec.clone(), stop.token().clone()));
    let mut tries = 0;
    let deadline = tokio::time::Instant::now() + Duration::from_millis(1_500);
    while tokio::time::Instant::now() < deadline {
        assert!(codec.decode_command(&newer_bytes(other)).is_err());
        // A running service still writes and reads its own version.
        let bytes = codec.encode_command(command());
        assert_eq!(codec.decode_command(&bytes), Ok(command()));
        tries += 1;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(tries > 1);
    open.store(true, Ordering::Relaxed);
    let learned = || codec.decode_command(&newer_bytes(other)) == Ok(command());
    until("the newer version is read", learned).await;
}

/// A server that gives every request the same answer.
async fn answering(status: u16, body: &'static str) -> Options {
    let answer = move || async move { (StatusCode::from_u16(status).unwrap(), body) };
    serve(Router::new().fallback(answer)).await
}

async fn serve(router: Router) -> Options {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    Options {
        url,
        ..Options::default()
    }
}

#[tokio::test]
async fn whether_a_retry_can_help_depends_on_the_answer() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let unreachable = Options {
        url: format!("http://{}", free.local_addr().unwrap()),
        ..Options::default()
    };
    drop(free);
    let error = connect(&unreachable).await.err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, RegistryError::Unreachable(_)), "{text}");
    assert!(
        text.contains("Connection refused") && text.contains(&unreachable.url),
        "{text}"
    );

    let coded = r#"{"error_code":40101,"message":"who are you"}"#;
    for (status, body, retry_helps) in [
        (500, r#"{"error_code":50001,"message":"disk"}"#, true),
        (502, "<html>", true),
        (503, "starting", true),
        (429, "slowly", true),
        (401, coded, false),
        (404, "<html>", false),
    ] {
        let error = connect(&answering(status, body).await).await.err().unwrap();
        let text = error.to_string();
        assert!(text.contains(body), "{text}");
        assert!(text.contains(&status.to_string()), "{text}");
        assert_eq!(
            matches!(error, RegistryError::Unreachable(_)),
            retry_helps,
            "{text}"
        );
        assert_eq!(
            matches!(error, RegistryError::Refused(_)),
            !retry_helps,
            "{text}"
        );
    }
}

#[tokio::test]
async fn whether_a_retry_can_help_depends_on_the_answer_to_a_registration() {
    for (status, body, retry_helps) in [
        (500, r#"{"error_code":50001,"message":"disk"}"#, true),
        (504, "<html>", true),
        (503, "starting", true),
        (429, r#"{"error_code":42901,"message":"slowly"}"#, true),
        (403, r#"{"error_code":40301,"message":"read only"}"#, false),
        (422, r#"{"error_code":42205,"message":"read only"}"#, false),
    ] {
        let answer = move |uri: Uri| async move {
            match uri.path().starts_with("/config/") {
                true => (StatusCode::OK, "{}"),
                false => (StatusCode::from_u16(status).unwrap(), body),
            }
        };
        let options = serve(Router::new().fallback(answer)).await;
        let error = connect(&options).await.err().unwrap();
        let text = error.to_string();
        let message = body
            .rsplit_once(r#"message":""#)
            .map_or("", |(_, message)| message.trim_end_matches(r#""}"#));
        assert!(text.contains(message), "{text}");
        assert!(text.contains(&status.to_string()), "{text}");
        assert_eq!(
            matches!(error, RegistryError::Unreachable(_)),
            retry_helps,
            "{text}"
        );
        assert_eq!(
            matches!(error, RegistryError::Refused(_)),
            !retry_helps,
            "{text}"
        );
    }
}

#[tokio::test]
async fn a_conflict_with_a_registration_at_the_same_time_is_retried() {
    // Apicurio's answer to the second client; then it has the schema of the first one.
    let message = "An artifact version 'null' for artifact ID 'a' in group 'null' already exists.";
    let body = json!({ "error_code": 0, "message": message }).to_string();
    for (conflicts, fails) in [(3, false), (4, true)] {
        let left = Arc::new(AtomicU32::new(conflicts));
        let body = body.clone();
        let answer = async move |method: Method, uri: Uri| {
            let registers = method == Method::POST && uri.path().ends_with("/versions");
            let looks_up = method == Method::POST && !registers;
            let absent = json!({ "error_code": 40401, "message": "no such subject" });
            let take = |left: u32| left.checked_sub(1);
            let (order, body) = (Ordering::Relaxed, body.clone());
            match registers && left.fetch_update(order, order, take).is_ok() {
                true => (StatusCode::CONFLICT, body),
                false if looks_up && left.load(order) > 0 => {
                    (StatusCode::NOT_FOUND, absent.to_string())
                }
                false => (StatusCode::OK, json!({ "id": 7 }).to_string()),
            }
        };
        let options = serve(Router::new().fallback(answer)).await;
        let error = connect(&options).await.err().unwrap();
        let text = error.to_string();
        match fails {
            true => assert!(
                matches!(&error, RegistryError::Incompatible { .. }),
                "{text}"
            ),
            // The next call, for the list of versions, gets another answer than a list.
            false => assert!(text.contains("versions"), "{text}"),
        }
        assert_eq!(text.contains(message), fails, "{text}");
    }
}

#[tokio::test]
async fn every_call_has_the_credentials_and_they_are_not_shown() {
    let anonymous = Arc::new(AtomicBool::new(false));
    let calls = Arc::new(Mutex::new(Vec::new()));
    let (any_anonymous, paths) = (anonymous.clone(), calls.clone());
    let answer = async move |headers: HeaderMap, uri: Uri| {
        // ann:secret
        let named = headers
            .get("authorization")
            .is_some_and(|it| it == "Basic YW5uOnNlY3JldA==");
        any_anonymous.fetch_or(!named, Ordering::Relaxed);
        paths.lock().unwrap().push(uri.path().to_owned());
        axum::Json(json!({ "id": 7 }))
    };
    let options = Options {
        username: Some("ann".into()),
        password: Some("secret".into()),
        ..serve(Router::new().fallback(answer)).await
    };
    // The answer is not a list of versions. Until then each topic's schema was looked up, and its
    // compatibility read and set.
    let error = connect(&options).await.err().unwrap();
    assert!(error.to_string().contains("versions"), "{error}");
    assert_eq!(calls.lock().unwrap().len(), 3 * Topic::ALL.len() + 1);
    assert!(!anonymous.load(Ordering::Relaxed));
    let shown = format!("{options:?}");
    assert!(
        shown.contains("ann") && !shown.contains("secret"),
        "{shown}"
    );
    let url = "https://ann:secret@registry.example.org/";
    let options = Options {
        url: url.into(),
        ..Options::default()
    };
    let shown = format!("{options:?}");
    assert!(
        shown.contains("registry.example.org") && !shown.contains("secret"),
        "{shown}"
    );
    let error = connect(&options).await.err().unwrap().to_string();
    assert!(
        error.contains("settings of their own") && !error.contains("secret"),
        "{error}"
    );
}

#[tokio::test]
async fn invalid_settings_are_refused() {
    for (url, prefix, what) in [
        ("localhost:8081", "", "http://"),
        ("ftp://localhost", "", "http://"),
        ("", "", "http://"),
        ("http://localhost", "a/b", "prefix"),
        ("http://localhost", "a b", "prefix"),
    ] {
        let options = Options {
            url: url.into(),
            subject_prefix: prefix.into(),
            ..Options::default()
        };
        let error = connect(&options).await.err().unwrap();
        assert!(matches!(error, RegistryError::Refused(_)), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}
