//! The row of a command that is not an attempt: what became of it.

use ports::read_store::{CommandOutcome, CommandRefusal, CommandRow};
use schemas::decision::{
    CommandKind, Decision, Event, ReleaseCause, SaleChangeRefusalReason, Skipped,
};
use schemas::ids::{Partition, Position, TimestampMs, TraceId};

/// The row of the command that a decision answers. None for an attempt, whose outcome is its own
/// row, and for the passing of time. An attempt has a row if it came before with another quantity, if
/// it was made for another round, or if its product had no sale: it then has no outcome under its id.
///
/// A decision made before decisions named the kind of their command gives a row if its events can
/// only answer one: a sale that opened or closed may have done so by time.
pub fn command_row(
    partition: Partition,
    decision: &Decision,
    trace: Option<TraceId>,
) -> Option<CommandRow> {
    let last = decision.events.last();
    let kind = match last {
        Some(Event::SaleChangeRefused(_)) => decision.command,
        last => Some(decision.command.or_else(|| only_kind(decision, last?))?),
    };
    let outcome = match last {
        Some(Event::SaleChangeRefused(refused)) => {
            CommandOutcome::Refused(CommandRefusal::SaleChange(refused.reason))
        }
        Some(Event::CancelRefused(refused)) => {
            CommandOutcome::Refused(CommandRefusal::Cancel(refused.reason))
        }
        Some(Event::AttemptConflicted(_)) => {
            CommandOutcome::Refused(CommandRefusal::IdempotencyConflict)
        }
        Some(Event::AttemptRefused(_)) if !decision.leaves_state() => {
            let reason = SaleChangeRefusalReason::UnknownProduct;
            CommandOutcome::Refused(CommandRefusal::SaleChange(reason))
        }
        Some(Event::AttemptRefused(_)) => CommandOutcome::Refused(CommandRefusal::AnotherRound),
        _ => CommandOutcome::Done,
    };
    let (buyer_id, attempt_id) = match last {
        Some(Event::AttemptConflicted(conflicted)) => (None, Some(conflicted.attempt_id)),
        Some(Event::AttemptRefused(refused)) => (None, Some(refused.attempt_id)),
        Some(Event::CancelRefused(refused)) => {
            (Some(refused.buyer_id.clone()), Some(refused.attempt_id))
        }
        Some(Event::OrderReleased(released)) => {
            let order = &released.order;
            (Some(order.buyer_id.clone()), Some(order.attempt_id))
        }
        _ => (None, None),
    };
    Some(CommandRow {
        position: Position {
            partition,
            offset: decision.answers,
        },
        product_id: Some(decision.product_id.clone()),
        kind,
        buyer_id,
        attempt_id,
        quantity: match last {
            Some(Event::AttemptConflicted(conflicted)) => Some(conflicted.quantity),
            Some(Event::AttemptRefused(refused)) => Some(refused.quantity),
            _ => None,
        },
        outcome,
        decided_at_ms: decision.decided_at_ms,
        trace_id: trace,
    })
}

/// The kind of the only command that a decision with this last event can answer.
fn only_kind(decision: &Decision, last: &Event) -> Option<CommandKind> {
    let puts = |event: &Event| matches!(event, Event::SaleSet(_));
    match last {
        Event::SaleSet(_) => Some(CommandKind::PutSale),
        Event::SaleOpened if decision.events.iter().any(puts) => Some(CommandKind::PutSale),
        Event::SalePaused => Some(CommandKind::PauseSale),
        Event::StockSet(_) => Some(CommandKind::SetStock),
        Event::CancelRefused(_) => Some(CommandKind::CancelOrder),
        Event::OrderReleased(released) if released.cause == ReleaseCause::Cancelled => {
            Some(CommandKind::CancelOrder)
        }
        Event::AttemptConflicted(_) => Some(CommandKind::PlaceAttempt),
        Event::AttemptRefused(refused) if !(refused.is_outcome() && decision.leaves_state()) => {
            Some(CommandKind::PlaceAttempt)
        }
        Event::ClockCorrected(_) => Some(CommandKind::CorrectClock),
        Event::SaleOpened
        | Event::SaleClosed
        | Event::OrderAccepted(_)
        | Event::AttemptRefused(_)
        | Event::AttemptRepeated(_)
        | Event::OrderReleased(_)
        | Event::SaleChangeRefused(_) => None,
    }
}

/// The row of a record that no product decides on. `skipped_at_ms` is the time of the record that
/// skips it.
pub fn skipped_row(
    partition: Partition,
    skipped: &Skipped,
    skipped_at_ms: TimestampMs,
    trace: Option<TraceId>,
) -> CommandRow {
    let refusal = match skipped.by {
        Some(_) => CommandRefusal::Skipped,
        None => CommandRefusal::Undecodable,
    };
    CommandRow {
        position: Position {
            partition,
            offset: skipped.answers,
        },
        product_id: None,
        kind: None,
        buyer_id: None,
        attempt_id: None,
        quantity: None,
        outcome: CommandOutcome::Refused(refusal),
        decided_at_ms: skipped_at_ms,
        trace_id: trace,
    }
}

#[cfg(test)]
mod tests {
    use schemas::command::SaleTerms;
    use schemas::decision::{
        AttemptConflicted, AttemptRefused, AttemptRepeated, CancelRefusalReason, CancelRefused,
        Order, OrderReleased, RefusalReason, SaleChangeRefused, SaleSet, Stock, StockSet, Tally,
    };
    use schemas::ids::{AttemptId, ChainHash, Money, Offset};

    use super::*;

    /// The row of a decision on offset 9 that names this kind of command.
    fn row_of(command: Option<CommandKind>, events: Vec<Event>) -> Option<CommandRow> {
        let decision = Decision {
            claim: Offset(0),
            answers: Offset(9),
            follows: Offset(8),
            product_id: "p".parse().unwrap(),
            version: 1,
            decided_at_ms: 5,
            events,
            stock: Stock::default(),
            tally: Tally::default(),
            command,
            chain: ChainHash::default(),
        };
        command_row(Partition(3), &decision, TraceId::from_bytes([7; 16]))
    }

    fn outcome_of(
        command: Option<CommandKind>,
        events: Vec<Event>,
    ) -> Option<(Option<CommandKind>, CommandOutcome)> {
        row_of(command, events).map(|row| (row.kind, row.outcome))
    }

    fn id() -> AttemptId {
        AttemptId::from_bytes([4; 16])
    }

    fn set() -> Event {
        let terms = SaleTerms {
            name: "Lamp".into(),
            price: Money {
                minor: 1999,
                currency: "GBP".into(),
            },
            stock: 4,
            limit_per_buyer: None,
            hold_ms: None,
            opens_at_ms: 1_000,
            closes_at_ms: None,
        };
        Event::SaleSet(SaleSet { terms, round: 1 })
    }

    fn released(cause: ReleaseCause) -> Event {
        let order = Order {
            attempt_id: id(),
            buyer_id: "ann".parse().unwrap(),
            quantity: 1,
            attempt_offset: Offset(2),
            accepted_at_ms: 0,
            hold_until_ms: None,
            price: None,
        };
        Event::OrderReleased(OrderReleased { order, cause })
    }

    fn change_refused() -> Event {
        let reason = SaleChangeRefusalReason::StockBelowCommitted;
        Event::SaleChangeRefused(SaleChangeRefused { reason })
    }

    fn cancel_refused() -> Event {
        Event::CancelRefused(CancelRefused {
            attempt_id: id(),
            buyer_id: "eve".parse().unwrap(),
            reason: CancelRefusalReason::NotYours,
        })
    }

    const DONE: CommandOutcome = CommandOutcome::Done;

    fn refused_change() -> CommandOutcome {
        let reason = SaleChangeRefusalReason::StockBelowCommitted;
        CommandOutcome::Refused(CommandRefusal::SaleChange(reason))
    }

    #[test]
    fn a_decision_that_names_its_command_gives_the_row_of_that() {
        for kind in CommandKind::ALL {
            let found = outcome_of(Some(*kind), vec![Event::SaleOpened]);
            assert_eq!(found, Some((Some(*kind), DONE)));
            let found = outcome_of(Some(*kind), vec![Event::SaleClosed, change_refused()]);
            assert_eq!(found, Some((Some(*kind), refused_change())));
            assert_eq!(outcome_of(Some(*kind), vec![]), Some((Some(*kind), DONE)));
        }
    }

    #[test]
    fn a_cancellation_names_its_buyer_and_its_attempt() {
        let cancel = Some(CommandKind::CancelOrder);
        let row = row_of(cancel, vec![released(ReleaseCause::Cancelled)]).unwrap();
        let found = (row.buyer_id.unwrap(), row.attempt_id, row.outcome);
        assert_eq!(found, ("ann".parse().unwrap(), Some(id()), DONE));
        let row = row_of(cancel, vec![cancel_refused()]).unwrap();
        let refused = CommandRefusal::Cancel(CancelRefusalReason::NotYours);
        let found = (row.buyer_id.unwrap(), row.attempt_id, row.outcome);
        let refused = CommandOutcome::Refused(refused);
        assert_eq!(found, ("eve".parse().unwrap(), Some(id()), refused));
        let at = (row.position.partition, row.position.offset);
        assert_eq!(at, (Partition(3), Offset(9)));
        assert_eq!(
            (row.decided_at_ms, row.trace_id),
            (5, TraceId::from_bytes([7; 16]))
        );
    }

    #[test]
    fn an_older_decision_gives_a_row_where_its_events_answer_one_command_only() {
        let old = |events| outcome_of(None, events);
        let done = |kind| Some((Some(kind), DONE));
        assert_eq!(old(vec![set()]), done(CommandKind::PutSale));
        assert_eq!(
            old(vec![set(), Event::SaleOpened]),
            done(CommandKind::PutSale)
        );
        let expired = || released(ReleaseCause::Expired);
        assert_eq!(
            old(vec![expired(), Event::SalePaused]),
            done(CommandKind::PauseSale)
        );
        assert_eq!(
            old(vec![Event::StockSet(StockSet { stock: 5 })]),
            done(CommandKind::SetStock)
        );
        assert_eq!(
            old(vec![released(ReleaseCause::Cancelled)]),
            done(CommandKind::CancelOrder)
        );
        assert_eq!(old(vec![change_refused()]), Some((None, refused_change())));
        assert!(old(vec![cancel_refused()]).is_some());
        // By hand or by time: the events do not say.
        for events in [
            vec![],
            vec![Event::SaleOpened],
            vec![Event::SaleClosed],
            vec![expired()],
        ] {
            assert_eq!(old(events), None);
        }
        let repeated = AttemptRepeated { attempt_id: id() };
        assert_eq!(old(vec![Event::AttemptRepeated(repeated)]), None);
    }

    #[test]
    fn an_attempt_that_came_before_with_another_quantity_is_refused_at_its_own_position() {
        let conflicted = AttemptConflicted {
            attempt_id: id(),
            quantity: 5,
        };
        let row = row_of(None, vec![Event::AttemptConflicted(conflicted)]).unwrap();
        let refused = CommandOutcome::Refused(CommandRefusal::IdempotencyConflict);
        assert_eq!(
            (row.kind, row.outcome),
            (Some(CommandKind::PlaceAttempt), refused)
        );
        assert_eq!((row.attempt_id, row.quantity), (Some(id()), Some(5)));
    }

    #[test]
    fn an_attempt_of_another_round_is_refused_at_its_own_position_and_under_no_id() {
        let refused = |reason| {
            Event::AttemptRefused(AttemptRefused {
                attempt_id: id(),
                buyer_id: "ann".parse().unwrap(),
                quantity: 5,
                reason,
            })
        };
        let row = row_of(None, vec![refused(RefusalReason::AnotherRound)]).unwrap();
        let another = CommandOutcome::Refused(CommandRefusal::AnotherRound);
        let kind = Some(CommandKind::PlaceAttempt);
        assert_eq!((row.kind, row.outcome), (kind, another));
        assert_eq!((row.attempt_id, row.quantity), (Some(id()), Some(5)));
        assert_eq!(row_of(None, vec![refused(RefusalReason::SoldOut)]), None);
    }

    #[test]
    fn a_skipped_record_is_refused_and_says_by_whom() {
        let skipped = |by: Option<&str>| Skipped {
            claim: Offset(0),
            answers: Offset(9),
            follows: Offset(8),
            reason: "garbage".into(),
            by: by.map(Into::into),
        };
        for (by, refusal) in [
            (None, CommandRefusal::Undecodable),
            (Some("root"), CommandRefusal::Skipped),
        ] {
            let row = skipped_row(Partition(3), &skipped(by), 77, None);
            assert_eq!(row.outcome, CommandOutcome::Refused(refusal));
            assert_eq!((row.position.offset, row.decided_at_ms), (Offset(9), 77));
        }
    }
}
