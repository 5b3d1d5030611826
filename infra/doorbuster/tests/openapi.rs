//! The description at `/openapi.json`, compared with the routes, and rules over the whole document.
//! `openapi_outside.rs` has what the tools of others find.

mod support;

use serde_json::Value;
use support::instance::{ADMIN, BUYER, call, description, start};

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
            if is_error && !is_problem {
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
async fn every_described_route_exists_and_answers_as_described() {
    let dir = tempfile::tempdir().unwrap();
    let running = start(dir.path()).await;
    let at = running.address();
    let (status, description) = call(at, "GET", "/openapi.json", "", "").await;
    assert_eq!(status, 200);
    let mut described = 0;
    for (template, operations) in description["paths"].as_object().unwrap() {
        let path = template
            .replace("{product_id}", "demo-sneaker")
            .replace("{attempt_id}", "0188bb5c-0000-4000-8000-000000000001");
        for (method, operation) in operations.as_object().unwrap() {
            described += 1;
            let method = method.to_uppercase();
            for (headers, body) in [("", ""), (BUYER, "{}"), (ADMIN, r#"{"quantity":1}"#)] {
                let (status, answer) = call(at, &method, &path, headers, body).await;
                let case = format!("{method} {template} with {headers:?} {body}: {answer}");
                let code = answer["code"].as_str().unwrap_or_default();
                assert!(
                    !["not_found", "method_not_allowed", "internal"].contains(&code),
                    "{case}"
                );
                assert!(
                    operation["responses"].get(status.to_string()).is_some(),
                    "{status} {case}"
                );
            }
            let (status, _) = call(at, "TRACE", &path, "", "").await;
            assert_eq!(status, 405, "TRACE {template}");
        }
    }
    let expected = [
        ("post", "/api/flash-sales/{product_id}/order"),
        (
            "post",
            "/api/flash-sales/{product_id}/order/{attempt_id}/cancel",
        ),
        ("put", "/api/admin/flash-sales/{product_id}"),
        ("post", "/api/admin/flash-sales/{product_id}/open"),
        ("post", "/api/admin/flash-sales/{product_id}/pause"),
        ("post", "/api/admin/flash-sales/{product_id}/close"),
        ("post", "/api/admin/flash-sales/{product_id}/stock"),
        ("post", "/api/admin/flash-sales/{product_id}/rounds"),
        ("get", "/api/flash-sales"),
        ("get", "/api/flash-sales/{product_id}"),
        ("get", "/api/flash-sales/{product_id}/intents"),
        ("get", "/api/buyers/me/orders"),
        ("get", "/api/attempts/{attempt_id}"),
        ("get", "/api/commands/{command_id}"),
        ("post", "/api/admin/clock-corrections"),
        (
            "post",
            "/api/admin/flash-sales/{product_id}/clock-correction",
        ),
    ];
    for (method, path) in expected {
        assert!(
            description["paths"][path].get(method).is_some(),
            "{method} {path} is not described"
        );
    }
    for (method, path) in &expected[..8] {
        let parameters = description["paths"][path][method]["parameters"].as_array();
        let named = |name| parameters.unwrap().iter().any(|it| it["name"] == name);
        assert!(
            named("traceparent") && named("tracestate"),
            "the trace of {method} {path} is not described"
        );
    }
    assert_eq!(
        described,
        expected.len(),
        "{:?}",
        description["paths"].as_object().unwrap().keys()
    );
    let schemas = &description["components"]["schemas"];
    assert!(
        schemas["Problem"]["properties"]["retry"].is_object(),
        "{schemas}"
    );
    running.shutdown().await.unwrap();
}

#[tokio::test]
async fn the_description_keeps_its_rules() {
    let document = description().await;
    assert!(entries(&document["paths"]).count() >= 12);
    let faults = faults(&document);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
