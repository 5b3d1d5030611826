//! Encoded records decode to the same values, and bytes that are no record are refused without harm.

mod cases;

use proptest::prelude::*;
use schemas::codec::{Codec, DecodeError};
use schemas::decision::{DecisionRecord, Order};
use schemas::ids::{AttemptId, Money, Offset, RecordHash};
use schemas::snapshot::{PART_ITEMS, ProductPart, SnapshotRecord, SpentQuantity};
use schemas::topics::Topic;

use cases::{Record, decode};

#[test]
fn every_case_reads_back_as_it_was() {
    let codec = Codec::embedded();
    for (name, record) in cases::all() {
        let bytes = record.encode(&codec);
        assert_eq!(decode(&codec, record.topic(), &bytes), Ok(record), "{name}");
    }
}

#[test]
fn the_header_names_the_registrys_schema() {
    let codec = Codec::with_ids([70_001, 70_002, 70_003]);
    for (name, record) in cases::all() {
        let topic = record.topic();
        let bytes = record.encode(&codec);
        let id = 70_001 + topic as u32;
        assert_eq!(bytes[0], 0, "{name}");
        assert_eq!(bytes[1..5], id.to_be_bytes(), "{name}");
        assert_eq!(decode(&codec, topic, &bytes), Ok(record), "{name}");
        let embedded = decode(&Codec::embedded(), topic, &bytes);
        assert_eq!(
            embedded,
            Err(DecodeError::ForeignSchema { id, topic }),
            "{name}"
        );
    }
}

#[test]
fn another_topics_record_is_refused() {
    let codec = Codec::embedded();
    for (name, record) in cases::all() {
        let bytes = record.encode(&codec);
        for topic in Topic::ALL
            .into_iter()
            .filter(|topic| *topic != record.topic())
        {
            let id = record.topic().embedded_schema_id();
            let refused = Err(DecodeError::ForeignSchema { id, topic });
            assert_eq!(decode(&codec, topic, &bytes), refused, "{name}");
        }
    }
}

#[test]
fn truncated_records_and_records_with_trailing_bytes_are_refused() {
    let codec = Codec::embedded();
    for (name, record) in cases::all() {
        let topic = record.topic();
        let mut bytes = record.encode(&codec);
        for length in 0..bytes.len() {
            let cut = decode(&codec, topic, &bytes[..length]);
            assert!(cut.is_err(), "{name} cut to {length} bytes");
            assert_eq!(
                cut == Err(DecodeError::NoHeader),
                length < 5,
                "{name} {length}"
            );
        }
        bytes.push(0);
        let longer = decode(&codec, topic, &bytes);
        assert!(matches!(longer, Err(DecodeError::Malformed(_))), "{name}");
    }
}

#[test]
fn no_flipped_bit_goes_unnoticed_or_does_harm() {
    let codec = Codec::embedded();
    for (name, record) in cases::all() {
        let bytes = record.encode(&codec);
        for bit in 0..8 * bytes.len() {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let read = decode(&codec, record.topic(), &flipped);
            assert_ne!(read, Ok(record.clone()), "{name}, bit {bit}");
            match bit / 8 {
                0 => assert_eq!(read, Err(DecodeError::NoHeader), "{name}, bit {bit}"),
                1..=4 => assert!(
                    matches!(
                        read,
                        Err(DecodeError::UnknownSchema { .. }
                            | DecodeError::ForeignSchema { .. }
                            | DecodeError::Malformed(_)
                            | DecodeError::NotOneCase)
                    ),
                    "{name}, bit {bit}"
                ),
                _ => {}
            }
        }
    }
}

/// The bytes before a record's value.
fn header(topic: Topic) -> [u8; 5] {
    let [a, b, c, d] = topic.embedded_schema_id().to_be_bytes();
    [0, a, b, c, d]
}

/// The command of a value's bytes.
fn command(value: &[u8]) -> Result<Record, DecodeError> {
    let bytes = [&header(Topic::PurchaseAttempts)[..], value].concat();
    decode(&Codec::embedded(), Topic::PurchaseAttempts, &bytes)
}

/// A command's value with this product and these cases, by their numbers in the schema, each with
/// the bytes of its fields.
fn value(product: &[u8], there: &[(usize, &[u8])]) -> Vec<u8> {
    let schema: serde_json::Value =
        serde_json::from_str(Topic::PurchaseAttempts.schema_json()).unwrap();
    // All fields but the product are nullable: 0 is null, 2 is there.
    let cases = 0..schema["fields"].as_array().unwrap().len() - 1;
    let case = |n: usize| match there.iter().find(|(there, _)| *there == n) {
        Some((_, fields)) => [&[2], *fields].concat(),
        None => vec![0],
    };
    [
        product.to_vec(),
        cases.map(case).collect::<Vec<_>>().concat(),
    ]
    .concat()
}

/// The numbers of some cases.
const PLACE_ATTEMPT: usize = 0;
const OPEN_SALE: usize = 3;
const PAUSE_SALE: usize = 4;
const SET_STOCK: usize = 6;

#[test]
fn a_record_of_no_case_or_of_two_is_refused() {
    let no_case = Err(DecodeError::NotOneCase);
    let product = [2, b'p'];
    assert!(command(&value(&product, &[(OPEN_SALE, &[])])).is_ok());
    assert_eq!(command(&value(&product, &[])), no_case);
    let two = [(OPEN_SALE, &[][..]), (PAUSE_SALE, &[])];
    assert_eq!(command(&value(&product, &two)), no_case);
    let decision = |value: &[u8]| {
        let bytes = [&header(Topic::StockDecisions)[..], value].concat();
        decode(&Codec::embedded(), Topic::StockDecisions, &bytes)
    };
    // A claim, a skipped record, a decision: none of them, and a claim by "d", partitions unknown.
    assert_eq!(decision(&[0, 0, 0]), no_case);
    assert!(decision(&[2, 2, b'd', 0, 0, 0]).is_ok());
    let codec = Codec::embedded();
    let real = codec.encode_decision(DecisionRecord::Decision(cases::decision(vec![])));
    // A claim by "d", and the decision after it.
    let both = [&[2, 2, b'd', 0], &real[6..]].concat();
    assert_eq!(decision(&both), no_case);
}

/// Only what no version of the program can have written may be skipped.
#[test]
fn garbage_is_told_from_a_record_of_a_newer_version() {
    let topic = Topic::PurchaseAttempts;
    let garbage = |codec: &Codec, bytes: &[u8]| {
        let decoded = codec.decode_command(bytes);
        decoded.map_err(|error| error.is_garbage())
    };
    let codec = Codec::embedded();
    let id = topic.embedded_schema_id();
    let with_id = |id: u32| [&[0][..], &id.to_be_bytes(), &[7; 20]].concat();
    assert_eq!(garbage(&codec, b""), Err(true), "a tombstone");
    assert_eq!(garbage(&codec, b"garbage"), Err(true));
    assert_eq!(garbage(&codec, &with_id(id)), Err(true), "malformed");
    assert_eq!(garbage(&codec, &with_id(1)), Err(true), "malformed, old");
    assert_eq!(garbage(&codec, &with_id(2)), Err(true), "another topic's");
    assert_eq!(garbage(&codec, &with_id(0)), Err(true));
    assert_eq!(garbage(&codec, &with_id(70_000)), Err(true));
    assert_eq!(garbage(&codec, &with_id(12)), Err(false), "a later version");

    // With a registry an id is unknown until the registry has stated whose it is.
    let codec = Codec::with_ids([70_001, 70_002, 70_003]);
    assert_eq!(garbage(&codec, &with_id(70_002)), Err(false));
    assert_eq!(garbage(&codec, &with_id(9)), Err(false));
    codec.learn_foreign(topic, 9);
    assert_eq!(garbage(&codec, &with_id(9)), Err(true));
    let other = codec.decode_decision(&with_id(9));
    assert!(!other.unwrap_err().is_garbage(), "another topic's id");
    codec.learn(topic, 9, topic.schema_json()).unwrap();
    assert_eq!(garbage(&codec, &with_id(9)), Err(false), "a newer schema");
    codec.learn_older(topic, 8, topic.schema_json()).unwrap();
    assert_eq!(garbage(&codec, &with_id(8)), Err(true), "an older schema");
    for id in 100_000..110_000 {
        codec.learn_foreign(topic, id);
    }
    assert_eq!(garbage(&codec, &with_id(109_999)), Err(true));
}

#[test]
fn ids_of_bad_form_are_refused() {
    for bad in ["/", " ", "\n", "\0", "."] {
        let value = value(&[&[2], bad.as_bytes()].concat(), &[(OPEN_SALE, &[])]);
        assert!(
            matches!(command(&value), Err(DecodeError::Malformed(_))),
            "{bad:?}"
        );
    }
    let long = [&[0x82, 1], "x".repeat(65).as_bytes()].concat();
    // Empty, not even text, and too long.
    for product in [&[0][..], &[2, 0xff], &long] {
        let value = value(product, &[(OPEN_SALE, &[])]);
        assert!(
            matches!(command(&value), Err(DecodeError::Malformed(_))),
            "{value:?}"
        );
    }
}

#[test]
fn negative_quantities_are_refused() {
    // The quantity is the byte before the round, which is null: 2 is one, 1 minus one.
    let attempt = |quantity: u8| {
        let fields = [&[7; 16][..], &[2, b'b', quantity, 0]].concat();
        command(&value(&[2, b'p'], &[(PLACE_ATTEMPT, &fields)]))
    };
    assert!(attempt(2).is_ok());
    assert!(matches!(attempt(1), Err(DecodeError::Malformed(_))));
    let stock = |stock: u8| command(&value(&[2, b'p'], &[(SET_STOCK, &[stock])]));
    assert!(stock(2).is_ok());
    assert!(matches!(stock(1), Err(DecodeError::Malformed(_))));
}

#[test]
fn half_an_attempt_id_is_refused() {
    let codec = Codec::embedded();
    let cases = cases::all();
    let (_, record) = cases
        .iter()
        .find(|(name, _)| name == "snapshot-orders-and-spent")
        .unwrap();
    let mut bytes = record.encode(&codec);
    // The record ends in the two spent attempts: their length, 32 in Avro's zigzag, and bytes. After
    // them are only the absent quantities and the absent log.
    let length = bytes.len() - 35;
    assert_eq!(
        (bytes[length], bytes.pop(), bytes.pop()),
        (64, Some(0), Some(0))
    );
    bytes.pop();
    bytes.push(0);
    bytes.push(0);
    bytes[length] = 62;
    let read = decode(&codec, Topic::ProductSnapshots, &bytes);
    assert!(matches!(read, Err(DecodeError::Malformed(_))), "{read:?}");
}

#[test]
fn a_list_that_claims_to_be_endless_is_refused() {
    let codec = Codec::embedded();
    let real = codec.encode_decision(DecisionRecord::Decision(cases::decision(vec![])));
    // After the events come stock, tally, the kind of command, which is null, and the hash.
    let events = real.len() - 32 - 1 - 4 - 4 - 1;
    assert_eq!(real[events], 0, "the length of the empty list of events");
    let endless = [&[0xfe; 9][..], &[1]].concat();
    let bytes = [&real[..events], &endless, &real[events..]].concat();
    let read = decode(&codec, Topic::StockDecisions, &bytes);
    assert!(matches!(read, Err(DecodeError::Malformed(_))), "{read:?}");
}

#[test]
fn the_largest_part_of_a_checkpoint_fits_into_a_record_of_the_log() {
    let order = Order {
        attempt_id: AttemptId::from_bytes([0xff; 16]),
        buyer_id: "b".repeat(64).parse().unwrap(),
        quantity: i32::MAX as u32,
        attempt_offset: Offset(i64::MAX),
        accepted_at_ms: i64::MAX,
        hold_until_ms: Some(i64::MAX),
        price: Some(Money {
            minor: i64::MAX,
            currency: "GBP".into(),
        }),
    };
    let quantity = SpentQuantity {
        attempt_id: order.attempt_id,
        quantity: order.quantity,
    };
    let (_, head) = cases::all()
        .into_iter()
        .find(|(name, _)| name == "snapshot-head")
        .unwrap();
    let Record::Snapshot(head) = head else {
        panic!("the case is of a checkpoint");
    };
    let head = head.part.expect("the case is a part with a head");
    let largest = SnapshotRecord {
        covers: Offset(i64::MAX),
        claim: Offset(i64::MAX),
        answered: Offset(i64::MAX),
        previous: Offset(i64::MAX),
        first: Offset(i64::MAX),
        part: Some(ProductPart {
            orders: vec![order.clone(); PART_ITEMS],
            spent: vec![order.attempt_id; PART_ITEMS],
            spent_quantities: Some(vec![quantity; PART_ITEMS]),
            ..head
        }),
        log: Some(RecordHash([255; 32])),
    };
    let bytes = Codec::embedded().encode_snapshot(&largest);
    assert!(bytes.len() <= 900_000, "{} bytes", bytes.len());
    assert_eq!(Codec::embedded().decode_snapshot(&bytes), Ok(largest));
}

proptest! {
    #[test]
    fn random_bytes_do_no_harm(
        schema in 1u8..8,
        headed: bool,
        value in proptest::collection::vec(any::<u8>(), 0..300)
    ) {
        let codec = Codec::embedded();
        let header: &[u8] = if headed { &[0, 0, 0, 0, schema] } else { &[] };
        let bytes = [header, &value].concat();
        for topic in Topic::ALL {
            if let Ok(record) = decode(&codec, topic, &bytes) {
                // Whatever decodes as a record can be encoded and decoded again.
                let again = record.encode(&codec);
                prop_assert_eq!(decode(&codec, topic, &again), Ok(record));
            }
        }
    }
}
