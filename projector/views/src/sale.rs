//! A sale's row.

use ports::read_store::{SalePhase, SaleRow};
use schemas::decision::{Decision, Event};

/// The sale's row after a decision, from the row before it; none while the product has no sale.
///
/// A decision that the row already includes changes nothing.
pub fn next_sale(previous: Option<&SaleRow>, decision: &Decision) -> Option<SaleRow> {
    if previous.is_some_and(|row| row.version >= decision.version) {
        return previous.cloned();
    }
    let mut sale = previous.cloned();
    for event in &decision.events {
        sale = after_event(sale, event, decision);
    }
    let mut sale = sale?;
    sale.version = decision.version;
    sale.stock = decision.stock;
    sale.tally = decision.tally;
    sale.decided_at_ms = decision.decided_at_ms;
    if decision.events.iter().any(Event::changes_sale) {
        sale.sale_version = Some(decision.version);
    }
    Some(sale)
}

fn after_event(sale: Option<SaleRow>, event: &Event, decision: &Decision) -> Option<SaleRow> {
    if let Event::SaleSet(set) = event {
        // A sale stays paused when its terms change within the round.
        let paused =
            sale.is_some_and(|row| row.round == set.round && row.phase == SalePhase::Paused);
        return Some(SaleRow {
            product_id: decision.product_id.clone(),
            version: decision.version,
            round: set.round,
            terms: set.terms.clone(),
            phase: if paused {
                SalePhase::Paused
            } else {
                SalePhase::Scheduled
            },
            stock: decision.stock,
            tally: decision.tally,
            decided_at_ms: decision.decided_at_ms,
            sale_version: None,
        });
    }
    let mut sale = sale?;
    match event {
        Event::SaleOpened => sale.phase = SalePhase::Open,
        Event::SalePaused => sale.phase = SalePhase::Paused,
        Event::SaleClosed => sale.phase = SalePhase::Closed,
        Event::StockSet(set) => sale.terms.stock = set.stock,
        _ => {}
    }
    Some(sale)
}
