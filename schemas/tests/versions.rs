//! Records of older and newer versions of the schemas, written by another Avro library: what
//! both versions know reads as it was, what the older has not is null, and a case that only the
//! newer has is named as that.

mod cases;

use std::collections::{BTreeSet, HashMap, HashSet};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value as Avro;
use apache_avro::writer::datum::GenericDatumWriter;
use schemas::codec::{Codec, DecodeError, LearnError};
use schemas::topics::Topic;
use serde_json::{Value, json};

use cases::{Record, decode};

/// The id under which the tests' schemas are learned.
const OTHER: u32 = 77;

fn today(topic: Topic) -> Value {
    serde_json::from_str(topic.schema_json()).unwrap()
}

/// Calls `visit` with every record type of a schema.
fn each_record(schema: &mut Value, visit: &mut impl FnMut(&mut Value)) {
    match schema {
        Value::Array(branches) => branches.iter_mut().for_each(|it| each_record(it, visit)),
        Value::Object(parts) if parts.get("type") == Some(&json!("record")) => {
            visit(schema);
            let fields = schema["fields"].as_array_mut().unwrap();
            fields
                .iter_mut()
                .for_each(|field| each_record(&mut field["type"], visit));
        }
        Value::Object(parts) => {
            for part in ["type", "items"] {
                if let Some(part) = parts.get_mut(part) {
                    each_record(part, visit);
                }
            }
        }
        _ => {}
    }
}

/// Defines each named type where it is first met, as Avro wants it, and names it after that.
fn define_at_first(schema: &mut Value, known: &HashMap<String, Value>, met: &mut HashSet<String>) {
    if let Value::String(name) = schema
        && let Some(definition) = known.get(name)
        && !met.contains(name)
    {
        *schema = definition.clone();
    }
    if let Some(name) = schema.get("name").and_then(Value::as_str)
        && met.contains(name)
    {
        *schema = json!(name);
    }
    match schema {
        Value::Array(branches) => {
            branches
                .iter_mut()
                .for_each(|it| define_at_first(it, known, met));
        }
        Value::Object(parts) => {
            if let Some(name) = parts.get("name").and_then(Value::as_str) {
                met.insert(name.to_owned());
            }
            if let Some(Value::Array(fields)) = parts.get_mut("fields") {
                fields
                    .iter_mut()
                    .for_each(|field| define_at_first(&mut field["type"], known, met));
            }
            if let Some(items) = parts.get_mut("items") {
                define_at_first(items, known, met);
            }
        }
        _ => {}
    }
}

fn named_types(schema: &Value, types: &mut HashMap<String, Value>) {
    match schema {
        Value::Array(parts) => parts.iter().for_each(|part| named_types(part, types)),
        Value::Object(parts) => {
            // A field has a name, too, but its type is a type of its own.
            let kind = parts.get("type").and_then(Value::as_str).unwrap_or("");
            if ["record", "enum", "fixed"].contains(&kind) {
                let name = parts["name"].as_str().unwrap();
                types.insert(name.to_owned(), schema.clone());
            }
            parts.values().for_each(|part| named_types(part, types));
        }
        _ => {}
    }
}

/// The nullable fields of a schema, as record and field.
fn nullable(schema: &Value) -> BTreeSet<(String, String)> {
    let mut found = BTreeSet::new();
    each_record(&mut schema.clone(), &mut |record| {
        for field in record["fields"].as_array().unwrap() {
            if field.get("default") == Some(&Value::Null) {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                found.insert((text(&record["name"]), text(&field["name"])));
            }
        }
    });
    found
}

/// The schema before a field was added.
fn without(schema: &Value, record: &str, field: &str) -> String {
    let mut types = HashMap::new();
    named_types(schema, &mut types);
    let mut older = schema.clone();
    each_record(&mut older, &mut |it| {
        if it["name"] == record {
            let fields = it["fields"].as_array_mut().unwrap();
            fields.retain(|it| it["name"] != field);
        }
    });
    define_at_first(&mut older, &types, &mut HashSet::new());
    older.to_string()
}

/// The schema after a nullable field was added, first or last in a record.
fn with(schema: &Value, record: &str, last: bool) -> String {
    let mut newer = schema.clone();
    each_record(&mut newer, &mut |it| {
        if it["name"] == record {
            let fields = it["fields"].as_array_mut().unwrap();
            let at = if last { fields.len() } else { 0 };
            let field = json!({ "name": "newer", "type": ["null", "long"], "default": null });
            fields.insert(at, field);
        }
    });
    newer.to_string()
}

fn read_today(topic: Topic, bytes: &[u8]) -> Avro {
    let schema = Schema::parse_str(topic.schema_json()).unwrap();
    let reader = GenericDatumReader::builder(&schema).build().unwrap();
    reader.read_value(&mut &bytes[5..]).unwrap()
}

/// The record's bytes by another schema.
fn bytes_by(schema: &Schema, value: Avro) -> Vec<u8> {
    let writer = GenericDatumWriter::builder(schema).build().unwrap();
    let value = writer.write_value_to_vec(value).unwrap();
    [&[0][..], &OTHER.to_be_bytes(), &value].concat()
}

fn codec_that_knows(topic: Topic, schema: &str) -> Codec {
    let codec = Codec::embedded();
    codec.learn(topic, OTHER, schema).unwrap();
    codec
}

fn records_of(topic: Topic) -> Vec<(String, Record)> {
    let all = cases::all().into_iter();
    all.filter(|(_, record)| record.topic() == topic).collect()
}

#[test]
fn a_field_that_an_older_version_lacks_is_null() {
    for topic in Topic::ALL {
        let schema = today(topic);
        let as_today = Schema::parse_str(topic.schema_json()).unwrap();
        for (record, field) in nullable(&schema) {
            let older = without(&schema, &record, &field);
            let codec = codec_that_knows(topic, &older);
            let older = Schema::parse_str(&older).unwrap();
            let mut read = 0;
            for (name, case) in records_of(topic) {
                let value = read_today(topic, &case.encode(&codec));
                let before = value.clone().resolve(&older).unwrap();
                // Only what the older version can say can have been written by it.
                if before.clone().resolve(&as_today).unwrap() != value {
                    continue;
                }
                let bytes = bytes_by(&older, before);
                let decoded = decode(&codec, topic, &bytes);
                assert_eq!(decoded, Ok(case), "{name} without {record}.{field}");
                read += 1;
            }
            assert!(read > 0, "no case of {topic} is without {record}.{field}");
        }
    }
}

#[test]
fn a_field_that_only_a_newer_version_has_is_ignored() {
    for topic in Topic::ALL {
        let schema = today(topic);
        for last in [false, true] {
            let mut types = HashMap::new();
            named_types(&schema, &mut types);
            let records = types.iter().filter(|(_, it)| it["type"] == "record");
            for (record, _) in records {
                let newer = with(&schema, record, last);
                let codec = codec_that_knows(topic, &newer);
                let newer = Schema::parse_str(&newer).unwrap();
                for (name, case) in records_of(topic) {
                    let value = read_today(topic, &case.encode(&codec));
                    let mut value = value.resolve(&newer).unwrap();
                    let bytes = bytes_by(&newer, value.clone());
                    let decoded = decode(&codec, topic, &bytes);
                    assert_eq!(decoded, Ok(case.clone()), "{name}, {record}.newer null");
                    set_newer(&mut value);
                    let bytes = bytes_by(&newer, value);
                    let decoded = decode(&codec, topic, &bytes);
                    assert_eq!(decoded, Ok(case), "{name}, {record}.newer there");
                }
            }
        }
    }
}

/// Sets every field `newer` of a value.
fn set_newer(value: &mut Avro) {
    match value {
        Avro::Record(fields) => {
            for (name, value) in fields {
                match &**name {
                    "newer" => *value = Avro::Union(1, Box::new(Avro::Long(7))),
                    _ => set_newer(value),
                }
            }
        }
        Avro::Union(_, value) => set_newer(value),
        Avro::Array(items) => items.iter_mut().for_each(set_newer),
        _ => {}
    }
}

#[test]
fn a_case_that_only_a_newer_version_has_is_unknown() {
    for (topic, record) in [
        (Topic::PurchaseAttempts, "PurchaseAttemptsValue"),
        (Topic::StockDecisions, "StockDecisionsValue"),
        (Topic::StockDecisions, "Event"),
    ] {
        let newer = with(&today(topic), record, true);
        let codec = codec_that_knows(topic, &newer);
        let newer = Schema::parse_str(&newer).unwrap();
        let mut unknown = 0;
        for (name, case) in records_of(topic) {
            let value = read_today(topic, &case.encode(&codec));
            let mut value = value.resolve(&newer).unwrap();
            let has_it = replace_case(&mut value);
            let decoded = decode(&codec, topic, &bytes_by(&newer, value));
            match has_it {
                true => assert!(
                    matches!(decoded, Err(DecodeError::NewerVersion { id: OTHER, .. })),
                    "{name}, {record}: {decoded:?}"
                ),
                false => assert_eq!(decoded, Ok(case), "{name}, {record}"),
            }
            unknown += usize::from(has_it);
        }
        assert!(unknown > 0, "no case of {record}");
    }
}

/// Puts `newer` in the place of the case that is there; whether there was such a place.
fn replace_case(value: &mut Avro) -> bool {
    match value {
        Avro::Record(fields) if fields.iter().any(|(name, _)| name == "newer") => {
            for (name, value) in fields {
                match (&**name, &value) {
                    ("newer", _) => *value = Avro::Union(1, Box::new(Avro::Long(7))),
                    (_, Avro::Union(..)) => *value = Avro::Union(0, Box::new(Avro::Null)),
                    _ => {}
                }
            }
            true
        }
        Avro::Record(fields) => {
            let replaced = fields.iter_mut().map(|(_, value)| replace_case(value));
            replaced.fold(false, |any, it| any | it)
        }
        Avro::Union(_, value) => replace_case(value),
        Avro::Array(items) => items
            .iter_mut()
            .map(replace_case)
            .fold(false, |any, it| any | it),
        _ => false,
    }
}

#[test]
fn unknown_schema_ids_are_remembered_until_they_are_taken() {
    let codec = Codec::embedded();
    let (_, record) = cases::all().remove(0);
    let topic = record.topic();
    let mut bytes = record.encode(&codec);
    bytes[1..5].copy_from_slice(&OTHER.to_be_bytes());
    let unknown = Err(DecodeError::UnknownSchema { id: OTHER, topic });
    assert_eq!(decode(&codec, topic, &bytes), unknown);
    assert_eq!(decode(&codec, topic, &bytes), unknown);
    assert_eq!(codec.take_unknown(), BTreeSet::from([(topic, OTHER)]));
    assert_eq!(codec.take_unknown(), BTreeSet::new());

    // One topic's schema is no other topic's.
    codec.learn(topic, OTHER, topic.schema_json()).unwrap();
    assert_eq!(decode(&codec, topic, &bytes), Ok(record.clone()));
    assert_eq!(codec.take_unknown(), BTreeSet::new());
    let elsewhere = Topic::StockDecisions;
    let decoded = decode(&codec, elsewhere, &bytes);
    let unknown = DecodeError::UnknownSchema {
        id: OTHER,
        topic: elsewhere,
    };
    assert_eq!(decoded, Err(unknown));
    assert_eq!(codec.take_unknown(), BTreeSet::from([(elsewhere, OTHER)]));

    // What damaged records make of their ids fills no memory.
    for id in 100..900u32 {
        bytes[1..5].copy_from_slice(&id.to_be_bytes());
        assert!(decode(&codec, topic, &bytes).is_err());
    }
    assert_eq!(codec.take_unknown().len(), 16);
}

#[test]
fn learning_is_bounded_and_replaces_no_known_schema() {
    let topic = Topic::PurchaseAttempts;
    let codec = Codec::embedded();
    let (_, record) = cases::all().remove(0);
    let mut bytes = record.encode(&codec);
    let learned = codec.learn(topic, OTHER, r#"{"type":"nonsense"}"#);
    assert!(
        matches!(learned, Err(LearnError::NotASchema(_))),
        "{learned:?}"
    );

    // Neither today's id nor a learned one becomes another schema.
    let today = topic.embedded_schema_id();
    codec.learn(topic, today, r#""string""#).unwrap();
    assert_eq!(decode(&codec, topic, &bytes), Ok(record.clone()));
    codec.learn(topic, OTHER, topic.schema_json()).unwrap();
    codec.learn(topic, OTHER, r#""string""#).unwrap();
    bytes[1..5].copy_from_slice(&OTHER.to_be_bytes());
    assert_eq!(decode(&codec, topic, &bytes), Ok(record));

    let known: usize = Topic::ALL
        .map(|topic| topic.older_schemas().len())
        .iter()
        .sum();
    for id in 0..999 - known as u32 {
        codec.learn(topic, 1_000 + id, r#""string""#).unwrap();
    }
    assert_eq!(
        codec.learn(topic, 9_999, r#""string""#),
        Err(LearnError::TooMany)
    );
    assert_eq!(codec.learn(topic, OTHER, r#""string""#), Ok(()));
}

/// A list's items may take no bytes by a schema that is not ours, and then a record of a few
/// bytes can say that it has a billion.
#[test]
fn a_list_of_more_items_than_bytes_is_refused() {
    let empty = json!({"type": "record", "name": "Empty", "fields": []});
    let list = json!({"type": "array", "items": empty});
    let decision = |events: &Value, extra: &Value| {
        let fields = json!([
            {"name": "events", "type": events},
            {"name": "more", "type": extra},
        ]);
        json!({"type": "record", "name": "Decision", "fields": fields})
    };
    for decision in [
        decision(&list, &json!("null")),
        decision(&json!("null"), &list),
    ] {
        let field = json!([{"name": "decision", "type": decision}]);
        let schema = json!({"type": "record", "name": "Record", "fields": field});
        let codec = codec_that_knows(Topic::StockDecisions, &schema.to_string());
        // A billion items, as Avro writes the number, and then the list's end.
        let value = [0x80, 0xa8, 0xd6, 0xb9, 0x07, 0];
        let bytes = [&[0][..], &OTHER.to_be_bytes(), &value].concat();
        let started = std::time::Instant::now();
        let read = decode(&codec, Topic::StockDecisions, &bytes);
        assert!(
            matches!(read, Err(DecodeError::NewerVersion { .. })),
            "{read:?}"
        );
        assert!(started.elapsed().as_millis() < 500, "it went through them");
    }
}
