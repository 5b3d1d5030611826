//! Checks one receipt: whether the log has what the receipt promises, and what became of the
//! attempt.

use std::fmt;

use history::{Decisions, HistoryError};
use ports::EventLog;
use schemas::codec::Codec;
use schemas::command::CommandBody;
use schemas::decision::{Event, ReleaseCause};
use schemas::ids::{AttemptId, Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use serde::Serialize;
use sha2::{Digest, Sha256};
use web::receipt::{Claims, ReceiptKey};
use web::rfc3339::Moment;

use crate::AuditError;

/// What the check of a receipt found.
#[derive(Debug, Clone, Serialize)]
pub struct ReceiptReport {
    /// What the receipt claims, if it was signed with the key.
    #[serde(rename = "says")]
    pub claims: Option<Claims>,
    /// Why the receipt is not valid; `None` if it is.
    pub violation: Option<String>,
    /// Whether the attempt's record is decided.
    pub decided: bool,
    /// What happened to the attempt, in order.
    pub events: Vec<AttemptEvent>,
}

/// Something that happened to the attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AttemptEvent {
    /// The decision's offset in `stock-decisions`.
    pub decision: Offset,
    /// The offset of `purchase-attempts` that the decision answers.
    pub answers: Offset,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub at_ms: TimestampMs,
    /// What happened.
    pub what: String,
}

/// Checks a receipt: its signature, that `purchase-attempts` has exactly that record at that
/// position, and what the decisions made of it.
pub async fn check(
    log: &dyn EventLog,
    codec: &Codec,
    key: &ReceiptKey,
    receipt: &str,
) -> Result<ReceiptReport, AuditError> {
    let mut report = ReceiptReport {
        claims: None,
        violation: None,
        decided: false,
        events: vec![],
    };
    let claims = match key.verify(receipt.trim()) {
        Ok(claims) => claims,
        Err(error) => {
            report.violation = Some(error.to_string());
            return Ok(report);
        }
    };
    report.claims = Some(claims.clone());
    match find(log, codec, &claims).await? {
        Ok(attempt) => follow(log, codec, &claims, attempt, &mut report).await?,
        Err(violation) => report.violation = Some(violation),
    }
    Ok(report)
}

/// The attempt, if `purchase-attempts` has it exactly as the receipt claims; otherwise how the
/// log differs.
async fn find(
    log: &dyn EventLog,
    codec: &Codec,
    claims: &Claims,
) -> Result<Result<AttemptId, String>, AuditError> {
    let topic = Topic::PurchaseAttempts;
    let (partition, offset) = (Partition(claims.partition), Offset(claims.offset));
    if partition.0 >= log.partitions() {
        return Ok(Err(format!("{topic} has no partition {partition}")));
    }
    let end = log.end(topic, partition).await?;
    if !(0..end.0).contains(&offset.0) {
        return Ok(Err(format!(
            "{topic}, partition {partition}, ends at offset {end}"
        )));
    }
    let mut reader = log.read(topic, partition, offset).await?;
    let records = reader.next().await?;
    let Some(record) = records.first().filter(|record| record.offset == offset) else {
        return Ok(Err(format!(
            "{topic}, partition {partition}, has no record at {offset}"
        )));
    };
    let digest = Sha256::digest(&record.value);
    let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    if digest != claims.value_sha256 {
        return Ok(Err(format!(
            "{topic}, partition {partition}, offset {offset}, holds another record: its SHA-256 \
             is {digest}, but the receipt claims {}",
            claims.value_sha256
        )));
    }
    let attempt = codec
        .decode_command(&record.value)
        .ok()
        .and_then(|command| match command.body {
            CommandBody::PlaceAttempt(place) => Some((command.product_id, place.attempt_id)),
            _ => None,
        });
    Ok(match attempt {
        Some((product, attempt))
            if product.as_str() == claims.product && attempt.to_string() == claims.sub =>
        {
            Ok(attempt)
        }
        _ => Err(format!(
            "{topic}, partition {partition}, offset {offset}, is not attempt {} of product {}",
            claims.sub, claims.product
        )),
    })
}

/// Collects from the partition's decisions everything that happened to the attempt.
async fn follow(
    log: &dyn EventLog,
    codec: &Codec,
    claims: &Claims,
    attempt: AttemptId,
    report: &mut ReceiptReport,
) -> Result<(), AuditError> {
    let partition = Partition(claims.partition);
    let end = log.end(Topic::StockDecisions, partition).await?;
    let mut decisions = Decisions::open(log, codec, partition, end).await?;
    loop {
        let fenced = match decisions.next().await {
            Ok(Some(fenced)) => fenced,
            Ok(None) => return Ok(()),
            Err(HistoryError::Read(error)) => return Err(error.into()),
            Err(error @ HistoryError::Undecodable { .. }) => {
                report.violation = Some(error.to_string());
                return Ok(());
            }
        };
        let Some(decision) = fenced.counting() else {
            continue;
        };
        if decision.product_id.as_str() != claims.product {
            continue;
        }
        report.decided |= decision.answers.0 == claims.offset;
        let events = decision.events.iter();
        let happened = events.filter_map(|event| what_happened(event, attempt));
        report.events.extend(happened.map(|what| AttemptEvent {
            decision: fenced.record.offset,
            answers: decision.answers,
            at_ms: decision.decided_at_ms,
            what,
        }));
    }
}

/// What an event means for the attempt; `None` if it is about another attempt.
fn what_happened(event: &Event, attempt: AttemptId) -> Option<String> {
    match event {
        Event::OrderAccepted(event) if event.order.attempt_id == attempt => {
            let quantity = event.order.quantity;
            Some(match event.order.hold_until_ms {
                Some(until) => format!("accepted: {quantity} reserved until {}", Moment(until)),
                None => format!("accepted: {quantity} sold"),
            })
        }
        Event::AttemptRefused(event) if event.attempt_id == attempt => {
            Some(format!("refused: {}", event.reason))
        }
        Event::AttemptRepeated(event) if event.attempt_id == attempt => {
            Some("sent again; the first answer stands".to_owned())
        }
        Event::OrderReleased(event) if event.order.attempt_id == attempt => {
            let quantity = event.order.quantity;
            Some(match event.cause {
                ReleaseCause::Cancelled => format!("cancelled: {quantity} returned to stock"),
                ReleaseCause::Expired => format!("hold expired: {quantity} returned to stock"),
            })
        }
        Event::CancelRefused(event) if event.attempt_id == attempt => {
            Some(format!("cancellation refused: {}", event.reason))
        }
        _ => None,
    }
}

impl ReceiptReport {
    /// Whether the log kept what the receipt promises.
    pub fn is_valid(&self) -> bool {
        self.violation.is_none()
    }
}

impl fmt::Display for ReceiptReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(claims) = &self.claims {
            let Claims {
                sub,
                product,
                partition,
                offset,
                iat_ms,
                ..
            } = claims;
            let signed_at = Moment(*iat_ms);
            writeln!(f, "attempt   {sub}")?;
            writeln!(f, "product   {product}")?;
            writeln!(f, "position  {partition}:{offset}, signed {signed_at}")?;
        }
        for event in &self.events {
            let AttemptEvent {
                decision,
                answers,
                at_ms,
                what,
            } = event;
            let at = Moment(*at_ms);
            writeln!(
                f,
                "{at}  {what} (decision {decision}, answers record {answers})"
            )?;
        }
        match &self.violation {
            Some(violation) => writeln!(f, "\nVIOLATION  the receipt is not valid: {violation}"),
            None if self.decided => {
                writeln!(f, "\nThe receipt is valid, and its attempt is decided.")
            }
            None => writeln!(
                f,
                "\nThe receipt is valid; its attempt is still waiting for a decision."
            ),
        }
    }
}
