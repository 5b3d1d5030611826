//! The attempt by id, and with it the buyer's orders and the product's intents.

use ports::read_store::{AttemptRow, AttemptStatus, Row};
use schemas::decision::{Decision, Event, Order, ReleaseCause};
use schemas::ids::{Partition, Position};

/// The rows that a decision makes of attempts. One decision touches an attempt at most once.
pub fn attempt_rows(partition: Partition, decision: &Decision) -> Vec<Row> {
    let mut rows = Vec::with_capacity(2 * decision.events.len());
    for event in &decision.events {
        match event {
            Event::OrderAccepted(accepted) => {
                let status = match accepted.order.hold_until_ms {
                    Some(_) => AttemptStatus::Reserved,
                    None => AttemptStatus::Sold,
                };
                let row = of_order(partition, decision, &accepted.order, status);
                rows.push(Row::Order(row.clone()));
                rows.push(Row::Attempt(row));
            }
            Event::OrderReleased(released) => {
                let status = AttemptStatus::Released(released.cause);
                let row = of_order(partition, decision, &released.order, status);
                if released.cause == ReleaseCause::Expired {
                    rows.push(Row::Intent(row.clone()));
                }
                rows.push(Row::Order(row.clone()));
                rows.push(Row::Attempt(row));
            }
            Event::AttemptRefused(refused) => {
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
                    trace_id: None,
                };
                rows.push(Row::Intent(row.clone()));
                rows.push(Row::Attempt(row));
            }
            Event::AttemptRepeated(_)
            | Event::CancelRefused(_)
            | Event::SaleSet(_)
            | Event::SaleOpened
            | Event::SalePaused
            | Event::SaleClosed
            | Event::StockSet(_)
            | Event::SaleChangeRefused(_) => {}
        }
    }
    rows
}

fn of_order(
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
    }
}
