//! Checks one receipt: whether the log has what the receipt promises, and what became of it.
//!
//! A receipt may be that of an attempt, of a cancellation, or of a change of the sale: the record
//! at its position tells which.

use std::fmt;

use history::{Decisions, HistoryError};
use ports::{EventLog, log_mark};
use schemas::codec::{Codec, DecodeError};
use schemas::command::CommandBody;
use schemas::decision::{Decision, Event, ReleaseCause, Skipped};
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
    /// What the receipt is for; `None` if it is not valid.
    pub request: Option<Request>,
    /// Whether the receipt's record is decided.
    pub decided: bool,
    /// What happened, in order: to the attempt, or by the change of the sale.
    pub events: Vec<ReceiptEvent>,
}

/// What a receipt is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Request {
    /// The kind of its record.
    pub kind: RequestKind,
    /// The record in words.
    pub what: String,
}

/// The kinds of records that a receipt can be for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RequestKind {
    /// A buyer's attempt to get units.
    Attempt,
    /// A buyer's cancellation of an order.
    Cancellation,
    /// A seller's change of the sale.
    SaleChange,
    /// A deadline that was due, requested by a decider.
    Deadline,
    /// A record that cannot be decoded.
    Undecodable,
    /// An operator's correction of the product's time.
    ClockCorrection,
}

/// Something that happened to the attempt, or by the change of the sale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReceiptEvent {
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
        request: None,
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
        Ok(found) => {
            report.request = Some(match &found {
                Ok(body) => request(body),
                Err(error) => Request {
                    kind: RequestKind::Undecodable,
                    what: format!("a record that cannot be decoded: {error}"),
                },
            });
            follow(log, codec, &claims, found.as_ref().ok(), &mut report).await?;
        }
        Err(violation) => report.violation = Some(violation),
    }
    Ok(report)
}

/// The record's command, or why it cannot be decoded, if `purchase-attempts` has the record exactly as
/// the receipt claims; otherwise how the log differs.
async fn find(
    log: &dyn EventLog,
    codec: &Codec,
    claims: &Claims,
) -> Result<Result<Result<CommandBody, DecodeError>, String>, AuditError> {
    let topic = Topic::PurchaseAttempts;
    let (partition, offset) = (Partition(claims.partition), Offset(claims.offset));
    if partition.0 >= log.partitions() {
        return Ok(Err(format!("{topic} has no partition {partition}")));
    }
    if let Some(named) = &claims.log {
        let found = log_mark::identity(log, partition).await?;
        let found = found.map_or("an empty log".to_owned(), |found| found.to_string());
        if found != *named {
            return Ok(Err(format!(
                "the receipt is of another log: it names {named}, but partition {partition} is of \
                 {found}"
            )));
        }
    }
    let end = log.end(topic, partition).await?;
    if !(0..end.0).contains(&offset.0) {
        return Ok(Err(format!(
            "{topic}, partition {partition}, ends at offset {end}"
        )));
    }
    let mut reader = log.read(topic, partition, offset).await?;
    let records = reader.next_below(end).await?;
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
    let place = format!("{topic}, partition {partition}, offset {offset},");
    let command = match codec.decode_command(&record.value) {
        Ok(command) => command,
        Err(error) => return Ok(Ok(Err(error))),
    };
    let product = command.product_id.as_str();
    if product != claims.product {
        return Ok(Err(format!(
            "{place} is about product {product}, but the receipt claims {}",
            claims.product
        )));
    }
    // The receipts of attempts and cancellations name the attempt; other records have none.
    Ok(match attempt_of(&command.body) {
        Some(attempt) if attempt.to_string() != claims.sub => Err(format!(
            "{place} is about attempt {attempt}, but the receipt claims {}",
            claims.sub
        )),
        _ => Ok(Ok(command.body)),
    })
}

/// The attempt that a command is about, if it is about one.
fn attempt_of(body: &CommandBody) -> Option<AttemptId> {
    match body {
        CommandBody::PlaceAttempt(place) => Some(place.attempt_id),
        CommandBody::CancelOrder(cancel) => Some(cancel.attempt_id),
        CommandBody::PutSale(_)
        | CommandBody::BeginRound(_)
        | CommandBody::OpenSale
        | CommandBody::PauseSale
        | CommandBody::CloseSale
        | CommandBody::SetStock(_)
        | CommandBody::TimeAdvanced
        | CommandBody::CorrectClock => None,
    }
}

/// A command in words.
fn request(body: &CommandBody) -> Request {
    let change = |what: String| (RequestKind::SaleChange, what);
    let (kind, what) = match body {
        CommandBody::PlaceAttempt(place) => {
            let (quantity, buyer) = (place.quantity, &place.buyer_id);
            let what = format!("an order of {quantity} by buyer {buyer}");
            (RequestKind::Attempt, what)
        }
        CommandBody::CancelOrder(cancel) => {
            let what = format!("a cancellation by buyer {}", cancel.buyer_id);
            (RequestKind::Cancellation, what)
        }
        CommandBody::PutSale(terms) => change(format!(
            "a change of the sale: new terms, {} units at {} minor units of {}",
            terms.stock, terms.price.minor, terms.price.currency
        )),
        CommandBody::BeginRound(terms) => change(format!(
            "a new round of the sale: {} units at {} minor units of {}",
            terms.stock, terms.price.minor, terms.price.currency
        )),
        CommandBody::OpenSale => change("a change of the sale: open it".to_owned()),
        CommandBody::PauseSale => change("a change of the sale: pause it".to_owned()),
        CommandBody::CloseSale => change("a change of the sale: close it".to_owned()),
        CommandBody::SetStock(set) => {
            change(format!("a change of the sale: {} units in all", set.stock))
        }
        CommandBody::TimeAdvanced => (
            RequestKind::Deadline,
            "a deadline of the sale that was due".to_owned(),
        ),
        CommandBody::CorrectClock => (
            RequestKind::ClockCorrection,
            "a correction of the product's time".to_owned(),
        ),
    };
    Request { kind, what }
}

/// Collects from the partition's decisions everything that happened to the command's attempt, or,
/// if it has none, what the decision on the command did.
async fn follow(
    log: &dyn EventLog,
    codec: &Codec,
    claims: &Claims,
    body: Option<&CommandBody>,
    report: &mut ReceiptReport,
) -> Result<(), AuditError> {
    let attempt = body.and_then(attempt_of);
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
        if let Some(skipped) = fenced.skipped() {
            if skipped.answers.0 == claims.offset {
                report.decided = true;
                report.events.push(ReceiptEvent {
                    decision: fenced.record.offset,
                    answers: skipped.answers,
                    at_ms: fenced.record.appended_at_ms,
                    what: why_skipped(skipped),
                });
            }
            continue;
        }
        let Some(decision) = fenced.counting() else {
            continue;
        };
        if decision.product_id.as_str() != claims.product {
            continue;
        }
        let answered = decision.answers.0 == claims.offset;
        report.decided |= answered;
        let happened: Vec<_> = match attempt {
            Some(attempt) => {
                let events = decision.events.iter();
                events
                    .filter_map(|event| happened_to(event, attempt))
                    .collect()
            }
            None if answered => happened(decision),
            None => continue,
        };
        let happened = happened.into_iter();
        report.events.extend(happened.map(|what| ReceiptEvent {
            decision: fenced.record.offset,
            answers: decision.answers,
            at_ms: decision.decided_at_ms,
            what,
        }));
    }
}

/// Why no product decided on a record, in words.
fn why_skipped(skipped: &Skipped) -> String {
    let reason = &skipped.reason;
    match &skipped.by {
        Some(operator) => format!("refused: operator {operator} skipped the record: {reason}"),
        None => format!("refused: the record cannot be decoded: {reason}"),
    }
}

/// What a decision did, event by event.
fn happened(decision: &Decision) -> Vec<String> {
    if decision.events.is_empty() {
        return vec!["nothing changed".to_owned()];
    }
    let sale = |event: &Event| match event {
        Event::SaleSet(set) => format!("the terms took effect, in round {}", set.round),
        Event::SaleOpened => "the sale opened".to_owned(),
        Event::SalePaused => "the sale was paused".to_owned(),
        Event::SaleClosed => "the sale closed".to_owned(),
        Event::StockSet(set) => format!("the round has {} units in all", set.stock),
        Event::SaleChangeRefused(refused) => format!("the change was refused: {}", refused.reason),
        Event::ClockCorrected(corrected) => {
            let ahead_ms = corrected.from_ms - corrected.to_ms;
            format!("the product's time was set back by {ahead_ms} ms")
        }
        Event::OrderAccepted(accepted) => about(event, accepted.order.attempt_id),
        Event::AttemptRefused(refused) => about(event, refused.attempt_id),
        Event::AttemptRepeated(repeated) => about(event, repeated.attempt_id),
        Event::AttemptConflicted(conflicted) => about(event, conflicted.attempt_id),
        Event::OrderReleased(released) => about(event, released.order.attempt_id),
        Event::CancelRefused(refused) => about(event, refused.attempt_id),
    };
    decision.events.iter().map(sale).collect()
}

/// What an event did to its attempt.
fn about(event: &Event, attempt: AttemptId) -> String {
    let what = happened_to(event, attempt).unwrap_or_default();
    format!("attempt {attempt}: {what}")
}

/// What an event means for the attempt; `None` if it is about another attempt.
fn happened_to(event: &Event, attempt: AttemptId) -> Option<String> {
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
        Event::AttemptConflicted(event) if event.attempt_id == attempt => Some(format!(
            "sent again for another quantity, {}; the first answer stands, and is for the quantity \
             before",
            event.quantity
        )),
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
            let about_attempt = self.request.as_ref().is_none_or(|request| {
                matches!(
                    request.kind,
                    RequestKind::Attempt | RequestKind::Cancellation
                )
            });
            if about_attempt {
                writeln!(f, "attempt   {sub}")?;
            }
            writeln!(f, "product   {product}")?;
            writeln!(f, "position  {partition}:{offset}, signed {signed_at}")?;
        }
        if let Some(request) = &self.request {
            writeln!(f, "receipt   of {}", request.what)?;
        }
        for event in &self.events {
            let ReceiptEvent {
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
        if let Some(violation) = &self.violation {
            return writeln!(f, "\nVIOLATION  the receipt is not valid: {violation}");
        }
        let request = match self.request.as_ref().map(|request| request.kind) {
            Some(RequestKind::Cancellation) => "cancellation",
            Some(RequestKind::SaleChange) => "change of the sale",
            Some(RequestKind::Deadline) => "deadline",
            Some(RequestKind::Undecodable) => "record",
            Some(RequestKind::ClockCorrection) => "correction",
            Some(RequestKind::Attempt) | None => "attempt",
        };
        match self.decided {
            true => writeln!(f, "\nThe receipt is valid, and its {request} is decided."),
            false => writeln!(
                f,
                "\nThe receipt is valid; its {request} is still waiting for a decision."
            ),
        }
    }
}
