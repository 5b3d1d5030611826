//! A real registry, a proxy to it that can be closed, and records of another version.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use registry::Options;
use reqwest::{Client, Method};
use schemas::codec::Codec;
use schemas::command::{Command, CommandBody};
use schemas::topics::Topic;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

/// The topic of which the tests write another version.
pub const TOPIC: Topic = Topic::PurchaseAttempts;

/// Options with subjects of this test's own in the shared registry.
pub async fn options() -> Options {
    let url = tokio::task::spawn_blocking(|| engines::shared().registry_url());
    Options {
        url: url.await.unwrap(),
        subject_prefix: format!("test-{}-", uuid::Uuid::new_v4().simple()),
        ..Options::default()
    }
}

/// Calls the registry's API; returns status and answer.
pub async fn call(options: &Options, method: Method, path: &str, body: Value) -> (u16, Value) {
    let request = Client::new().request(method, format!("{}/{path}", options.url));
    let request = match body {
        Value::Null => request,
        body => request.json(&body),
    };
    let answer = request.send().await.unwrap();
    let status = answer.status().as_u16();
    (status, answer.json().await.unwrap())
}

/// Registers a schema through the API; returns status and answer.
pub async fn register(options: &Options, subject: &str, schema: &str) -> (u16, Value) {
    let path = format!("subjects/{subject}/versions");
    let body = json!({ "schemaType": "AVRO", "schema": schema });
    call(options, Method::POST, &path, body).await
}

/// Registers a schema and returns its id.
pub async fn registered(options: &Options, subject: &str, schema: &str) -> u32 {
    let (status, answer) = register(options, subject, schema).await;
    assert_eq!(status, 200, "{answer}");
    answer["id"].as_u64().unwrap() as u32
}

/// The topic's schema with one more field at the end.
pub fn newer(field: &str) -> String {
    let mut schema: Value = serde_json::from_str(TOPIC.schema_json()).unwrap();
    let field = json!({ "name": field, "type": ["null", "long"], "default": null });
    schema["fields"].as_array_mut().unwrap().push(field);
    schema.to_string()
}

pub fn command() -> Command {
    let product_id = "lamp".parse().unwrap();
    let body = CommandBody::OpenSale;
    Command {
        product_id,
        body,
        if_version: None,
    }
}

/// The command as written by a version with one more nullable field.
pub fn newer_bytes(id: u32) -> Vec<u8> {
    let mut bytes = Codec::embedded().encode_command(command());
    bytes[1..5].copy_from_slice(&id.to_be_bytes());
    bytes.push(0);
    bytes
}

/// The schema id in a record.
pub fn schema_id(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[1..5].try_into().unwrap())
}

/// Waits until a condition holds, a minute at most.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "not within a minute: {what}");
        sleep(Duration::from_millis(20)).await;
    }
}

/// A proxy to the registry that is closed at first. Returns its address and the switch that opens it.
pub async fn closed_proxy(options: &Options) -> (String, Arc<AtomicBool>) {
    let target = reqwest::Url::parse(&options.url).unwrap();
    let to = format!("{}:{}", target.host_str().unwrap(), target.port().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}{}", listener.local_addr().unwrap(), target.path());
    let open = Arc::new(AtomicBool::new(false));
    let is_open = open.clone();
    tokio::spawn(async move {
        while let Ok((mut from, _)) = listener.accept().await {
            if !is_open.load(Ordering::Relaxed) {
                continue;
            }
            let mut to = TcpStream::connect(&to).await.unwrap();
            tokio::spawn(async move {
                // The client notices a broken connection itself.
                let _ = tokio::io::copy_bidirectional(&mut from, &mut to).await;
            });
        }
    });
    (url, open)
}
