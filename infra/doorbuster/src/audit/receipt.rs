//! One receipt: whether the log kept what was promised, and what became of the attempt.

use std::fmt;

use ports::EventLog;
use schemas::codec::Codec;
use schemas::command::CommandBody;
use schemas::decision::{Decision, DecisionRecord, Event, ReleaseCause};
use schemas::fence::{Fence, Verdict};
use schemas::ids::{AttemptId, Offset, Partition, TimestampMs};
use schemas::topics::Topic;
use serde::Serialize;
use sha2::{Digest, Sha256};
use web::receipt::{Claims, ReceiptKey};
use web::rfc3339::Moment;

use super::AuditError;
use super::cursor::Cursor;

/// What there is to tell of a receipt.
#[derive(Debug, Clone, Serialize)]
pub struct Told {
    /// What the receipt says, if it was signed with the key.
    pub says: Option<Claims>,
    /// Why it does not hold; none when it does.
    pub violation: Option<String>,
    /// Whether the record has had its turn.
    pub decided: bool,
    /// What happened to the attempt, in order.
    pub events: Vec<Happened>,
}

/// Something that happened to the attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Happened {
    /// The decision's offset in log 2.
    pub decision: Offset,
    /// The offset of log 1 that it answers.
    pub answers: Offset,
    /// When it was decided.
    pub at_ms: TimestampMs,
    /// What happened.
    pub what: String,
}

/// Checks a receipt: its signature, that log 1 holds exactly that record at that place, and
/// what the decisions made of it.
pub async fn check(
    log: &dyn EventLog,
    codec: &Codec,
    key: &ReceiptKey,
    receipt: &str,
) -> Result<Told, AuditError> {
    let mut told = Told {
        says: None,
        violation: None,
        decided: false,
        events: vec![],
    };
    let claims = match key.verify(receipt.trim()) {
        Ok(claims) => claims,
        Err(error) => {
            told.violation = Some(error.to_string());
            return Ok(told);
        }
    };
    told.says = Some(claims.clone());
    match find(log, codec, &claims).await? {
        Ok(attempt) => follow(log, codec, &claims, attempt, &mut told).await?,
        Err(violation) => told.violation = Some(violation),
    }
    Ok(told)
}

/// The attempt, if log 1 holds it exactly as the receipt says.
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
             is {digest}, where the receipt says {}",
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

/// Walks through the partition's decisions for all that happened to the attempt.
async fn follow(
    log: &dyn EventLog,
    codec: &Codec,
    claims: &Claims,
    attempt: AttemptId,
    told: &mut Told,
) -> Result<(), AuditError> {
    let (topic, partition) = (Topic::StockDecisions, Partition(claims.partition));
    let end = log.end(topic, partition).await?;
    let mut records = Cursor::open(log, topic, partition, end).await?;
    let mut fence = Fence::default();
    while let Some(record) = records.next().await? {
        let Ok(decoded) = codec.decode_decision(&record.value) else {
            let offset = record.offset;
            let what = format!("{topic}, partition {partition}, offset {offset}, is no decision");
            told.violation = Some(what);
            return Ok(());
        };
        let verdict = fence.pass(record.offset, &decoded);
        let DecisionRecord::Decision(decision) = decoded else {
            continue;
        };
        if verdict != Verdict::Counts || decision.product_id.as_str() != claims.product {
            continue;
        }
        told.decided |= decision.answers.0 == claims.offset;
        let happened = decision
            .events
            .iter()
            .filter_map(|event| what_happened(event, attempt));
        told.events
            .extend(happened.map(|what| happened_in(&decision, record.offset, what)));
    }
    Ok(())
}

fn happened_in(decision: &Decision, offset: Offset, what: String) -> Happened {
    let (answers, at_ms) = (decision.answers, decision.decided_at_ms);
    Happened {
        decision: offset,
        answers,
        at_ms,
        what,
    }
}

/// What an event means for the attempt; none when it is about another.
fn what_happened(event: &Event, attempt: AttemptId) -> Option<String> {
    match event {
        Event::OrderAccepted(event) if event.order.attempt_id == attempt => {
            let quantity = event.order.quantity;
            Some(match event.order.hold_until_ms {
                Some(until) => format!("accepted: {quantity} held until {}", Moment(until)),
                None => format!("accepted: {quantity} sold"),
            })
        }
        Event::AttemptRefused(event) if event.attempt_id == attempt => {
            Some(format!("refused: {}", event.reason))
        }
        Event::AttemptRepeated(event) if event.attempt_id == attempt => {
            Some("came again; the first answer stands".to_owned())
        }
        Event::OrderReleased(event) if event.order.attempt_id == attempt => {
            let quantity = event.order.quantity;
            Some(match event.cause {
                ReleaseCause::Cancelled => format!("given back: {quantity}"),
                ReleaseCause::Expired => format!("hold ran out: {quantity} went back"),
            })
        }
        Event::CancelRefused(event) if event.attempt_id == attempt => {
            Some(format!("giving back refused: {}", event.reason))
        }
        _ => None,
    }
}

impl Told {
    /// Whether the log kept what the receipt promised.
    pub fn holds(&self) -> bool {
        self.violation.is_none()
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(says) = &self.says {
            let Claims {
                sub,
                product,
                partition,
                offset,
                iat_ms,
                ..
            } = says;
            writeln!(f, "attempt   {sub}")?;
            writeln!(f, "product   {product}")?;
            writeln!(
                f,
                "position  {partition}:{offset}, signed {}",
                Moment(*iat_ms)
            )?;
        }
        for Happened {
            decision,
            answers,
            at_ms,
            what,
        } in &self.events
        {
            let at = Moment(*at_ms);
            writeln!(f, "{at}  {what} (decision {decision}, on record {answers})")?;
        }
        match &self.violation {
            Some(violation) => writeln!(f, "\nVIOLATION  the receipt does not hold: {violation}"),
            None if self.decided => {
                writeln!(f, "\nThe receipt holds, and the attempt had its turn.")
            }
            None => writeln!(f, "\nThe receipt holds; the attempt is still in line."),
        }
    }
}
