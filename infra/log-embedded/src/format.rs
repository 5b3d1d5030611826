//! The bytes on disk, as described in `infra/docs/log-format.md`. All numbers are little-endian;
//! every checksum is CRC-32C.

use bytes::Bytes;
use ports::event_log::{LogRecord, NewRecord};
use schemas::ids::{Offset, Partition, TimestampMs};
use schemas::topics::Topic;

/// The version of the format that this software writes, and the newest that it reads.
pub(crate) const VERSION: u32 = 1;
/// The file with the log's id and number of partitions.
pub(crate) const META: &str = "meta";
/// The file that marks a log as closed and records its end.
pub(crate) const CLEAN: &str = "clean";
/// The suffix of a file's name until the file is complete.
pub(crate) const UNFINISHED: &str = ".tmp";
/// Bytes of the header of the meta file, the mark of a closed log and every segment.
pub(crate) const FILE_HEADER: usize = 32;
/// Bytes of a batch before its list of blocks.
pub(crate) const BATCH_HEADER: usize = 32;
/// Bytes of a block in a batch's list of blocks.
pub(crate) const BLOCK_ENTRY: usize = 40;
/// Batches begin and end at multiples of this.
pub(crate) const ALIGNMENT: usize = 8;
/// Bytes of a record beside its key, headers and value.
pub(crate) const RECORD_HEADER: usize = 8;
/// Bytes of a record's header beside its name and value.
pub(crate) const HEADER_LENGTHS: usize = 4;

const META_MAGIC: u64 = u64::from_le_bytes(*b"DBLOGMTA");
const SEGMENT_MAGIC: u64 = u64::from_le_bytes(*b"DBLOGSEG");
const CLEAN_MAGIC: u64 = u64::from_le_bytes(*b"DBLOGEND");

/// The most partitions of a topic.
pub(crate) const MAX_PARTITIONS: u32 = 1024;

/// The checksum of the format.
pub(crate) fn crc(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// The name of a segment's file; segments are numbered from 1.
pub(crate) fn segment_name(number: u32) -> String {
    format!("segment-{number:010}")
}

/// The number of a segment by its file's name; none for any other file.
pub(crate) fn segment_number(name: &str) -> Option<u32> {
    let number = name.strip_prefix("segment-")?.parse().ok()?;
    (segment_name(number) == name).then_some(number)
}

/// Why a file's header was refused.
pub(crate) enum HeaderFault {
    /// It does not have the bytes that were written.
    Damaged(&'static str),
    /// It has another version of the format.
    Version(u32),
}

/// The header of a file: magic, version, fields by kind of file, checksum. Magic, version and checksum
/// have the same positions in every version, so that a future version is recognised.
fn file_header(magic: u64, small: u32, large: u64, tail: u32) -> [u8; FILE_HEADER] {
    let mut bytes = [0; FILE_HEADER];
    bytes[0..8].copy_from_slice(&magic.to_le_bytes());
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..16].copy_from_slice(&small.to_le_bytes());
    bytes[16..24].copy_from_slice(&large.to_le_bytes());
    bytes[24..28].copy_from_slice(&tail.to_le_bytes());
    let checksum = crc(&bytes[..28]);
    bytes[28..32].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn parse_file_header(magic: u64, bytes: &[u8]) -> Result<(u32, u64, u32), HeaderFault> {
    let header = bytes
        .get(..FILE_HEADER)
        .ok_or(HeaderFault::Damaged("the file is too short for its header"))?;
    if u64_at(header, 0) != magic {
        return Err(HeaderFault::Damaged(
            "it does not begin as a file of this kind does",
        ));
    }
    if u32_at(header, 28) != crc(&header[..28]) {
        return Err(HeaderFault::Damaged("the header's checksum does not match"));
    }
    match u32_at(header, 8) {
        VERSION => Ok((u32_at(header, 12), u64_at(header, 16), u32_at(header, 24))),
        other => Err(HeaderFault::Version(other)),
    }
}

/// The contents of the meta file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Partitions of every topic.
    pub partitions: u32,
    /// A random number, drawn when the log was created. Every batch begins with it, so that no bytes
    /// of another log or of a client's value are taken for a batch of this log.
    pub log_id: u64,
}

impl Meta {
    pub(crate) fn encode(self) -> [u8; FILE_HEADER] {
        file_header(META_MAGIC, self.partitions, self.log_id, 0)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let (partitions, log_id, _) = parse_file_header(META_MAGIC, bytes)?;
        match (1..=MAX_PARTITIONS).contains(&partitions) {
            true => Ok(Self { partitions, log_id }),
            false => Err(HeaderFault::Damaged(
                "its number of partitions is not 1 to 1024",
            )),
        }
    }

    /// The number of slots: of pairs of topic and partition.
    pub(crate) fn slots(self) -> usize {
        Topic::ALL.len() * self.partitions as usize
    }

    /// The slot of a topic's partition; none when there is no such partition.
    pub(crate) fn slot(self, topic: Topic, partition: Partition) -> Option<usize> {
        let topic = usize::from(topic_code(topic)) - 1;
        (partition.0 < self.partitions)
            .then_some(topic * self.partitions as usize + partition.0 as usize)
    }

    /// The topic and partition of a slot.
    pub(crate) fn of_slot(self, slot: usize) -> (Topic, Partition) {
        let partitions = self.partitions as usize;
        (
            Topic::ALL[slot / partitions],
            Partition((slot % partitions) as u32),
        )
    }
}

/// The header of a segment.
pub(crate) fn encode_segment_header(log_id: u64, number: u32) -> [u8; FILE_HEADER] {
    file_header(SEGMENT_MAGIC, number, log_id, 0)
}

/// Checks the header of a segment.
pub(crate) fn check_segment_header(
    bytes: &[u8],
    log_id: u64,
    number: u32,
) -> Result<(), HeaderFault> {
    let (found_number, found_id, _) = parse_file_header(SEGMENT_MAGIC, bytes)?;
    if found_id != log_id {
        return Err(HeaderFault::Damaged("it is a segment of another log"));
    }
    if found_number != number {
        return Err(HeaderFault::Damaged("it is a segment with another number"));
    }
    Ok(())
}

/// The end of a log that was closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Clean {
    /// The sequence of the next batch.
    pub next_sequence: u64,
    /// The checksum of the last batch.
    pub last_checksum: u32,
}

impl Clean {
    pub(crate) fn encode(self) -> [u8; FILE_HEADER] {
        file_header(CLEAN_MAGIC, 0, self.next_sequence, self.last_checksum)
    }

    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, HeaderFault> {
        let (_, next_sequence, last_checksum) = parse_file_header(CLEAN_MAGIC, bytes)?;
        Ok(Self {
            next_sequence,
            last_checksum,
        })
    }
}

/// The number that stands for a topic; it never changes.
fn topic_code(topic: Topic) -> u16 {
    match topic {
        Topic::PurchaseAttempts => 1,
        Topic::StockDecisions => 2,
        Topic::ProductSnapshots => 3,
    }
}

/// A batch's header and its list of blocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Batch {
    /// Numbered over the whole log, from 1, without gaps.
    pub sequence: u64,
    /// The checksum of the batch before; 0 before the first.
    pub previous: u32,
    /// All its bytes, header and padding included.
    pub bytes: u32,
    /// The checksum of header and list, and so, through the list's checksums, of all records.
    pub checksum: u32,
    /// Its blocks, at most one for each topic and partition.
    pub blocks: Vec<Block>,
}

/// Records of one topic and partition within a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block {
    /// Its topic and partition, by [`Meta::slot`].
    pub slot: usize,
    /// The offset of its first record; the others follow without gaps.
    pub base: i64,
    /// The append time of all its records.
    pub appended_at_ms: TimestampMs,
    /// The number of records.
    pub count: u32,
    /// The size of the records.
    pub bytes: u32,
    /// The checksum of the records.
    pub checksum: u32,
    /// Whether the log's time was corrected before its batch: no partition's time before it counts
    /// as later than this block's.
    pub corrects_time: bool,
    /// The position of the records, from the batch's first byte.
    pub at: usize,
}

impl Block {
    /// The offset after the last record.
    pub(crate) fn end(&self) -> i64 {
        self.base + i64::from(self.count)
    }
}

/// The size of a batch with this many blocks and bytes of records; a multiple of the alignment.
pub(crate) fn batch_bytes(blocks: usize, body_bytes: usize) -> usize {
    (BATCH_HEADER + blocks * BLOCK_ENTRY + body_bytes).next_multiple_of(ALIGNMENT)
}

/// Writes a batch's header and list into the space that `batch` has for them before the records and
/// the padding. Returns the batch's checksum.
pub(crate) fn seal_batch(
    batch: &mut [u8],
    meta: Meta,
    sequence: u64,
    previous: u32,
    blocks: &[Block],
) -> u32 {
    let bytes = batch.len() as u32;
    for (block, entry) in blocks
        .iter()
        .zip(batch[BATCH_HEADER..].chunks_exact_mut(BLOCK_ENTRY))
    {
        let (topic, partition) = meta.of_slot(block.slot);
        entry[0..2].copy_from_slice(&topic_code(topic).to_le_bytes());
        entry[2..4].copy_from_slice(&u16::from(block.corrects_time).to_le_bytes());
        entry[4..8].copy_from_slice(&partition.0.to_le_bytes());
        entry[8..16].copy_from_slice(&block.base.to_le_bytes());
        entry[16..24].copy_from_slice(&block.appended_at_ms.to_le_bytes());
        entry[24..28].copy_from_slice(&block.count.to_le_bytes());
        entry[28..32].copy_from_slice(&block.bytes.to_le_bytes());
        entry[32..36].copy_from_slice(&block.checksum.to_le_bytes());
        entry[36..40].fill(0);
    }
    batch[0..8].copy_from_slice(&meta.log_id.to_le_bytes());
    batch[8..16].copy_from_slice(&sequence.to_le_bytes());
    batch[16..20].copy_from_slice(&previous.to_le_bytes());
    batch[20..24].copy_from_slice(&(blocks.len() as u32).to_le_bytes());
    batch[24..28].copy_from_slice(&bytes.to_le_bytes());
    let checksum = batch_checksum(&batch[..BATCH_HEADER + blocks.len() * BLOCK_ENTRY]);
    batch[28..32].copy_from_slice(&checksum.to_le_bytes());
    checksum
}

/// The lengths in a batch's header: of header and list, and of the whole batch. Checks only that they
/// agree with each other, and the log's id.
pub(crate) fn batch_lengths(header: &[u8; BATCH_HEADER], log_id: u64) -> Option<(usize, usize)> {
    let blocks = u32_at(header, 20) as usize;
    let bytes = u32_at(header, 24) as usize;
    let head = blocks.checked_mul(BLOCK_ENTRY)?.checked_add(BATCH_HEADER)?;
    let agree = u64_at(header, 0) == log_id && head <= bytes && bytes.is_multiple_of(ALIGNMENT);
    agree.then_some((head, bytes))
}

/// Parses a batch's header and list; none when they are damaged.
pub(crate) fn parse_batch(head: &[u8], meta: Meta) -> Option<Batch> {
    let header = head.first_chunk::<BATCH_HEADER>()?;
    let (head_bytes, bytes) = batch_lengths(header, meta.log_id)?;
    let checksum = u32_at(header, 28);
    if head.len() != head_bytes || batch_checksum(head) != checksum {
        return None;
    }
    let mut at = head_bytes;
    let mut blocks = Vec::with_capacity((head_bytes - BATCH_HEADER) / BLOCK_ENTRY);
    for entry in head[BATCH_HEADER..].chunks_exact(BLOCK_ENTRY) {
        let code = u16::from_le_bytes([entry[0], entry[1]]);
        let topic = Topic::ALL
            .into_iter()
            .find(|topic| topic_code(*topic) == code)?;
        let block = Block {
            slot: meta.slot(topic, Partition(u32_at(entry, 4)))?,
            base: i64_at(entry, 8),
            appended_at_ms: i64_at(entry, 16),
            count: u32_at(entry, 24),
            bytes: u32_at(entry, 28),
            checksum: u32_at(entry, 32),
            corrects_time: match u16_at(entry, 2) {
                0 => false,
                1 => true,
                _ => return None,
            },
            at,
        };
        at = at.checked_add(block.bytes as usize)?;
        blocks.push(block);
    }
    let whole = at.checked_next_multiple_of(ALIGNMENT)? == bytes;
    whole.then_some(Batch {
        sequence: u64_at(header, 8),
        previous: u32_at(header, 16),
        bytes: bytes as u32,
        checksum,
        blocks,
    })
}

/// The checksum of header and list, without the four bytes of the checksum itself.
fn batch_checksum(head: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(&head[..28]);
    digest.update(&head[BATCH_HEADER..]);
    digest.finalize() as u32
}

/// The size of a record in a block.
pub(crate) fn record_bytes(record: &NewRecord) -> usize {
    let headers = record.headers.iter();
    let headers: usize = headers
        .map(|(name, value)| HEADER_LENGTHS + name.len() + value.len())
        .sum();
    RECORD_HEADER + record.key.len() + headers + record.value.len()
}

/// Encodes a record. It must be within the port's bounds.
pub(crate) fn encode_record(record: &NewRecord, block: &mut Vec<u8>) {
    block.extend_from_slice(&(record.value.len() as u32).to_le_bytes());
    block.extend_from_slice(&(record.key.len() as u16).to_le_bytes());
    block.extend_from_slice(&[record.headers.len() as u8, 0]);
    block.extend_from_slice(&record.key);
    for (name, value) in &record.headers {
        block.extend_from_slice(&(name.len() as u16).to_le_bytes());
        block.extend_from_slice(&(value.len() as u16).to_le_bytes());
        block.extend_from_slice(name.as_bytes());
        block.extend_from_slice(value);
    }
    block.extend_from_slice(&record.value);
}

/// Parses the record at `at` and moves `at` past it; none when there is no valid record.
pub(crate) fn parse_record(
    block: &Bytes,
    at: &mut usize,
    offset: i64,
    appended_at_ms: TimestampMs,
) -> Option<LogRecord> {
    let lengths = block.get(*at..)?.first_chunk::<RECORD_HEADER>()?;
    let value_bytes = u32_at(lengths, 0) as usize;
    let key_bytes = usize::from(u16_at(lengths, 4));
    let header_count = usize::from(lengths[6]);
    let mut take = {
        *at += RECORD_HEADER;
        |bytes: usize| {
            let end = at.checked_add(bytes).filter(|end| *end <= block.len())?;
            let taken = block.slice(*at..end);
            *at = end;
            Some(taken)
        }
    };
    let key = take(key_bytes)?;
    let mut headers = Vec::with_capacity(header_count);
    for _ in 0..header_count {
        let lengths = take(HEADER_LENGTHS)?;
        let name = take(usize::from(u16_at(&lengths, 0)))?;
        let name = std::str::from_utf8(&name).ok()?.to_owned();
        headers.push((name, take(usize::from(u16_at(&lengths, 2)))?));
    }
    let value = take(value_bytes)?;
    Some(LogRecord {
        offset: Offset(offset),
        appended_at_ms,
        key,
        value,
        headers,
    })
}

// The callers have checked that the bytes exist.

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    u64_at(bytes, at) as i64
}
