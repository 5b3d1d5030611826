//! A schema as a registry may answer with it, and a record that was written with it. The record
//! is what follows the schema's text: its first byte is zero, and no text has that.
//!
//! A record decoded with any schema is encoded with the current one and decoded again as the same,
//! and takes no more memory than its bytes allow.

use std::cell::RefCell;

use schemas::codec::Codec;
use schemas::topics::Topic;

/// How many inputs share a codec, which takes a thousand schemas at most.
const INPUTS: u32 = 300;
/// The id of the first input's schema; the ids before it are the current schemas'.
const FIRST_ID: u32 = 17;

thread_local! {
    /// A codec, and the id of the next input's schema. Making a codec takes longer than an input.
    static CODEC: RefCell<(Codec, u32)> = RefCell::new((Codec::embedded(), FIRST_ID));
}

pub(crate) fn run(input: &[u8]) {
    let end = input.iter().position(|byte| *byte == 0);
    let (text, record) = input.split_at(end.unwrap_or(input.len()));
    let Ok(text) = std::str::from_utf8(text) else {
        return;
    };
    CODEC.with_borrow_mut(|(codec, next)| {
        if *next >= FIRST_ID + INPUTS {
            (*codec, *next) = (Codec::embedded(), FIRST_ID);
        }
        let id = std::mem::replace(next, *next + 1);
        let value = record.get(5..).unwrap_or_default();
        let record = [&[0][..], &id.to_be_bytes(), value].concat();
        let learned = Topic::ALL
            .iter()
            .all(|topic| codec.learn(*topic, id, text).is_ok());
        if learned {
            read(codec, &record);
        }
    });
}

fn read(codec: &Codec, record: &[u8]) {
    if let Ok(command) = codec.decode_command(record) {
        let bytes = codec.encode_command(command.clone());
        assert_eq!(codec.decode_command(&bytes), Ok(command));
    }
    if let Ok(decision) = codec.decode_decision(record) {
        let bytes = codec.encode_decision(decision.clone());
        assert_eq!(codec.decode_decision(&bytes), Ok(decision));
    }
    if let Ok(snapshot) = codec.decode_snapshot(record) {
        let bytes = codec.encode_snapshot(&snapshot);
        assert_eq!(codec.decode_snapshot(&bytes), Ok(snapshot));
    }
}
