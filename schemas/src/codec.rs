//! Records to bytes and back, in the Confluent wire format: a zero byte, the schema's id in
//! four bytes big-endian, then the Avro value.

use std::collections::{BTreeSet, HashMap};
use std::io::BufRead;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_avro_fast::Schema;
use serde_avro_fast::de::read::SliceRead;
use serde_avro_fast::de::{DeserializerConfig, DeserializerState};
use serde_avro_fast::schema::SchemaError;
use serde_avro_fast::ser::SerializerConfig;
use sha2::{Digest, Sha256};

use crate::command::Command;
use crate::decision::{Decision, DecisionRecord};
use crate::ids::ChainHash;
use crate::snapshot::SnapshotRecord;
use crate::topics::Topic;
use crate::wire::{CommandWire, DecisionRecordWire};

/// The bytes before the Avro value.
const HEADER_BYTES: usize = 5;
/// The bytes of the chain hash, a decision's last field.
const CHAIN_BYTES: usize = 32;
/// The most schemas that a codec learns.
const MAX_LEARNED: usize = 1_000;
/// The most unknown ids that a codec remembers; the others come again with their records.
const MAX_UNKNOWN: usize = 16;
/// The most foreign ids that a codec remembers; at that it forgets them, and each is unknown again
/// until it has been looked up again.
const MAX_FOREIGN: usize = 1_000;
/// The ids that versions of this program may have where there is no registry. They are counted up
/// from 1, so that a larger one is not a schema of ours.
const MAX_EMBEDDED_ID: u32 = 1_000;

/// Why bytes cannot be decoded as a record. The cause is the writer or the storage, never a buyer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes do not begin like a record.
    #[error("the record does not begin with a zero byte and a schema id")]
    NoHeader,
    /// The schema is unknown here, and may be a newer version's.
    #[error(
        "schema {id} of {topic} is unknown to this program; a newer version may have written the \
         record: start a program that is at least as new, or wait until the registry answers"
    )]
    UnknownSchema {
        /// The id found.
        id: u32,
        /// The topic read.
        topic: Topic,
    },
    /// The schema is none of this topic's.
    #[error("schema {id} is not a schema of {topic}")]
    ForeignSchema {
        /// The id found.
        id: u32,
        /// The topic read.
        topic: Topic,
    },
    /// The value does not follow its schema.
    #[error("the record does not follow its schema: {0}")]
    Malformed(String),
    /// The value has none of the cases of its schema, or more than one of them.
    #[error("the record has not exactly one case")]
    NotOneCase,
    /// The schema is a newer version's, and the record is not readable for this one.
    #[error(
        "a newer version of the program has written the record, with schema {id} of {topic}: \
         {why}; start a program that is at least as new"
    )]
    NewerVersion {
        /// The schema's id.
        id: u32,
        /// The topic read.
        topic: Topic,
        /// What cannot be read.
        why: String,
    },
}

impl DecodeError {
    /// Whether no version of the program can decode the record, now or later. Every reader may then
    /// skip it, and all readers do. Any other may be a newer version's record, which must not be
    /// skipped.
    pub fn is_garbage(&self) -> bool {
        match self {
            Self::NoHeader | Self::ForeignSchema { .. } | Self::Malformed(_) | Self::NotOneCase => {
                true
            }
            Self::UnknownSchema { .. } | Self::NewerVersion { .. } => false,
        }
    }
}

/// Why a schema was not learned.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LearnError {
    /// The text is not an Avro schema.
    #[error("it is not an Avro schema that can be read: {0}")]
    NotASchema(String),
    /// The codec already knows as many schemas as it can.
    #[error("{MAX_LEARNED} other schemas are known already, and no more can be learned")]
    TooMany,
}

/// Reads and writes the records of all topics.
///
/// It writes only with today's schemas, and reads records of today's and of all schemas it has
/// learned. Records are decoded by the schema they were written with; fields that schema does not
/// have are null.
pub struct Codec {
    /// The id and schema that each topic is written with, in the order of [`Topic::ALL`].
    today: [(u32, Schema); Topic::ALL.len()],
    /// The schemas of other versions. Records of today's schemas take no lock.
    learned: RwLock<HashMap<(Topic, u32), Learned>>,
    /// The unknown schema ids that records were written with.
    unknown: Mutex<BTreeSet<(Topic, u32)>>,
    /// The schema ids that are none of their topic's.
    foreign: RwLock<BTreeSet<(Topic, u32)>>,
    /// Whether the ids are the fixed ones of the embedded engine.
    fixed_ids: bool,
}

/// A schema of another version.
#[derive(Clone)]
struct Learned {
    schema: Arc<Schema>,
    /// Whether the version came before today's, so that this program knows all its cases.
    older: bool,
}

impl Codec {
    /// The codec with the fixed ids of the embedded engine.
    pub fn embedded() -> Self {
        let ids = Topic::ALL.map(Topic::embedded_schema_id);
        let codec = Self {
            fixed_ids: true,
            ..Self::with_ids(ids)
        };
        for topic in Topic::ALL {
            for (id, schema) in topic.older_schemas() {
                let learned = codec.learn_older(topic, *id, schema);
                learned.expect("the schemas under golden/ are tested to parse");
            }
        }
        codec
    }

    /// The codec with these ids for the topics' schemas, in the order of [`Topic::ALL`].
    pub fn with_ids(ids: [u32; Topic::ALL.len()]) -> Self {
        Self {
            today: Topic::ALL.map(|topic| (ids[topic as usize], parse(topic))),
            learned: RwLock::default(),
            unknown: Mutex::default(),
            foreign: RwLock::default(),
            fixed_ids: false,
        }
    }

    /// Learns a schema that may be a newer version's, so that the topic's records with this schema id
    /// can be decoded. An id that is known already keeps its schema.
    pub fn learn(&self, topic: Topic, id: u32, schema_json: &str) -> Result<(), LearnError> {
        self.remember(topic, id, schema_json, false)
    }

    /// Learns a schema of a version before today's.
    pub fn learn_older(&self, topic: Topic, id: u32, schema_json: &str) -> Result<(), LearnError> {
        self.remember(topic, id, schema_json, true)
    }

    fn remember(
        &self,
        topic: Topic,
        id: u32,
        schema_json: &str,
        older: bool,
    ) -> Result<(), LearnError> {
        if id == self.today[topic as usize].0 {
            return Ok(());
        }
        let schema: Schema = schema_json
            .parse()
            .map_err(|error: SchemaError| LearnError::NotASchema(error.to_string()))?;
        let mut learned = self.learned.write();
        if learned.len() >= MAX_LEARNED && !learned.contains_key(&(topic, id)) {
            return Err(LearnError::TooMany);
        }
        let schema = Arc::new(schema);
        learned
            .entry((topic, id))
            .or_insert(Learned { schema, older });
        self.foreign.write().remove(&(topic, id));
        Ok(())
    }

    /// Learns that a schema id is none of the topic's: no record with it can ever be decoded.
    pub fn learn_foreign(&self, topic: Topic, id: u32) {
        let mut foreign = self.foreign.write();
        if foreign.len() >= MAX_FOREIGN {
            foreign.clear();
        }
        foreign.insert((topic, id));
    }

    /// The unknown schema ids of records decoded since the last call, at most 16 of them. An id that
    /// is still unknown when its record is decoded again is returned again.
    pub fn take_unknown(&self) -> BTreeSet<(Topic, u32)> {
        std::mem::take(&mut *self.unknown.lock())
    }

    /// Encodes a command.
    pub fn encode_command(&self, command: Command) -> Vec<u8> {
        self.encode(Topic::PurchaseAttempts, &CommandWire::from(command))
    }

    /// Decodes a command.
    pub fn decode_command(&self, bytes: &[u8]) -> Result<Command, DecodeError> {
        self.decode(Topic::PurchaseAttempts, bytes, |wire: CommandWire| {
            wire.try_into().map_err(|_| DecodeError::NotOneCase)
        })
    }

    /// Encodes a decision, a skipped record or a claim.
    pub fn encode_decision(&self, record: DecisionRecord) -> Vec<u8> {
        self.encode(Topic::StockDecisions, &DecisionRecordWire::from(record))
    }

    /// Encodes a decision, chained to the product's previous hash; returns its bytes and its own
    /// hash. The hash that the decision comes with is replaced.
    pub fn encode_chained(
        &self,
        mut decision: Decision,
        previous: ChainHash,
    ) -> (Vec<u8>, ChainHash) {
        decision.chain = ChainHash::default();
        let mut bytes = self.encode_decision(DecisionRecord::Decision(decision));
        let chain = chain_hash(&bytes, previous);
        let at = bytes.len() - CHAIN_BYTES;
        bytes[at..].copy_from_slice(&chain.0);
        (bytes, chain)
    }

    /// Decodes a decision, a skipped record or a claim.
    pub fn decode_decision(&self, bytes: &[u8]) -> Result<DecisionRecord, DecodeError> {
        self.decode(Topic::StockDecisions, bytes, |wire: DecisionRecordWire| {
            wire.try_into().map_err(|_| DecodeError::NotOneCase)
        })
    }

    /// Decodes a record of `stock-decisions` for a reader that passes it through the fence; none if it
    /// is garbage, which the fence drops. Fails on what a newer version may have written.
    pub fn decode_for_fence(&self, bytes: &[u8]) -> Result<Option<DecisionRecord>, DecodeError> {
        match self.decode_decision(bytes) {
            Ok(record) => Ok(Some(record)),
            Err(error) if error.is_garbage() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Encodes a record of a checkpoint.
    pub fn encode_snapshot(&self, record: &SnapshotRecord) -> Vec<u8> {
        self.encode(Topic::ProductSnapshots, record)
    }

    /// Decodes a record of a checkpoint.
    pub fn decode_snapshot(&self, bytes: &[u8]) -> Result<SnapshotRecord, DecodeError> {
        self.decode(Topic::ProductSnapshots, bytes, Ok)
    }

    fn encode(&self, topic: Topic, value: &impl Serialize) -> Vec<u8> {
        let (id, schema) = &self.today[topic as usize];
        let mut bytes = Vec::with_capacity(192);
        bytes.push(0);
        bytes.extend_from_slice(&id.to_be_bytes());
        serde_avro_fast::to_datum(value, bytes, &mut SerializerConfig::new(schema))
            .expect("every record type follows its own schema")
    }

    fn decode<Wire: DeserializeOwned, T>(
        &self,
        topic: Topic,
        bytes: &[u8],
        convert: impl Fn(Wire) -> Result<T, DecodeError>,
    ) -> Result<T, DecodeError> {
        let (header, value) = bytes
            .split_first_chunk::<HEADER_BYTES>()
            .ok_or(DecodeError::NoHeader)?;
        let [0, id @ ..] = *header else {
            return Err(DecodeError::NoHeader);
        };
        let id = u32::from_be_bytes(id);
        let (today, schema) = &self.today[topic as usize];
        if id == *today {
            return read(value, schema).and_then(convert);
        }
        let learned = self.learned.read().get(&(topic, id)).cloned();
        let Some(learned) = learned else {
            return Err(self.unknown_schema(topic, id));
        };
        let decoded = read(value, &learned.schema).and_then(convert);
        decoded.map_err(|error| match learned.older {
            true => error,
            false => DecodeError::NewerVersion {
                id,
                topic,
                why: error.to_string(),
            },
        })
    }

    fn unknown_schema(&self, topic: Topic, id: u32) -> DecodeError {
        if self.is_foreign(topic, id) {
            return DecodeError::ForeignSchema { id, topic };
        }
        self.remember_unknown(topic, id);
        DecodeError::UnknownSchema { id, topic }
    }

    fn is_foreign(&self, topic: Topic, id: u32) -> bool {
        let others = Topic::ALL.into_iter().filter(|other| *other != topic);
        let of_another = |other: Topic| {
            let older = other.older_schemas().iter();
            other.embedded_schema_id() == id || older.into_iter().any(|(older, _)| *older == id)
        };
        if self.fixed_ids && (id == 0 || id > MAX_EMBEDDED_ID || others.into_iter().any(of_another))
        {
            return true;
        }
        self.foreign.read().contains(&(topic, id))
    }

    fn remember_unknown(&self, topic: Topic, id: u32) {
        let mut unknown = self.unknown.lock();
        if unknown.len() < MAX_UNKNOWN {
            unknown.insert((topic, id));
        }
    }
}

fn read<T: DeserializeOwned>(value: &[u8], schema: &Schema) -> Result<T, DecodeError> {
    let mut config = DeserializerConfig::new(schema);
    // No item in these schemas takes less than a byte. A list that claims more items than there are
    // bytes comes from a schema whose items take none, and would fill the memory.
    config.max_seq_size = value.len();
    let mut reader = DeserializerState::with_config(SliceRead::new(value), config);
    let value = T::deserialize(reader.deserializer())
        .map_err(|error| DecodeError::Malformed(error.to_string()))?;
    match reader.into_reader().fill_buf() {
        Ok([]) => Ok(value),
        _ => Err(DecodeError::Malformed(
            "there are bytes after the value".into(),
        )),
    }
}

/// The chain hash of a decision from its record's bytes: SHA-256 over the product's previous
/// hash (32 zero bytes before the first) and the Avro value without its last 32 bytes.
///
/// `record` must be the bytes of a decision that this codec encoded or has decoded.
pub fn chain_hash(record: &[u8], previous: ChainHash) -> ChainHash {
    let value = &record[HEADER_BYTES..record.len() - CHAIN_BYTES];
    let hash = Sha256::new().chain_update(previous.0).chain_update(value);
    ChainHash(hash.finalize().into())
}

fn parse(topic: Topic) -> Schema {
    topic
        .schema_json()
        .parse()
        .expect("the schemas under avro/ are tested to parse")
}
