//! The records in the form of their Avro schemas. Each case of an enum has a nullable field of its
//! own instead of a branch of one Avro union: a new branch is an incompatible change under
//! `FULL_TRANSITIVE`, a new nullable field is not.

use serde::{Deserialize, Serialize};

use crate::command::{CancelOrder, Command, CommandBody, PlaceAttempt, SaleTerms, SetStock};
use crate::decision::{
    AttemptConflicted, AttemptRefused, AttemptRepeated, CancelRefused, Claim, ClockCorrected,
    CommandKind, Decision, DecisionRecord, Event, OrderAccepted, OrderReleased, SaleChangeRefused,
    SaleSet, Skipped, Stock, StockSet, Tally,
};
use crate::ids::{ChainHash, Offset, ProductId, TimestampMs};

/// A record does not have exactly one of its cases; it may be from a newer version.
#[derive(Debug)]
pub(crate) struct NotOneCase;

/// A case without fields.
#[derive(Default, Serialize, Deserialize)]
pub(crate) struct Empty {}

/// The one case that is present.
fn one_of<T, const N: usize>(cases: [Option<T>; N]) -> Result<T, NotOneCase> {
    let mut there = cases.into_iter().flatten();
    match (there.next(), there.next()) {
        (Some(case), None) => Ok(case),
        _ => Err(NotOneCase),
    }
}

#[derive(Serialize, Deserialize)]
pub(crate) struct CommandWire {
    product_id: ProductId,
    place_attempt: Option<PlaceAttempt>,
    cancel_order: Option<CancelOrder>,
    put_sale: Option<SaleTerms>,
    open_sale: Option<Empty>,
    pause_sale: Option<Empty>,
    close_sale: Option<Empty>,
    set_stock: Option<SetStock>,
    time_advanced: Option<Empty>,
    begin_round: Option<SaleTerms>,
    if_version: Option<u64>,
    correct_clock: Option<Empty>,
}

impl From<Command> for CommandWire {
    fn from(command: Command) -> Self {
        let mut wire = Self {
            product_id: command.product_id,
            place_attempt: None,
            cancel_order: None,
            put_sale: None,
            open_sale: None,
            pause_sale: None,
            close_sale: None,
            set_stock: None,
            time_advanced: None,
            begin_round: None,
            if_version: command.if_version,
            correct_clock: None,
        };
        match command.body {
            CommandBody::PlaceAttempt(attempt) => wire.place_attempt = Some(attempt),
            CommandBody::CancelOrder(cancel) => wire.cancel_order = Some(cancel),
            CommandBody::PutSale(terms) => wire.put_sale = Some(terms),
            CommandBody::OpenSale => wire.open_sale = Some(Empty {}),
            CommandBody::PauseSale => wire.pause_sale = Some(Empty {}),
            CommandBody::CloseSale => wire.close_sale = Some(Empty {}),
            CommandBody::SetStock(stock) => wire.set_stock = Some(stock),
            CommandBody::TimeAdvanced => wire.time_advanced = Some(Empty {}),
            CommandBody::BeginRound(terms) => wire.begin_round = Some(terms),
            CommandBody::CorrectClock => wire.correct_clock = Some(Empty {}),
        }
        wire
    }
}

impl TryFrom<CommandWire> for Command {
    type Error = NotOneCase;
    fn try_from(wire: CommandWire) -> Result<Self, NotOneCase> {
        let body = one_of([
            wire.place_attempt.map(CommandBody::PlaceAttempt),
            wire.cancel_order.map(CommandBody::CancelOrder),
            wire.put_sale.map(CommandBody::PutSale),
            wire.open_sale.map(|_| CommandBody::OpenSale),
            wire.pause_sale.map(|_| CommandBody::PauseSale),
            wire.close_sale.map(|_| CommandBody::CloseSale),
            wire.set_stock.map(CommandBody::SetStock),
            wire.time_advanced.map(|_| CommandBody::TimeAdvanced),
            wire.begin_round.map(CommandBody::BeginRound),
            wire.correct_clock.map(|_| CommandBody::CorrectClock),
        ])?;
        Ok(Self {
            product_id: wire.product_id,
            body,
            if_version: wire.if_version,
        })
    }
}

#[derive(Default, Serialize, Deserialize)]
pub(crate) struct DecisionRecordWire {
    claim: Option<Claim>,
    skipped: Option<Skipped>,
    decision: Option<DecisionWire>,
}

#[derive(Serialize, Deserialize)]
struct DecisionWire {
    claim: Offset,
    answers: Offset,
    follows: Offset,
    product_id: ProductId,
    version: u64,
    decided_at_ms: TimestampMs,
    events: Vec<EventWire>,
    stock: Stock,
    tally: Tally,
    command: Option<CommandKind>,
    chain: ChainHash,
}

impl From<DecisionRecord> for DecisionRecordWire {
    fn from(record: DecisionRecord) -> Self {
        match record {
            DecisionRecord::Claim(claim) => Self {
                claim: Some(claim),
                ..Self::default()
            },
            DecisionRecord::Skipped(skipped) => Self {
                skipped: Some(skipped),
                ..Self::default()
            },
            DecisionRecord::Decision(decision) => {
                let decision = DecisionWire {
                    claim: decision.claim,
                    answers: decision.answers,
                    follows: decision.follows,
                    product_id: decision.product_id,
                    version: decision.version,
                    decided_at_ms: decision.decided_at_ms,
                    events: decision.events.into_iter().map(EventWire::from).collect(),
                    stock: decision.stock,
                    tally: decision.tally,
                    command: decision.command,
                    chain: decision.chain,
                };
                Self {
                    decision: Some(decision),
                    ..Self::default()
                }
            }
        }
    }
}

impl TryFrom<DecisionRecordWire> for DecisionRecord {
    type Error = NotOneCase;
    fn try_from(wire: DecisionRecordWire) -> Result<Self, NotOneCase> {
        match (wire.claim, wire.skipped, wire.decision) {
            (Some(claim), None, None) => Ok(DecisionRecord::Claim(claim)),
            (None, Some(skipped), None) => Ok(DecisionRecord::Skipped(skipped)),
            (None, None, Some(wire)) => {
                let events: Result<_, _> = wire.events.into_iter().map(Event::try_from).collect();
                Ok(DecisionRecord::Decision(Decision {
                    claim: wire.claim,
                    answers: wire.answers,
                    follows: wire.follows,
                    product_id: wire.product_id,
                    version: wire.version,
                    decided_at_ms: wire.decided_at_ms,
                    events: events?,
                    stock: wire.stock,
                    tally: wire.tally,
                    command: wire.command,
                    chain: wire.chain,
                }))
            }
            _ => Err(NotOneCase),
        }
    }
}

#[derive(Default, Serialize, Deserialize)]
struct EventWire {
    sale_set: Option<SaleSet>,
    sale_opened: Option<Empty>,
    sale_paused: Option<Empty>,
    sale_closed: Option<Empty>,
    stock_set: Option<StockSet>,
    order_accepted: Option<OrderAccepted>,
    attempt_refused: Option<AttemptRefused>,
    attempt_repeated: Option<AttemptRepeated>,
    order_released: Option<OrderReleased>,
    cancel_refused: Option<CancelRefused>,
    sale_change_refused: Option<SaleChangeRefused>,
    attempt_conflicted: Option<AttemptConflicted>,
    clock_corrected: Option<ClockCorrected>,
}

impl From<Event> for EventWire {
    fn from(event: Event) -> Self {
        let mut wire = Self::default();
        match event {
            Event::SaleSet(case) => wire.sale_set = Some(case),
            Event::SaleOpened => wire.sale_opened = Some(Empty {}),
            Event::SalePaused => wire.sale_paused = Some(Empty {}),
            Event::SaleClosed => wire.sale_closed = Some(Empty {}),
            Event::StockSet(case) => wire.stock_set = Some(case),
            Event::OrderAccepted(case) => wire.order_accepted = Some(case),
            Event::AttemptRefused(case) => wire.attempt_refused = Some(case),
            Event::AttemptRepeated(case) => wire.attempt_repeated = Some(case),
            Event::OrderReleased(case) => wire.order_released = Some(case),
            Event::CancelRefused(case) => wire.cancel_refused = Some(case),
            Event::SaleChangeRefused(case) => wire.sale_change_refused = Some(case),
            Event::AttemptConflicted(case) => wire.attempt_conflicted = Some(case),
            Event::ClockCorrected(case) => wire.clock_corrected = Some(case),
        }
        wire
    }
}

impl TryFrom<EventWire> for Event {
    type Error = NotOneCase;
    fn try_from(wire: EventWire) -> Result<Self, NotOneCase> {
        one_of([
            wire.sale_set.map(Event::SaleSet),
            wire.sale_opened.map(|_| Event::SaleOpened),
            wire.sale_paused.map(|_| Event::SalePaused),
            wire.sale_closed.map(|_| Event::SaleClosed),
            wire.stock_set.map(Event::StockSet),
            wire.order_accepted.map(Event::OrderAccepted),
            wire.attempt_refused.map(Event::AttemptRefused),
            wire.attempt_repeated.map(Event::AttemptRepeated),
            wire.order_released.map(Event::OrderReleased),
            wire.cancel_refused.map(Event::CancelRefused),
            wire.sale_change_refused.map(Event::SaleChangeRefused),
            wire.attempt_conflicted.map(Event::AttemptConflicted),
            wire.clock_corrected.map(Event::ClockCorrected),
        ])
    }
}
