//! The trace of a request is appended with its command.

use std::io::Write;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tracing::level_filters::LevelFilter;

use crate::support::{ADMIN, BUYER, CANCEL, ORDER, SALE, world};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: (&str, &str) = (
    "traceparent",
    "00-0af7651916cd43dd8448eb211c80319c-b9c7c989f97918e1-01",
);
const STATE: (&str, &str) = ("tracestate", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE");

/// Every call that appends: method, path, body.
fn calls() -> Vec<(&'static str, String, &'static str)> {
    let sale = r#"{"name":"x","price":{"minor":1,"currency":"EUR"},"stock":1}"#;
    vec![
        ("POST", ORDER.into(), r#"{"quantity":1}"#),
        ("POST", CANCEL.into(), ""),
        ("PUT", SALE.into(), sale),
        ("POST", format!("{SALE}/open"), ""),
        ("POST", format!("{SALE}/pause"), ""),
        ("POST", format!("{SALE}/close"), ""),
        ("POST", format!("{SALE}/stock"), r#"{"stock":1}"#),
    ]
}

/// The headers of the record that each call appends, which answers 202 whatever they are.
async fn appended(headers: &[(&str, &str)]) -> Vec<Vec<(String, Bytes)>> {
    let mut appended = Vec::new();
    for (method, path, body) in calls() {
        let world = world(Some("let-me-in"));
        let headers = [&[BUYER, ADMIN], headers].concat();
        let answer = world.call(method, &path, &headers, body).await;
        assert_eq!(answer.status, 202, "{method} {path}: {}", answer.body);
        for name in ["traceparent", "tracestate"] {
            assert_eq!(answer.header(name), "", "the answer carries no trace");
        }
        appended.extend(
            world
                .appended()
                .into_iter()
                .map(|(_, record)| record.headers),
        );
    }
    assert_eq!(appended.len(), 7);
    appended
}

#[tokio::test]
async fn every_command_carries_the_trace_of_its_request() {
    let header = |(name, value): (&str, &'static str)| (name.to_owned(), value.into());
    for headers in appended(&[PARENT]).await {
        assert_eq!(headers, [header(PARENT)]);
    }
    for headers in appended(&[STATE, PARENT]).await {
        assert_eq!(headers, [header(PARENT), header(STATE)]);
    }
}

#[tokio::test]
async fn an_invalid_trace_is_ignored_and_none_is_made_up() {
    let long = "x".repeat(257);
    let cases: [&[(&str, &str)]; 4] = [
        &[],
        &[("traceparent", "00-0af7651916cd43dd-b9c7c989f97918e1-01")],
        &[STATE],
        &[PARENT, PARENT],
    ];
    for case in cases {
        for headers in appended(case).await {
            assert_eq!(headers, [], "{case:?}");
        }
    }
    for headers in appended(&[PARENT, ("tracestate", &long)]).await {
        assert_eq!(headers.len(), 1);
    }
}

/// The log lines of all tests of this program: a log level that only some threads set is not
/// applied reliably.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn log_lines_name_the_trace() {
    let lines = Lines::default();
    let to = lines.clone();
    tracing_subscriber::fmt()
        .with_max_level(LevelFilter::DEBUG)
        .with_ansi(false)
        .with_writer(move || to.clone())
        .init();
    let world = world(None);
    // A product of this test alone, passed on since the store cannot tell that it is unknown.
    world.store.fail(true);
    for headers in [&[BUYER][..], &[BUYER, PARENT]] {
        let order = "/api/flash-sales/of-the-lines/order";
        world
            .call("POST", order, headers, r#"{"quantity":1}"#)
            .await;
    }
    let text = String::from_utf8(lines.0.lock().clone()).unwrap();
    let ours = text.lines().filter(|it| it.contains("of-the-lines"));
    let ours: Vec<_> = ours.collect();
    // That the store failed, and that the order was appended; twice.
    assert_eq!(ours.len(), 4, "{text}");
    let with_trace = format!("trace_id={TRACE}");
    assert!(
        ours[..2].iter().all(|it| !it.contains("trace_id")),
        "{text}"
    );
    assert!(
        ours[2..].iter().all(|it| it.contains(&with_trace)),
        "{text}"
    );
}
