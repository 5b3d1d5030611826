//! Rows as columns. Every column has a value: an absent one has a value that no present one has, as
//! documented in the migration that creates the tables.

use ports::read_store::{
    AttemptRow, AttemptStatus, CommandOutcome, CommandRefusal, CommandRow, Progress, SalePhase,
    SaleRow,
};
use ports::{LogMark, StoreError};
use schemas::command::SaleTerms;
use schemas::decision::{CommandKind, RefusalReason, ReleaseCause, Stock, Tally};
use schemas::ids::{AttemptId, Money, Offset, Partition, Position, RecordHash, TraceId};
use scylla::{DeserializeRow, SerializeRow};
use uuid::Uuid;

/// The highest version of a row, and the highest write time. Nodes refuse write times in the future.
/// As microseconds since 1970 this one is in 2005; as decisions on one product it is a million a
/// second for 35 years.
pub(crate) const MAX_VERSION: i64 = 1 << 50;

/// The value of an absent number. No time, limit or duration is as low.
const NONE: i64 = i64::MIN;

/// The columns of [`AttemptColumns`].
pub(crate) const ATTEMPT_COLUMNS: &[&str] = &[
    "attempt_id",
    "product_id",
    "buyer_id",
    "quantity",
    "log_partition",
    "log_offset",
    "status",
    "reason",
    "decided_at_ms",
    "hold_until_ms",
    "version",
    "trace_id",
    "price_minor",
    "price_currency",
];

/// The columns of [`CommandColumns`].
pub(crate) const COMMAND_COLUMNS: &[&str] = &[
    "log_partition",
    "log_offset",
    "product_id",
    "kind",
    "buyer_id",
    "attempt_id",
    "quantity",
    "status",
    "reason",
    "decided_at_ms",
    "trace_id",
];

/// The columns of [`SaleColumns`].
pub(crate) const SALE_COLUMNS: &[&str] = &[
    "product_id",
    "version",
    "round",
    "name",
    "price_minor",
    "price_currency",
    "stock",
    "limit_per_buyer",
    "hold_ms",
    "opens_at_ms",
    "closes_at_ms",
    "phase",
    "stock_total",
    "stock_available",
    "stock_reserved",
    "stock_sold",
    "accepted",
    "refused",
    "cancelled",
    "expired",
    "decided_at_ms",
    "sale_version",
];

/// An attempt in the columns of its tables: attempts, orders and intents.
#[derive(SerializeRow, DeserializeRow)]
pub(crate) struct AttemptColumns<'a> {
    attempt_id: Uuid,
    product_id: &'a str,
    buyer_id: &'a str,
    quantity: i64,
    log_partition: i64,
    log_offset: i64,
    status: &'a str,
    reason: &'a str,
    decided_at_ms: i64,
    hold_until_ms: i64,
    version: i64,
    trace_id: &'a [u8],
    /// Null in rows of versions before the column.
    price_minor: Option<i64>,
    price_currency: Option<&'a str>,
}

/// A command in the columns of its table.
#[derive(SerializeRow, DeserializeRow)]
pub(crate) struct CommandColumns<'a> {
    log_partition: i64,
    log_offset: i64,
    product_id: &'a str,
    kind: &'a str,
    buyer_id: &'a str,
    attempt_id: &'a [u8],
    quantity: i64,
    status: &'a str,
    reason: &'a str,
    decided_at_ms: i64,
    trace_id: &'a [u8],
}

/// A sale in the columns of its table.
#[derive(SerializeRow, DeserializeRow)]
pub(crate) struct SaleColumns<'a> {
    product_id: &'a str,
    version: i64,
    round: i64,
    name: &'a str,
    price_minor: i64,
    price_currency: &'a str,
    stock: i64,
    limit_per_buyer: i64,
    hold_ms: i64,
    opens_at_ms: i64,
    closes_at_ms: i64,
    phase: &'a str,
    stock_total: i64,
    stock_available: i64,
    stock_reserved: i64,
    stock_sold: i64,
    accepted: i64,
    refused: i64,
    cancelled: i64,
    expired: i64,
    decided_at_ms: i64,
    /// Null in rows of versions before the column.
    sale_version: Option<i64>,
}

/// A partition's progress in the columns of its table.
#[derive(SerializeRow, DeserializeRow)]
pub(crate) struct ProgressColumns {
    log_partition: i64,
    next_offset: i64,
    claim: i64,
    answered: i64,
}

/// The mark of a partition's log in the columns of its table.
#[derive(SerializeRow, DeserializeRow)]
pub(crate) struct MarkColumns {
    log_partition: i64,
    log: Vec<u8>,
    last_offset: i64,
    last_record: Vec<u8>,
}

impl<'a> AttemptColumns<'a> {
    pub(crate) fn new(row: &'a AttemptRow) -> Result<Self, StoreError> {
        let (status, reason) = match row.status {
            AttemptStatus::Reserved => ("reserved", ""),
            AttemptStatus::Sold => ("sold", ""),
            AttemptStatus::Refused(reason) => ("refused", reason.as_str()),
            AttemptStatus::Released(cause) => ("released", cause.as_str()),
        };
        Ok(Self {
            attempt_id: Uuid::from_bytes(*row.attempt_id.as_bytes()),
            product_id: row.product_id.as_str(),
            buyer_id: row.buyer_id.as_str(),
            quantity: row.quantity.into(),
            log_partition: row.position.partition.0.into(),
            log_offset: row.position.offset.0,
            status,
            reason,
            decided_at_ms: row.decided_at_ms,
            hold_until_ms: row.hold_until_ms.unwrap_or(NONE),
            version: written_version(row.version)?,
            trace_id: row.trace_id.as_ref().map_or(&[], |id| id.as_bytes()),
            price_minor: Some(row.price.as_ref().map_or(NONE, |price| price.minor)),
            price_currency: Some(row.price.as_ref().map_or("", |price| &price.currency)),
        })
    }

    /// The row's version, which is also its write time.
    pub(crate) fn version(&self) -> i64 {
        self.version
    }

    pub(crate) fn row(&self) -> Result<AttemptRow, StoreError> {
        let id = AttemptId::from_bytes(self.attempt_id.into_bytes());
        self.read()
            .ok_or_else(|| unreadable(format_args!("attempt {id}")))
    }

    /// None when a column has a value that no version writes.
    fn read(&self) -> Option<AttemptRow> {
        let status = match (self.status, self.reason) {
            ("reserved", "") => AttemptStatus::Reserved,
            ("sold", "") => AttemptStatus::Sold,
            ("refused", reason) => AttemptStatus::Refused(refusal(reason)?),
            ("released", cause) => AttemptStatus::Released(release(cause)?),
            _ => return None,
        };
        Some(AttemptRow {
            attempt_id: AttemptId::from_bytes(self.attempt_id.into_bytes()),
            product_id: self.product_id.parse().ok()?,
            buyer_id: self.buyer_id.parse().ok()?,
            quantity: self.quantity.try_into().ok()?,
            position: Position {
                partition: Partition(self.log_partition.try_into().ok()?),
                offset: Offset(self.log_offset),
            },
            status,
            decided_at_ms: self.decided_at_ms,
            hold_until_ms: present(self.hold_until_ms),
            version: self.version.try_into().ok()?,
            trace_id: trace_id(self.trace_id)?,
            price: match (self.price_minor, self.price_currency) {
                (None | Some(NONE), _) => None,
                (Some(minor), currency) => Some(Money {
                    minor,
                    currency: currency?.into(),
                }),
            },
        })
    }
}

impl<'a> CommandColumns<'a> {
    pub(crate) fn new(row: &'a CommandRow) -> Self {
        let (status, reason) = match row.outcome {
            CommandOutcome::Done => ("done", ""),
            CommandOutcome::Refused(reason) => ("refused", reason.as_str()),
        };
        Self {
            log_partition: row.position.partition.0.into(),
            log_offset: row.position.offset.0,
            product_id: row.product_id.as_ref().map_or("", |id| id.as_str()),
            kind: row.kind.map_or("", CommandKind::as_str),
            buyer_id: row.buyer_id.as_ref().map_or("", |id| id.as_str()),
            attempt_id: row.attempt_id.as_ref().map_or(&[], |id| id.as_bytes()),
            quantity: row.quantity.map_or(NONE, i64::from),
            status,
            reason,
            decided_at_ms: row.decided_at_ms,
            trace_id: row.trace_id.as_ref().map_or(&[], |id| id.as_bytes()),
        }
    }

    pub(crate) fn row(&self) -> Result<CommandRow, StoreError> {
        let at = (self.log_partition, self.log_offset);
        self.read()
            .ok_or_else(|| unreadable(format_args!("command {}:{}", at.0, at.1)))
    }

    /// None when a column has a value that no version writes.
    fn read(&self) -> Option<CommandRow> {
        let outcome = match (self.status, self.reason) {
            ("done", "") => CommandOutcome::Done,
            ("refused", reason) => {
                let mut reasons = CommandRefusal::all();
                CommandOutcome::Refused(reasons.find(|known| known.as_str() == reason)?)
            }
            _ => return None,
        };
        let mut kinds = CommandKind::ALL.iter().copied();
        Some(CommandRow {
            position: Position {
                partition: Partition(self.log_partition.try_into().ok()?),
                offset: Offset(self.log_offset),
            },
            product_id: match self.product_id {
                "" => None,
                id => Some(id.parse().ok()?),
            },
            kind: match self.kind {
                "" => None,
                kind => Some(kinds.find(|known| known.as_str() == kind)?),
            },
            buyer_id: match self.buyer_id {
                "" => None,
                id => Some(id.parse().ok()?),
            },
            attempt_id: match self.attempt_id {
                [] => None,
                bytes => Some(AttemptId::from_bytes(bytes.try_into().ok()?)),
            },
            quantity: present(self.quantity).map(u32::try_from).transpose().ok()?,
            outcome,
            decided_at_ms: self.decided_at_ms,
            trace_id: trace_id(self.trace_id)?,
        })
    }
}

impl<'a> SaleColumns<'a> {
    pub(crate) fn new(row: &'a SaleRow) -> Result<Self, StoreError> {
        let count = |count: u64| {
            let too_many = |_| {
                StoreError(format!(
                    "a count of product {} is {count}, which is too high for the read store",
                    row.product_id
                ))
            };
            i64::try_from(count).map_err(too_many)
        };
        let phase = match row.phase {
            SalePhase::Scheduled => "scheduled",
            SalePhase::Open => "open",
            SalePhase::Paused => "paused",
            SalePhase::Closed => "closed",
        };
        Ok(Self {
            product_id: row.product_id.as_str(),
            version: written_version(row.version)?,
            round: row.round.into(),
            name: &row.terms.name,
            price_minor: row.terms.price.minor,
            price_currency: &row.terms.price.currency,
            stock: row.terms.stock.into(),
            limit_per_buyer: row.terms.limit_per_buyer.map_or(NONE, i64::from),
            hold_ms: row.terms.hold_ms.unwrap_or(NONE),
            opens_at_ms: row.terms.opens_at_ms,
            closes_at_ms: row.terms.closes_at_ms.unwrap_or(NONE),
            phase,
            stock_total: row.stock.total.into(),
            stock_available: row.stock.available.into(),
            stock_reserved: row.stock.reserved.into(),
            stock_sold: row.stock.sold.into(),
            accepted: count(row.tally.accepted)?,
            refused: count(row.tally.refused)?,
            cancelled: count(row.tally.cancelled)?,
            expired: count(row.tally.expired)?,
            decided_at_ms: row.decided_at_ms,
            sale_version: Some(row.sale_version.map_or(Ok(NONE), count)?),
        })
    }

    /// The row's version, which is also its write time.
    pub(crate) fn version(&self) -> i64 {
        self.version
    }

    pub(crate) fn row(&self) -> Result<SaleRow, StoreError> {
        self.read()
            .ok_or_else(|| unreadable(format_args!("sale {:?}", self.product_id)))
    }

    fn read(&self) -> Option<SaleRow> {
        let limit_per_buyer = present(self.limit_per_buyer).map(u32::try_from);
        Some(SaleRow {
            product_id: self.product_id.parse().ok()?,
            version: self.version.try_into().ok()?,
            round: self.round.try_into().ok()?,
            terms: SaleTerms {
                name: self.name.into(),
                price: Money {
                    minor: self.price_minor,
                    currency: self.price_currency.into(),
                },
                stock: self.stock.try_into().ok()?,
                limit_per_buyer: limit_per_buyer.transpose().ok()?,
                hold_ms: present(self.hold_ms),
                opens_at_ms: self.opens_at_ms,
                closes_at_ms: present(self.closes_at_ms),
            },
            phase: match self.phase {
                "scheduled" => SalePhase::Scheduled,
                "open" => SalePhase::Open,
                "paused" => SalePhase::Paused,
                "closed" => SalePhase::Closed,
                _ => return None,
            },
            stock: Stock {
                total: self.stock_total.try_into().ok()?,
                available: self.stock_available.try_into().ok()?,
                reserved: self.stock_reserved.try_into().ok()?,
                sold: self.stock_sold.try_into().ok()?,
            },
            tally: Tally {
                accepted: self.accepted.try_into().ok()?,
                refused: self.refused.try_into().ok()?,
                cancelled: self.cancelled.try_into().ok()?,
                expired: self.expired.try_into().ok()?,
            },
            decided_at_ms: self.decided_at_ms,
            sale_version: match self.sale_version {
                None | Some(NONE) => None,
                Some(version) => Some(version.try_into().ok()?),
            },
        })
    }
}

impl ProgressColumns {
    pub(crate) fn new(partition: Partition, progress: Progress) -> Self {
        Self {
            log_partition: partition.0.into(),
            next_offset: progress.next.0,
            claim: progress.claim.0,
            answered: progress.answered.0,
        }
    }

    /// The write time: it rises with the progress, so that a projector that is behind another does not
    /// undo the other's progress.
    pub(crate) fn written_at(&self) -> i64 {
        self.next_offset.clamp(0, MAX_VERSION)
    }

    pub(crate) fn read(&self) -> Result<(Partition, Progress), StoreError> {
        let partition = u32::try_from(self.log_partition);
        let partition = partition
            .map_err(|_| unreadable(format_args!("progress of {}", self.log_partition)))?;
        let progress = Progress {
            next: Offset(self.next_offset),
            claim: Offset(self.claim),
            answered: Offset(self.answered),
            log: None,
        };
        Ok((Partition(partition), progress))
    }
}

impl MarkColumns {
    pub(crate) fn new(partition: Partition, mark: LogMark) -> Self {
        Self {
            log_partition: partition.0.into(),
            log: mark.log.0.to_vec(),
            last_offset: mark.offset.0,
            last_record: mark.record.0.to_vec(),
        }
    }

    pub(crate) fn read(&self) -> Result<(Partition, LogMark), StoreError> {
        let damaged = || unreadable(format_args!("the log's mark of {}", self.log_partition));
        let hash = |bytes: &[u8]| bytes.try_into().map(RecordHash).map_err(|_| damaged());
        let partition = u32::try_from(self.log_partition).map_err(|_| damaged())?;
        let mark = LogMark {
            log: hash(&self.log)?,
            offset: Offset(self.last_offset),
            record: hash(&self.last_record)?,
        };
        Ok((Partition(partition), mark))
    }
}

fn written_version(version: u64) -> Result<i64, StoreError> {
    let known = i64::try_from(version).ok();
    known
        .filter(|version| *version <= MAX_VERSION)
        .ok_or_else(|| {
            StoreError(format!(
                "a row's version is {version}, but the highest possible version is {MAX_VERSION}"
            ))
        })
}

fn present(value: i64) -> Option<i64> {
    (value != NONE).then_some(value)
}

/// The trace of a column, which is empty when there is none; `None` when it has another value.
fn trace_id(column: &[u8]) -> Option<Option<TraceId>> {
    match column {
        [] => Some(None),
        bytes => Some(Some(TraceId::from_bytes(bytes.try_into().ok()?)?)),
    }
}

fn refusal(word: &str) -> Option<RefusalReason> {
    let mut reasons = RefusalReason::ALL.iter().copied();
    reasons.find(|reason| reason.as_str() == word)
}

fn release(word: &str) -> Option<ReleaseCause> {
    let mut causes = ReleaseCause::ALL.iter().copied();
    causes.find(|cause| cause.as_str() == word)
}

fn unreadable(what: std::fmt::Arguments) -> StoreError {
    StoreError(format!(
        "{what} cannot be decoded; it was changed by hand, or written by a newer version"
    ))
}
