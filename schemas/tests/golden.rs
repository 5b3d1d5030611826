//! The bytes of every released version read as they did when it was released.
//!
//! `golden/v1/` and so on have, for each case, the whole record in hex and what apache-avro reads in it as
//! JSON, and a copy of each schema. Of the last version, files that are missing are written, and
//! those that are there left alone, by
//!
//! ```text
//! DOORBUSTER_WRITE_GOLDEN=1 cargo test -p schemas --test golden
//! ```

mod cases;

use std::path::PathBuf;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::schema_compatibility::{Compatibility, SchemaCompatibility};
use schemas::codec::{Codec, chain_hash};
use schemas::command::CommandBody;
use schemas::decision::{DecisionRecord, Event};
use schemas::ids::ChainHash;
use schemas::topics::Topic;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use cases::Record;

/// Every released version's folder under `golden/`.
const RELEASED: [&str; 2] = ["v1", "v2"];
/// The version that is written today.
const TODAY: &str = "v2";

fn golden(version: &str, file: &str) -> PathBuf {
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("golden");
    golden.join(version).join(file)
}

/// The file's text. A missing file is written first if that was requested.
fn text_of(file: &str, today: impl FnOnce() -> String) -> String {
    let path = golden(TODAY, file);
    if !path.exists() && std::env::var_os("DOORBUSTER_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, today()).unwrap();
    }
    std::fs::read_to_string(&path).unwrap_or_else(|error| {
        panic!(
            "{}: {error}; see the top of this file for how it is written",
            path.display()
        )
    })
}

fn to_hex(bytes: &[u8]) -> String {
    let line = |bytes: &[u8]| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    bytes.chunks(32).map(|bytes| line(bytes) + "\n").collect()
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let pair = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    digits.chunks(2).map(pair).collect()
}

fn released_schema(version: &str, topic: Topic) -> Schema {
    let text = std::fs::read_to_string(golden(version, &format!("{topic}.avsc"))).unwrap();
    Schema::parse_str(&text).unwrap()
}

/// What the independent crate reads in a record.
fn apache_reading(schema: &Schema, bytes: &[u8]) -> Value {
    let mut value = &bytes[5..];
    let reader = GenericDatumReader::builder(schema).build().unwrap();
    let read = reader.read_value(&mut value).unwrap();
    assert!(value.is_empty(), "{} bytes are left over", value.len());
    read.try_into().unwrap()
}

/// Nulls for all of a record's cases, and then the one that is there.
fn one_case(cases: &[&str], case: &str, value: Value) -> Value {
    assert!(cases.contains(&case), "{case}");
    let nulls = cases.iter().map(|name| ((*name).to_owned(), Value::Null));
    let mut record: serde_json::Map<String, Value> = nulls.collect();
    record.insert(case.into(), value);
    Value::Object(record)
}

/// The record field by field as the schema names them.
fn fields_of(record: &Record) -> Value {
    match record {
        Record::Command(command) => {
            let (case, value) = match &command.body {
                CommandBody::PlaceAttempt(body) => ("place_attempt", json!(body)),
                CommandBody::CancelOrder(body) => ("cancel_order", json!(body)),
                CommandBody::PutSale(body) => ("put_sale", json!(body)),
                CommandBody::OpenSale => ("open_sale", json!({})),
                CommandBody::PauseSale => ("pause_sale", json!({})),
                CommandBody::CloseSale => ("close_sale", json!({})),
                CommandBody::SetStock(body) => ("set_stock", json!(body)),
                CommandBody::TimeAdvanced => ("time_advanced", json!({})),
                CommandBody::BeginRound(body) => ("begin_round", json!(body)),
                CommandBody::CorrectClock => ("correct_clock", json!({})),
            };
            let cases = [
                "place_attempt",
                "cancel_order",
                "put_sale",
                "open_sale",
                "pause_sale",
                "close_sale",
                "set_stock",
                "time_advanced",
                "begin_round",
                "correct_clock",
            ];
            let mut fields = one_case(&cases, case, value);
            fields["product_id"] = json!(command.product_id);
            fields["if_version"] = json!(command.if_version);
            fields
        }
        Record::Decision(DecisionRecord::Claim(claim)) => {
            json!({ "claim": claim, "skipped": null, "decision": null })
        }
        Record::Decision(DecisionRecord::Skipped(skipped)) => {
            json!({ "claim": null, "skipped": skipped, "decision": null })
        }
        Record::Decision(DecisionRecord::Decision(decision)) => {
            let decision = json!({
                "claim": decision.claim,
                "answers": decision.answers,
                "follows": decision.follows,
                "product_id": decision.product_id,
                "version": decision.version,
                "decided_at_ms": decision.decided_at_ms,
                "events": decision.events.iter().map(fields_of_event).collect::<Vec<_>>(),
                "stock": decision.stock,
                "tally": decision.tally,
                "command": decision.command,
                "chain": decision.chain,
            });
            json!({ "claim": null, "skipped": null, "decision": decision })
        }
        Record::Snapshot(snapshot) => json!(snapshot),
    }
}

fn fields_of_event(event: &Event) -> Value {
    let (case, value) = match event {
        Event::SaleSet(event) => ("sale_set", json!(event)),
        Event::SaleOpened => ("sale_opened", json!({})),
        Event::SalePaused => ("sale_paused", json!({})),
        Event::SaleClosed => ("sale_closed", json!({})),
        Event::StockSet(event) => ("stock_set", json!(event)),
        Event::OrderAccepted(event) => ("order_accepted", json!(event)),
        Event::AttemptRefused(event) => ("attempt_refused", json!(event)),
        Event::AttemptRepeated(event) => ("attempt_repeated", json!(event)),
        Event::OrderReleased(event) => ("order_released", json!(event)),
        Event::CancelRefused(event) => ("cancel_refused", json!(event)),
        Event::SaleChangeRefused(event) => ("sale_change_refused", json!(event)),
        Event::AttemptConflicted(event) => ("attempt_conflicted", json!(event)),
        Event::ClockCorrected(event) => ("clock_corrected", json!(event)),
    };
    let cases = [
        "sale_set",
        "sale_opened",
        "sale_paused",
        "sale_closed",
        "stock_set",
        "order_accepted",
        "attempt_refused",
        "attempt_repeated",
        "order_released",
        "cancel_refused",
        "sale_change_refused",
        "attempt_conflicted",
        "clock_corrected",
    ];
    one_case(&cases, case, value)
}

#[test]
fn every_record_of_today_reads_as_it_is() {
    let codec = Codec::embedded();
    for topic in Topic::ALL {
        text_of(&format!("{topic}.avsc"), || topic.schema_json().into());
    }
    for (name, record) in cases::all() {
        let topic = record.topic();
        let bytes = from_hex(&text_of(&format!("{name}.hex"), || {
            to_hex(&record.encode(&codec))
        }));
        let read = apache_reading(&released_schema(TODAY, topic), &bytes);
        let expected = text_of(&format!("{name}.json"), || {
            format!("{:#}\n", fields_of(&record))
        });
        let expected: Value = serde_json::from_str(&expected).unwrap();
        assert_eq!(
            cases::decode(&codec, topic, &bytes),
            Ok(record.clone()),
            "{name}"
        );
        assert_eq!(read, expected, "{name}, as apache-avro reads it");
        assert_eq!(fields_of(&record), expected, "{name}, field by field");
    }
}

/// The value without the fields that are null, which an older version may not have at all.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let there = fields.into_iter().filter(|(_, value)| !value.is_null());
            let fields = there.map(|(name, value)| (name, without_nulls(value)));
            Value::Object(fields.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        value => value,
    }
}

#[test]
fn every_record_of_an_older_version_reads_as_it_did() {
    let codec = Codec::embedded();
    let mut read = 0;
    for version in RELEASED.into_iter().filter(|version| *version != TODAY) {
        for entry in std::fs::read_dir(golden(version, "")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension() != Some("hex".as_ref()) {
                continue;
            }
            let name = path.file_stem().unwrap().to_str().unwrap();
            let topic = match name.split('-').next().unwrap() {
                "command" => Topic::PurchaseAttempts,
                "snapshot" => Topic::ProductSnapshots,
                _ => Topic::StockDecisions,
            };
            let bytes = from_hex(&std::fs::read_to_string(&path).unwrap());
            let expected = std::fs::read_to_string(path.with_extension("json")).unwrap();
            let expected: Value = serde_json::from_str(&expected).unwrap();
            let schema = released_schema(version, topic);
            assert_eq!(
                apache_reading(&schema, &bytes),
                expected,
                "{version} {name}"
            );
            let record = cases::decode(&codec, topic, &bytes).unwrap();
            assert_eq!(
                without_nulls(fields_of(&record)),
                without_nulls(expected),
                "{version} {name}"
            );
            read += 1;
        }
    }
    assert!(read > 0);
}

#[test]
fn todays_records_are_written_as_the_last_version() {
    for (name, record) in cases::all() {
        let written = to_hex(&record.encode(&Codec::embedded()));
        assert_eq!(
            written,
            text_of(&format!("{name}.hex"), || written.clone()),
            "{name}"
        );
    }
}

#[test]
fn the_schemas_of_older_versions_have_ids_of_their_own() {
    let mut ids = Vec::new();
    for topic in Topic::ALL {
        ids.extend(topic.older_schemas().iter().map(|(id, _)| *id));
        ids.push(topic.embedded_schema_id());
        assert_eq!(topic.older_schemas().len() + 1, RELEASED.len(), "{topic}");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), RELEASED.len() * Topic::ALL.len());
}

#[test]
fn no_golden_file_is_without_its_case() {
    let cases: Vec<String> = cases::all().into_iter().map(|(name, _)| name).collect();
    let topics = Topic::ALL.map(|topic| topic.name().to_owned());
    let mut found = 0;
    for entry in std::fs::read_dir(golden(TODAY, "")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert!(cases.contains(&name) || topics.contains(&name), "{name}");
        found += 1;
    }
    assert_eq!(found, 2 * cases.len() + topics.len());
}

#[test]
fn the_chain_hash_is_sha_256_over_the_hash_before_and_the_value_before_its_own() {
    let codec = Codec::embedded();
    let mut previous = [0u8; 32];
    for (name, record) in cases::all() {
        let Record::Decision(DecisionRecord::Decision(decision)) = record else {
            continue;
        };
        let released = from_hex(&text_of(&format!("{name}.hex"), || {
            unreachable!("written above")
        }));
        let before_chain = &released[5..released.len() - 32];
        let expected: [u8; 32] = Sha256::digest([&previous[..], before_chain].concat()).into();
        assert_eq!(
            chain_hash(&released, ChainHash(previous)).0,
            expected,
            "{name}"
        );
        let (bytes, chain) = codec.encode_chained(decision, ChainHash(previous));
        assert_eq!(chain.0, expected, "{name}");
        assert_eq!(
            bytes[..bytes.len() - 32],
            released[..released.len() - 32],
            "{name}"
        );
        let schema = released_schema(TODAY, Topic::StockDecisions);
        let read = apache_reading(&schema, &bytes);
        assert_eq!(
            read["decision"]["chain"],
            json!(expected.to_vec()),
            "{name}"
        );
        previous = expected;
    }
    assert_ne!(previous, [0; 32]);
}

/// Whether every reader of one schema reads all of the other's records, both ways.
fn compatible(one: &Schema, other: &Schema) -> bool {
    matches!(
        SchemaCompatibility::mutual_read(one, other),
        Ok(Compatibility::Full)
    )
}

#[test]
fn todays_schemas_and_all_released_ones_read_each_other() {
    for topic in Topic::ALL {
        let today = Schema::parse_str(topic.schema_json()).unwrap();
        for version in RELEASED {
            assert!(
                compatible(&today, &released_schema(version, topic)),
                "{topic} {version}"
            );
        }
    }
}

#[test]
fn incompatible_changes_are_refused_and_a_new_case_is_not() {
    let topic = Topic::PurchaseAttempts;
    let released = released_schema("v1", topic);
    let changed = |change: fn(&mut Vec<Value>)| {
        let mut schema: Value = serde_json::from_str(topic.schema_json()).unwrap();
        change(schema["fields"].as_array_mut().unwrap());
        let schema = Schema::parse_str(&schema.to_string()).unwrap();
        compatible(&schema, &released)
    };
    assert!(changed(|_| {}));
    let new_case = changed(|fields| {
        fields.push(json!({ "name": "pay", "type": ["null", "long"], "default": null }));
    });
    assert!(new_case);
    let removed = changed(|fields| drop(fields.remove(0)));
    assert!(!removed, "a field without default is gone");
    let added = changed(|fields| fields.push(json!({ "name": "pay", "type": "long" })));
    assert!(!added, "a field without default is new");
    let branch = changed(|fields| {
        let cases = fields[7]["type"].as_array_mut().unwrap();
        cases.push(json!("string"));
    });
    assert!(!branch, "a union has a new branch");
    let retyped = changed(|fields| fields[0]["type"] = json!("long"));
    assert!(!retyped, "a text became a number");
    // An int may be read as a long, but not the other way round.
    let widened = changed(|fields| fields[7]["type"][1]["fields"][0]["type"] = json!("long"));
    assert!(!widened, "a number became wider");
}
