//! The responses of the HTTP API as types: receipts, answers and sales.

use std::fmt;

use schemas::decision::{RefusalReason, Stock, Tally};
use schemas::ids::{AttemptId, Position};
use serde::Deserialize;

/// The acknowledgement of an order or a cancellation: its position in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Receipt {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// The position of its record.
    pub position: Position,
    /// Whether the request was sent more than once, so that an earlier sending may have an earlier
    /// position.
    pub resent: bool,
}

/// The status of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Its units are held.
    Reserved,
    /// Its units are sold.
    Sold,
    /// It was refused.
    Refused(RefusalReason),
    /// Its buyer cancelled the order.
    Cancelled,
    /// Its hold expired.
    Expired,
}

impl Status {
    /// Whether the attempt has its units.
    pub fn is_accepted(self) -> bool {
        matches!(self, Status::Reserved | Status::Sold)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Status::Reserved => f.write_str("reserved"),
            Status::Sold => f.write_str("sold"),
            Status::Refused(reason) => write!(f, "refused ({reason})"),
            Status::Cancelled => f.write_str("cancelled"),
            Status::Expired => f.write_str("expired"),
        }
    }
}

/// The answer to an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: Status,
    /// The number of units that was decided.
    pub quantity: u32,
    /// The attempt's position.
    pub position: Position,
    /// When it was decided, as the instance wrote it.
    pub decided_at: Box<str>,
}

/// A sale as shoppers see it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Sale {
    /// The product.
    pub product_id: String,
    /// `scheduled`, `open`, `paused`, `closed` or `sold_out`.
    pub state: String,
    /// Its units.
    pub stock: Stock,
    /// Its counts.
    pub attempts: Tally,
    /// When it opens, RFC 3339.
    pub opens_at: String,
    /// The instance's time when it answered, RFC 3339.
    pub server_time: String,
}

#[derive(Deserialize)]
pub(super) struct ProblemJson {
    pub(super) code: String,
    #[serde(default)]
    pub(super) detail: String,
}

#[derive(Deserialize)]
pub(super) struct SalesJson {
    pub(super) server_time: String,
}

#[derive(Deserialize)]
pub(super) struct PositionJson {
    pub(super) position: Position,
}

#[derive(Deserialize)]
pub(super) struct CommandJson {
    pub(super) status: String,
    pub(super) reason: Option<String>,
}

impl CommandJson {
    /// Why the command was refused, if it was. Fails with what is wrong with the response.
    pub(super) fn refusal(self) -> Result<Option<String>, String> {
        match (self.status.as_str(), self.reason) {
            ("done", None) => Ok(None),
            ("refused", Some(reason)) => Ok(Some(reason)),
            (status, reason) => Err(format!("status {status:?} with reason {reason:?}")),
        }
    }
}

#[derive(Deserialize)]
pub(super) struct ReceiptJson {
    pub(super) attempt_id: String,
    pub(super) position: Position,
}

#[derive(Deserialize)]
pub(super) struct AttemptJson {
    pub(super) status: String,
    pub(super) reason: Option<RefusalReason>,
    pub(super) quantity: Option<u32>,
    pub(super) position: Option<Position>,
    pub(super) decided_at: Option<Box<str>>,
}

impl AttemptJson {
    /// The answer. Fails with what is missing; a queued attempt has no answer.
    pub(super) fn answer(self) -> Result<Answer, String> {
        let status = match (self.status.as_str(), self.reason) {
            ("reserved", None) => Status::Reserved,
            ("sold", None) => Status::Sold,
            ("cancelled", None) => Status::Cancelled,
            ("expired", None) => Status::Expired,
            ("refused", Some(reason)) => Status::Refused(reason),
            (status, reason) => return Err(format!("status {status:?} with reason {reason:?}")),
        };
        Ok(Answer {
            status,
            quantity: self.quantity.ok_or("no quantity")?,
            position: self.position.ok_or("no position")?,
            decided_at: self.decided_at.ok_or("no decided_at")?,
        })
    }
}
