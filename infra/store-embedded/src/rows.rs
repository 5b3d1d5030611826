//! Rows as bytes: the order of the keys, and the encoding of the values.
//!
//! A value is the row's version, 8 bytes big-endian, and the row in postcard: about 70 bytes for an
//! attempt. The version comes first so that two versions of a row can be compared without decoding
//! either. Postcard writes no field names, so a change to a row type changes the bytes; then
//! [`FORMAT`] must be raised, and every older file is rebuilt from the log. A test fixes the bytes, so
//! that this cannot be forgotten.

use std::ops::Bound;

use ports::LogMark;
use ports::read_store::{AttemptRow, CommandRow, Progress, Row, SaleRow, StoreError};
use schemas::ids::{AttemptId, Offset, Position, RecordHash};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// The version of the file's format. Raise it with every change of the bytes.
pub(crate) const FORMAT: u64 = 7;

/// The tables, one for each query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Table {
    /// By product id.
    Sales,
    /// By [`Shard`], then attempt id.
    Attempts,
    /// By buyer, then position.
    Orders,
    /// By product, then position.
    Intents,
    /// By position.
    Commands,
}

impl Table {
    pub(crate) const ALL: [Table; 5] = [
        Table::Sales,
        Table::Attempts,
        Table::Orders,
        Table::Intents,
        Table::Commands,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Table::Sales => "sales",
            Table::Attempts => "attempts",
            Table::Orders => "orders",
            Table::Intents => "intents",
            Table::Commands => "commands",
        }
    }
}

/// A shard of the attempts: those at 65,536 consecutive offsets of a log partition, about as many as
/// a busy partition takes from one flush to the next.
///
/// Attempt ids are spread evenly. In one table by id every new row would fall on a page of its own
/// as soon as there are more pages than rows in a flush. Rows that are new at the same time are of
/// the same shard, and within it they fall on few pages, however many rows there are in all. A
/// lookup by id searches every shard, newest first: one descent of the tree each. ADR 0017 has the
/// measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Shard(u64);

/// Bits of an offset within its shard.
pub(crate) const SHARD_BITS: u32 = 16;

/// Bytes of a key of [`Table::Attempts`].
pub(crate) const ATTEMPT_KEY_BYTES: usize = 24;

impl Shard {
    /// The highest possible shard.
    pub(crate) const LAST: Self = Self(u64::MAX);

    /// The shard of an attempt's position. Within a partition a later position is in the same shard
    /// or a higher one.
    pub(crate) fn of(position: Position) -> Self {
        let Offset(offset) = position.offset;
        let number = (offset.max(0) as u64 >> SHARD_BITS).min(u32::MAX.into());
        Self(number << 32 | u64::from(position.partition.0))
    }

    /// The next lower shard, empty or not.
    pub(crate) fn before(self) -> Option<Self> {
        self.0.checked_sub(1).map(Self)
    }

    pub(crate) fn key(self, id: AttemptId) -> [u8; ATTEMPT_KEY_BYTES] {
        let mut key = [0; ATTEMPT_KEY_BYTES];
        key[..8].copy_from_slice(&self.0.to_be_bytes());
        key[8..].copy_from_slice(id.as_bytes());
        key
    }

    /// The shard and the id of a key; none when it is no key of this table.
    pub(crate) fn of_key(key: &[u8]) -> Option<(Self, AttemptId)> {
        let key: &[u8; ATTEMPT_KEY_BYTES] = key.try_into().ok()?;
        let (shard, id) = key.split_first_chunk::<8>()?;
        let id = AttemptId::from_bytes(id.try_into().ok()?);
        Some((Self(u64::from_be_bytes(*shard)), id))
    }
}

/// The version of rows that never change.
const ONLY_VERSION: u64 = 1;

/// A row ready to be written.
pub(crate) struct EncodedRow {
    pub(crate) table: Table,
    pub(crate) key: Vec<u8>,
    pub(crate) value: Vec<u8>,
}

pub(crate) fn encode(row: &Row) -> Result<EncodedRow, StoreError> {
    let (table, key, value) = match row {
        Row::Sale(sale) => (
            Table::Sales,
            sale.product_id.as_str().into(),
            value_of(sale.version, sale),
        ),
        Row::Attempt(a) => (
            Table::Attempts,
            Shard::of(a.position).key(a.attempt_id).into(),
            value_of(a.version, a),
        ),
        Row::Order(a) => (
            Table::Orders,
            key_in_list(a.buyer_id.as_str(), a.position),
            value_of(a.version, a),
        ),
        Row::Intent(a) => (
            Table::Intents,
            key_in_list(a.product_id.as_str(), a.position),
            value_of(a.version, a),
        ),
        Row::Command(c) => (
            Table::Commands,
            position_key(c.position).into(),
            value_of(ONLY_VERSION, c),
        ),
    };
    Ok(EncodedRow {
        table,
        key,
        value: value?,
    })
}

pub(crate) fn decode(table: Table, value: &[u8]) -> Result<Row, StoreError> {
    Ok(match table {
        Table::Sales => Row::Sale(decode_sale(value)?),
        Table::Attempts => Row::Attempt(decode_attempt(value)?),
        Table::Orders => Row::Order(decode_attempt(value)?),
        Table::Intents => Row::Intent(decode_attempt(value)?),
        Table::Commands => Row::Command(decode_command(value)?),
    })
}

pub(crate) fn decode_sale(value: &[u8]) -> Result<SaleRow, StoreError> {
    row_of(value)
}

pub(crate) fn decode_attempt(value: &[u8]) -> Result<AttemptRow, StoreError> {
    row_of(value)
}

pub(crate) fn decode_command(value: &[u8]) -> Result<CommandRow, StoreError> {
    row_of(value)
}

/// The value of the higher version, if there is any.
pub(crate) fn newer(a: Option<Vec<u8>>, b: Option<Vec<u8>>) -> Option<Vec<u8>> {
    a.into_iter().chain(b).max_by_key(|value| version(value))
}

/// The version of an encoded row; 0, older than any, for bytes that are too short to have one.
pub(crate) fn version(value: &[u8]) -> u64 {
    value
        .first_chunk()
        .map_or(0, |bytes| u64::from_be_bytes(*bytes))
}

/// The keys of one owner's list that come after a position. No id contains a zero byte, so a zero
/// byte after the owner separates "a" from "ab", and the upper bound is the owner followed by a one.
pub(crate) fn keys_after(owner: &str, after: Option<Position>) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    let from = match after {
        Some(position) => Bound::Excluded(key_in_list(owner, position)),
        None => Bound::Included([owner.as_bytes(), &[0]].concat()),
    };
    (from, Bound::Excluded([owner.as_bytes(), &[1]].concat()))
}

fn key_in_list(owner: &str, position: Position) -> Vec<u8> {
    let mut key = Vec::with_capacity(owner.len() + 13);
    key.extend_from_slice(owner.as_bytes());
    key.push(0);
    key.extend_from_slice(&position_key(position));
    key
}

/// Bytes that sort as positions do.
pub(crate) fn position_key(position: Position) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&position.partition.0.to_be_bytes());
    key[4..].copy_from_slice(&sortable(position.offset));
    key
}

/// Bytes that sort as the offsets do, negative offsets first.
fn sortable(offset: Offset) -> [u8; 8] {
    ((offset.0 as u64) ^ (1 << 63)).to_be_bytes()
}

fn value_of(version: u64, row: &impl Serialize) -> Result<Vec<u8>, StoreError> {
    let mut value = Vec::with_capacity(128);
    value.extend_from_slice(&version.to_be_bytes());
    postcard::to_extend(row, value).map_err(|e| StoreError(format!("a row cannot be encoded: {e}")))
}

fn row_of<R: DeserializeOwned>(value: &[u8]) -> Result<R, StoreError> {
    let damaged = || StoreError("a row is damaged; delete the read store to rebuild it".into());
    let row = value.get(8..).ok_or_else(damaged)?;
    postcard::from_bytes(row).map_err(|_| damaged())
}

/// Progress as the file has it: next offset, claim, last answered offset, and the mark of the log:
/// its identity, and the offset and hash of its last record.
pub(crate) type ProgressValue = (i64, i64, i64, Option<([u8; 32], i64, [u8; 32])>);

pub(crate) fn encode_progress(progress: &Progress) -> ProgressValue {
    let mark = progress.log.map(|mark| {
        let LogMark {
            log,
            offset,
            record,
        } = mark;
        (log.0, offset.0, record.0)
    });
    (progress.next.0, progress.claim.0, progress.answered.0, mark)
}

pub(crate) fn decode_progress((next, claim, answered, mark): ProgressValue) -> Progress {
    Progress {
        next: Offset(next),
        claim: Offset(claim),
        answered: Offset(answered),
        log: mark.map(|(log, offset, record)| LogMark {
            log: RecordHash(log),
            offset: Offset(offset),
            record: RecordHash(record),
        }),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use ports::read_store::{AttemptStatus, CommandOutcome, CommandRefusal, SalePhase};
    use schemas::command::SaleTerms;
    use schemas::decision::{CancelRefusalReason, CommandKind};
    use schemas::decision::{RefusalReason, ReleaseCause, Stock, Tally};
    use schemas::ids::{AttemptId, Money, Partition};

    use super::*;

    pub(crate) fn attempt(number: u8, version: u64) -> AttemptRow {
        AttemptRow {
            attempt_id: AttemptId::from_bytes([number; 16]),
            product_id: "lamp".parse().unwrap(),
            buyer_id: "ann".parse().unwrap(),
            quantity: 300,
            position: Position {
                partition: Partition(3),
                offset: Offset(1842),
            },
            status: AttemptStatus::Sold,
            decided_at_ms: 1_790_000_000_000,
            hold_until_ms: Some(1_790_000_600_000),
            version,
            trace_id: None,
            price: Some(Money {
                minor: 1999,
                currency: "GBP".into(),
            }),
        }
    }

    /// A cancellation that was refused.
    fn command() -> CommandRow {
        let reason = CancelRefusalReason::NotYours;
        CommandRow {
            position: Position {
                partition: Partition(3),
                offset: Offset(1855),
            },
            product_id: Some("lamp".parse().unwrap()),
            kind: Some(CommandKind::CancelOrder),
            buyer_id: Some("ann".parse().unwrap()),
            attempt_id: Some(AttemptId::from_bytes([0xab; 16])),
            quantity: None,
            outcome: CommandOutcome::Refused(CommandRefusal::Cancel(reason)),
            decided_at_ms: 1_790_000_000_000,
            trace_id: None,
        }
    }

    /// This fails after a change of a row type, or of the order of an enum's variants. Then raise
    /// [`FORMAT`] and write the new bytes here. Otherwise a new version would misread old files.
    #[test]
    fn the_bytes_of_this_format_never_change() {
        let refused = RefusalReason::ALL
            .iter()
            .map(|reason| AttemptStatus::Refused(*reason));
        let released = ReleaseCause::ALL
            .iter()
            .map(|cause| AttemptStatus::Released(*cause));
        let statuses = [AttemptStatus::Reserved, AttemptStatus::Sold].into_iter();
        let statuses: Vec<u8> = statuses
            .chain(refused)
            .chain(released)
            .flat_map(|status| postcard::to_allocvec(&status).unwrap())
            .collect();
        let phases = [
            SalePhase::Scheduled,
            SalePhase::Open,
            SalePhase::Paused,
            SalePhase::Closed,
        ];
        let sale = SaleRow {
            product_id: "lamp".parse().unwrap(),
            version: 9,
            round: 2,
            terms: SaleTerms {
                name: "A lamp".into(),
                price: Money {
                    minor: 1999,
                    currency: "GBP".into(),
                },
                stock: 100,
                limit_per_buyer: Some(2),
                hold_ms: None,
                opens_at_ms: -1,
                closes_at_ms: Some(70_000),
            },
            phase: SalePhase::Open,
            stock: Stock {
                total: 100,
                available: 90,
                reserved: 8,
                sold: 2,
            },
            tally: Tally {
                accepted: 10,
                refused: 300,
                cancelled: 1,
                expired: 0,
            },
            decided_at_ms: 1_790_000_000_000,
            sale_version: Some(9),
        };
        let sale = encode(&Row::Sale(sale)).unwrap();
        let order = encode(&Row::Order(attempt(0xab, 9))).unwrap();
        let intent = encode(&Row::Intent(attempt(0xab, 9))).unwrap();
        let attempt = encode(&Row::Attempt(attempt(0xab, 9))).unwrap();
        let command = encode(&Row::Command(command())).unwrap();
        let kinds = CommandKind::ALL;
        let kinds = kinds
            .iter()
            .flat_map(|kind| postcard::to_allocvec(kind).unwrap());
        let kinds: Vec<u8> = kinds.collect();
        let refusals = CommandRefusal::all();
        let refusals = refusals.flat_map(|why| postcard::to_allocvec(&why).unwrap());
        let refusals: Vec<u8> = refusals.collect();
        let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
        assert_eq!(FORMAT, 7);
        assert_eq!(
            hex(&statuses),
            "000102000201020202030204020502060207020803000301"
        );
        assert_eq!(hex(&postcard::to_allocvec(&phases).unwrap()), "00010203");
        assert_eq!(hex(&sale.key), hex(b"lamp"));
        assert_eq!(
            hex(&sale.value),
            "0000000000000009046c616d7009020641206c616d709e1f03474250640102000101e0c50801645a08020aac02010080b083c598680109"
        );
        assert_eq!(
            hex(&attempt.key),
            format!("0000000000000003{}", "ab".repeat(16))
        );
        assert_eq!(
            hex(&attempt.value),
            "000000000000000910abababababababababababababababab046c616d7003616e6eac0203e41c0180b083c598680180cfccc598680900019e1f03474250"
        );
        assert_eq!(
            hex(&order.key),
            format!("{}00000000038000000000000732", hex(b"ann"))
        );
        assert_eq!(
            hex(&intent.key),
            format!("{}00000000038000000000000732", hex(b"lamp"))
        );
        assert_eq!(
            (&order.value, &intent.value),
            (&attempt.value, &attempt.value)
        );
        assert_eq!(hex(&kinds), "000102030405060708");
        assert_eq!(
            hex(&refusals),
            "00000001000200030004000500060100010102030405"
        );
        assert_eq!(hex(&command.key), "00000003800000000000073f");
        assert_eq!(
            hex(&command.value),
            "000000000000000103fe1c01046c616d7001010103616e6e0110abababababababababababababababab0001010180b083c5986800"
        );
    }

    #[test]
    fn a_damaged_value_is_an_error() {
        let whole = encode(&Row::Attempt(attempt(1, 9))).unwrap().value;
        assert_eq!(
            decode(Table::Attempts, &whole),
            Ok(Row::Attempt(attempt(1, 9)))
        );
        for length in 0..whole.len() {
            assert!(
                decode(Table::Attempts, &whole[..length]).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn a_later_position_in_a_partition_is_of_no_lower_shard() {
        let at = |partition, offset| {
            Shard::of(Position {
                partition: Partition(partition),
                offset: Offset(offset),
            })
        };
        for partition in [0, 7, u32::MAX] {
            let offsets = [
                -1,
                0,
                (1 << SHARD_BITS) - 1,
                1 << SHARD_BITS,
                1 << 40,
                1 << 50,
                i64::MAX,
            ];
            let shards = offsets.map(|offset| at(partition, offset));
            assert!(shards.is_sorted(), "{shards:?}");
            assert_eq!((shards[0], shards[1]), (shards[1], shards[2]));
            assert!(shards[2] < shards[3] && shards[3] < shards[4]);
        }
        let id = AttemptId::from_bytes([7; 16]);
        let shard = at(3, 1 << 20);
        assert_eq!(Shard::of_key(&shard.key(id)), Some((shard, id)));
        assert_eq!(Shard::of_key(b"short"), None);
    }

    #[test]
    fn keys_sort_as_positions_do_within_their_owner() {
        let mut keys = Vec::new();
        for owner in ["a", "a b", "a-b", "ab"] {
            for partition in [0, 1, 255, 256, u32::MAX] {
                for offset in [-1, 0, 1, 255, 256, i64::MAX] {
                    let partition = Partition(partition);
                    keys.push(key_in_list(
                        owner,
                        Position {
                            partition,
                            offset: Offset(offset),
                        },
                    ));
                }
            }
        }
        assert!(keys.is_sorted_by(|a, b| a < b));
    }
}
