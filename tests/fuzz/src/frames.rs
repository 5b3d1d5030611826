//! A second writer of the embedded log's files, made from `infra/docs/log-format.md` alone. It can
//! also write what the log's own writer never would.

use bytes::Bytes;
use ports::{LogRecord, NewRecord};
use schemas::ids::{Offset, Partition};
use schemas::topics::Topic;

pub(crate) const LOG_ID: u64 = 0x0123_4567_89ab_cdef;
/// Bytes of a segment before its first batch.
pub(crate) const HEADER: usize = 32;
const BATCH_HEADER: usize = 32;
const BLOCK_ENTRY: usize = 40;

/// Records of one topic and partition.
pub(crate) struct Block {
    pub(crate) topic: Topic,
    pub(crate) partition: Partition,
    pub(crate) base: i64,
    pub(crate) at_ms: i64,
    pub(crate) records: Vec<NewRecord>,
}

impl Block {
    /// The records that a reader must return.
    pub(crate) fn read(&self) -> Vec<LogRecord> {
        let records = (self.base..).zip(&self.records);
        let read = records.map(|(offset, record)| LogRecord {
            offset: Offset(offset),
            appended_at_ms: self.at_ms,
            key: record.key.clone(),
            value: record.value.clone(),
            headers: record.headers.clone(),
        });
        read.collect()
    }
}

/// A change to a batch's bytes before the checksums are written, so that they match it.
pub(crate) struct Lie {
    pub(crate) at: usize,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) fn meta(partitions: u32) -> Vec<u8> {
    file_header(b"DBLOGMTA", partitions, LOG_ID, 0)
}

pub(crate) fn clean(next_sequence: u64, last_checksum: u32) -> Vec<u8> {
    file_header(b"DBLOGEND", 0, next_sequence, last_checksum)
}

pub(crate) fn segment(number: u32) -> Vec<u8> {
    file_header(b"DBLOGSEG", number, LOG_ID, 0)
}

pub(crate) fn segment_name(number: u32) -> String {
    format!("segment-{number:010}")
}

fn file_header(magic: &[u8; 8], small: u32, large: u64, tail: u32) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    bytes.extend(1_u32.to_le_bytes());
    bytes.extend(small.to_le_bytes());
    bytes.extend(large.to_le_bytes());
    bytes.extend(tail.to_le_bytes());
    bytes.extend(crc(&bytes).to_le_bytes());
    bytes
}

/// A batch and its checksum.
pub(crate) fn batch(
    sequence: u64,
    previous: u32,
    blocks: &[Block],
    lies: &[Lie],
) -> (Vec<u8>, u32) {
    let bodies: Vec<Vec<u8>> = blocks.iter().map(body).collect();
    let mut bytes = LOG_ID.to_le_bytes().to_vec();
    bytes.extend(sequence.to_le_bytes());
    bytes.extend(previous.to_le_bytes());
    bytes.extend((blocks.len() as u32).to_le_bytes());
    bytes.extend([0; 8]); // Its length and its checksum, which come last.
    for (block, body) in blocks.iter().zip(&bodies) {
        bytes.extend((block.topic as u16 + 1).to_le_bytes());
        bytes.extend([0; 2]);
        bytes.extend(block.partition.0.to_le_bytes());
        bytes.extend(block.base.to_le_bytes());
        bytes.extend(block.at_ms.to_le_bytes());
        bytes.extend((block.records.len() as u32).to_le_bytes());
        bytes.extend((body.len() as u32).to_le_bytes());
        bytes.extend([0; 8]); // The checksum, which comes last, and zeros.
    }
    bytes.extend(bodies.concat());
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    let length = bytes.len() as u32;
    bytes[24..28].copy_from_slice(&length.to_le_bytes());
    for Lie { at, bytes: lie } in lies {
        let to = bytes.iter_mut().skip(*at);
        to.zip(lie).for_each(|(to, lie)| *to = *lie);
    }
    let checksum = seal(&mut bytes);
    (bytes, checksum)
}

/// Writes the checksums, of whatever the lengths in the batch say as far as it goes.
fn seal(batch: &mut [u8]) -> u32 {
    let u32_at = |batch: &[u8], at: usize| {
        u32::from_le_bytes([batch[at], batch[at + 1], batch[at + 2], batch[at + 3]]) as usize
    };
    let blocks = u32_at(batch, 20);
    let list_end = BATCH_HEADER.saturating_add(blocks.saturating_mul(BLOCK_ENTRY));
    let list_end = list_end.min(batch.len());
    let mut at = list_end;
    for entry in (BATCH_HEADER..list_end).step_by(BLOCK_ENTRY) {
        if entry + BLOCK_ENTRY > list_end {
            break;
        }
        let end = at
            .saturating_add(u32_at(batch, entry + 28))
            .min(batch.len());
        let checksum = crc(&batch[at..end]);
        batch[entry + 32..entry + 36].copy_from_slice(&checksum.to_le_bytes());
        at = end;
    }
    let checksum = crc(&[&batch[..28], &batch[BATCH_HEADER..list_end]].concat());
    batch[28..32].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

fn body(block: &Block) -> Vec<u8> {
    let mut bytes = Vec::new();
    for NewRecord {
        key,
        value,
        headers,
    } in &block.records
    {
        bytes.extend((value.len() as u32).to_le_bytes());
        bytes.extend((key.len() as u16).to_le_bytes());
        bytes.extend([headers.len() as u8, 0]);
        bytes.extend(key);
        for (name, value) in headers {
            bytes.extend((name.len() as u16).to_le_bytes());
            bytes.extend((value.len() as u16).to_le_bytes());
            bytes.extend(name.as_bytes());
            bytes.extend(value);
        }
        bytes.extend(value);
    }
    bytes
}

fn crc(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// A record whose parts have these lengths and tell it from others.
pub(crate) fn record(n: usize, key: usize, value: usize, headers: usize) -> NewRecord {
    let letter = b'a' + (n % 26) as u8;
    let header = |_| ("trace".to_owned(), Bytes::from(vec![letter; 3]));
    NewRecord {
        key: vec![letter; key].into(),
        value: vec![letter; value].into(),
        headers: (0..headers).map(header).collect(),
    }
}
