//! An attempt's rows: by id, in the buyer's orders and in the product's intents.

use ports::read_store::{AttemptRow, AttemptStatus, Row};
use schemas::decision::{Decision, Event, Order, ReleaseCause};
use schemas::ids::{Partition, Position, TraceId};

/// The attempt rows of a decision. One decision changes an attempt at most once. An attempt on a
/// product without a sale has no outcome under its id, so that it may buy once there is one.
///
/// `trace` is that of the request which the decision answers. Only the attempt of that request
/// gets it: a hold that expires in the same decision belongs to no request.
pub fn attempt_rows(partition: Partition, decision: &Decision, trace: Option<TraceId>) -> Vec<Row> {
    if !decision.leaves_state() {
        return vec![];
    }
    let mut rows = Vec::with_capacity(2 * decision.events.len());
    for event in &decision.events {
        match event {
            Event::OrderAccepted(accepted) => {
                let status = match accepted.order.hold_until_ms {
                    Some(_) => AttemptStatus::Reserved,
                    None => AttemptStatus::Sold,
                };
                let own = accepted.order.attempt_offset == decision.answers;
                let row = AttemptRow {
                    trace_id: trace.filter(|_| own),
                    ..order_row(partition, decision, &accepted.order, status)
                };
                rows.push(Row::Order(row.clone()));
                rows.push(Row::Attempt(row));
            }
            Event::OrderReleased(released) => {
                let status = AttemptStatus::Released(released.cause);
                let own = released.cause == ReleaseCause::Cancelled;
                let row = AttemptRow {
                    trace_id: trace.filter(|_| own),
                    ..order_row(partition, decision, &released.order, status)
                };
                if released.cause == ReleaseCause::Expired {
                    rows.push(Row::Intent(row.clone()));
                }
                rows.push(Row::Order(row.clone()));
                rows.push(Row::Attempt(row));
            }
            Event::AttemptRefused(refused) if refused.is_outcome() => {
                let row = AttemptRow {
                    attempt_id: refused.attempt_id,
                    product_id: decision.product_id.clone(),
                    buyer_id: refused.buyer_id.clone(),
                    quantity: refused.quantity,
                    position: Position {
                        partition,
                        offset: decision.answers,
                    },
                    status: AttemptStatus::Refused(refused.reason),
                    decided_at_ms: decision.decided_at_ms,
                    hold_until_ms: None,
                    version: decision.version,
                    trace_id: trace,
                    price: None,
                };
                rows.push(Row::Intent(row.clone()));
                rows.push(Row::Attempt(row));
            }
            // The attempt of this id, if it has an outcome, keeps it.
            Event::AttemptRefused(_)
            | Event::AttemptRepeated(_)
            | Event::AttemptConflicted(_)
            | Event::CancelRefused(_)
            | Event::SaleSet(_)
            | Event::SaleOpened
            | Event::SalePaused
            | Event::SaleClosed
            | Event::StockSet(_)
            | Event::SaleChangeRefused(_)
            // A hold that it moved keeps its row until it ends: the event does not list the holds,
            // of which there may be more than fit into a record.
            | Event::ClockCorrected(_) => {}
        }
    }
    rows
}

/// The row of an order, without a trace.
fn order_row(
    partition: Partition,
    decision: &Decision,
    order: &Order,
    status: AttemptStatus,
) -> AttemptRow {
    AttemptRow {
        attempt_id: order.attempt_id,
        product_id: decision.product_id.clone(),
        buyer_id: order.buyer_id.clone(),
        quantity: order.quantity,
        position: Position {
            partition,
            offset: order.attempt_offset,
        },
        status,
        decided_at_ms: decision.decided_at_ms,
        hold_until_ms: match status {
            AttemptStatus::Reserved => order.hold_until_ms,
            _ => None,
        },
        version: decision.version,
        trace_id: None,
        price: order.price.clone(),
    }
}

#[cfg(test)]
mod tests {
    use schemas::decision::{
        AttemptRefused, AttemptRepeated, OrderAccepted, OrderReleased, RefusalReason, Stock, Tally,
    };
    use schemas::ids::{AttemptId, ChainHash, Offset};

    use super::*;

    fn id(number: u8) -> AttemptId {
        AttemptId::from_bytes([number; 16])
    }

    fn order(number: u8) -> Order {
        Order {
            attempt_id: id(number),
            buyer_id: "b".parse().unwrap(),
            quantity: 1,
            attempt_offset: Offset(number.into()),
            accepted_at_ms: 0,
            hold_until_ms: None,
            price: None,
        }
    }

    /// The attempt and trace of each row of a decision on offset 9.
    fn traces(events: Vec<Event>, trace: Option<TraceId>) -> Vec<(AttemptId, Option<TraceId>)> {
        let decision = Decision {
            claim: Offset(0),
            answers: Offset(9),
            follows: Offset(8),
            product_id: "p".parse().unwrap(),
            version: 1,
            decided_at_ms: 0,
            events,
            stock: Stock::default(),
            tally: Tally::default(),
            command: None,
            chain: ChainHash::default(),
        };
        let rows = attempt_rows(Partition(0), &decision, trace).into_iter();
        rows.map(|row| match row {
            Row::Attempt(row) | Row::Order(row) | Row::Intent(row) => {
                (row.attempt_id, row.trace_id)
            }
            row => panic!("{row:?} is not an attempt's row"),
        })
        .collect()
    }

    #[test]
    fn only_the_requested_attempt_gets_the_trace_of_the_request() {
        let trace = TraceId::from_bytes([7; 16]);
        let released = |number, cause| {
            Event::OrderReleased(OrderReleased {
                order: order(number),
                cause,
            })
        };
        let accepted = |number| {
            Event::OrderAccepted(OrderAccepted {
                order: order(number),
            })
        };
        let refused = Event::AttemptRefused(AttemptRefused {
            attempt_id: id(9),
            buyer_id: "b".parse().unwrap(),
            quantity: 1,
            reason: RefusalReason::SoldOut,
        });
        let expired = || released(3, ReleaseCause::Expired);
        let own = (id(9), trace);
        let other = (id(3), None);
        let rows = traces(vec![expired(), accepted(9)], trace);
        assert_eq!(rows, [other, other, other, own, own]);
        let rows = traces(vec![expired(), refused.clone()], trace);
        assert_eq!(rows, [other, other, other, own, own]);
        let rows = traces(vec![released(3, ReleaseCause::Cancelled)], trace);
        assert_eq!(rows, [(id(3), trace); 2]);
        // Released units went to an earlier attempt.
        assert_eq!(traces(vec![accepted(4)], trace), [(id(4), None); 2]);
        let repeated = Event::AttemptRepeated(AttemptRepeated { attempt_id: id(9) });
        assert_eq!(traces(vec![repeated], trace), []);
        let of_another_round = Event::AttemptRefused(AttemptRefused {
            attempt_id: id(9),
            buyer_id: "b".parse().unwrap(),
            quantity: 1,
            reason: RefusalReason::AnotherRound,
        });
        assert_eq!(traces(vec![of_another_round], trace), []);
        assert_eq!(traces(vec![refused], None), [(id(9), None); 2]);
    }
}
