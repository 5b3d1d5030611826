//! The seller creates and changes a sale.

use schemas::command::{SaleTerms, SetStock};
use schemas::decision::{Event, SaleChangeRefusalReason, SaleChangeRefused, SaleSet, StockSet};
use schemas::ids::{MAX_STOCK, TimestampMs};

use crate::figures::Phase;
use crate::product::Product;
use crate::time::{Due, MAX_TIME_MS};

/// The longest name of a sale, in bytes.
pub const MAX_NAME_BYTES: usize = 200;
/// The longest hold: seven days.
pub const MAX_HOLD_MS: i64 = 7 * 24 * 60 * 60 * 1000;
/// The highest price of a unit, in minor units.
pub const MAX_PRICE_MINOR: i64 = 1_000_000_000_000;

/// Whether the sale is at the version that a change was made for. What time changes in this decision
/// is newer than any version that a seller can have read.
pub fn is_at_version(product: &Product, due: &Due, version: Option<u64>) -> bool {
    let Some(version) = version else { return true };
    if product.head.terms.is_none() {
        return version == 0;
    }
    let changed_now = due.events.iter().any(Event::changes_sale);
    // After a checkpoint of a program that did not record it the version is unknown until the sale
    // changes. Only programs that record it tell sellers a version, so that what a seller has read is
    // no older than the checkpoint.
    let differs = product
        .head
        .sale_version
        .is_some_and(|current| current != version);
    !changed_now && !differs
}

/// The events of new terms: of the first round, or of the current one until it is closed. No further
/// round begins by them, so that terms which arrive just after the closing time sell nothing.
pub fn put(product: &Product, mut due: Due, terms: &SaleTerms, now: TimestampMs) -> Vec<Event> {
    let committed = due.reserved + product.head.stock.sold;
    // Without holds one attempt may ask for more units than one decision can free by expiring
    // holds. It would then be refused although enough units are due.
    let gives_up_holds = terms.hold_ms.is_none() && due.reserved > 0;
    let window_stays = product
        .head
        .terms
        .as_ref()
        .is_some_and(|before| before.opens_at_ms == terms.opens_at_ms);
    // A sale that was opened by hand stays open when its price or stock changes.
    let opens = match due.phase {
        Phase::Paused => false,
        Phase::Open if window_stays => true,
        _ => terms.opens_at_ms <= now,
    };
    let round = match due.phase {
        Phase::Closed => Err(SaleChangeRefusalReason::Closed),
        _ if are_invalid(terms, now) => Err(SaleChangeRefusalReason::InvalidTerms),
        Phase::None => Ok(product.head.round.saturating_add(1)),
        _ if gives_up_holds => Err(SaleChangeRefusalReason::HoldsOutstanding),
        _ if terms.stock < committed => Err(SaleChangeRefusalReason::StockBelowCommitted),
        _ => Ok(product.head.round),
    };
    due.events.extend(set_events(round, terms, opens));
    due.events
}

/// The events of the terms of a new round, which begins only after a closed one.
pub fn begin_round(
    product: &Product,
    mut due: Due,
    terms: &SaleTerms,
    now: TimestampMs,
) -> Vec<Event> {
    let round = match due.phase {
        Phase::Closed if are_invalid(terms, now) => Err(SaleChangeRefusalReason::InvalidTerms),
        Phase::Closed if due.reserved > 0 => Err(SaleChangeRefusalReason::HoldsOutstanding),
        Phase::Closed => Ok(product.head.round.saturating_add(1)),
        _ => Err(SaleChangeRefusalReason::NoClosedRound),
    };
    let opens = terms.opens_at_ms <= now;
    due.events.extend(set_events(round, terms, opens));
    due.events
}

/// Whether terms are out of their bounds, or their window is over.
fn are_invalid(terms: &SaleTerms, now: TimestampMs) -> bool {
    let over = terms.closes_at_ms.is_some_and(|closes| closes <= now);
    over || check_terms(terms).is_err()
}

/// The terms take effect in a round, or are refused.
fn set_events(
    round: Result<u32, SaleChangeRefusalReason>,
    terms: &SaleTerms,
    opens: bool,
) -> Vec<Event> {
    let round = match round {
        Ok(round) => round,
        Err(reason) => return vec![refused(reason)],
    };
    let terms = terms.clone();
    let mut events = vec![Event::SaleSet(SaleSet { terms, round })];
    events.extend(opens.then_some(Event::SaleOpened));
    events
}

/// Which term is out of its bounds, and what was expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TermsError {
    /// The field, as the API names it.
    pub field: &'static str,
    /// What was expected.
    pub expected: &'static str,
}

/// Checks terms against their bounds. The HTTP API uses it too, to name the term that is out of its
/// bounds before anything is appended.
pub fn check_terms(terms: &SaleTerms) -> Result<(), TermsError> {
    let error = |field, expected| Err(TermsError { field, expected });
    if terms.name.is_empty() || terms.name.len() > MAX_NAME_BYTES {
        return error("name", "1 to 200 bytes of text");
    }
    if !(0..=MAX_PRICE_MINOR).contains(&terms.price.minor) {
        return error("price.minor", "0 to 1000000000000 minor units");
    }
    if !terms.price.has_valid_currency() {
        return error("price.currency", "three capital letters, as in ISO 4217");
    }
    if terms.stock > MAX_STOCK {
        return error("stock", "at most 1000000000 units");
    }
    if terms
        .limit_per_buyer
        .is_some_and(|limit| !(1..=MAX_STOCK).contains(&limit))
    {
        return error(
            "limit_per_buyer",
            "1 to 1000000000 units, or none for no limit",
        );
    }
    if terms
        .hold_ms
        .is_some_and(|hold| !(1..=MAX_HOLD_MS).contains(&hold))
    {
        return error(
            "hold_ms",
            "1 to 604800000 milliseconds, or none to sell at once",
        );
    }
    if !(0..=MAX_TIME_MS).contains(&terms.opens_at_ms) {
        return error("opens_at", "a time between the years 1970 and 9999");
    }
    match terms.closes_at_ms {
        Some(closes) if !(0..=MAX_TIME_MS).contains(&closes) => {
            error("closes_at", "a time between the years 1970 and 9999")
        }
        Some(closes) if closes <= terms.opens_at_ms => {
            error("closes_at", "a time after opens_at, or none")
        }
        _ => Ok(()),
    }
}

/// The event of opening a sale now, or resuming it after a pause.
pub fn open(due: &Due) -> Event {
    unless_over(due, Event::SaleOpened)
}

/// The event of pausing a sale.
pub fn pause(due: &Due) -> Event {
    unless_over(due, Event::SalePaused)
}

/// The event of closing a sale.
pub fn close(due: &Due) -> Event {
    unless_over(due, Event::SaleClosed)
}

/// The event of setting the round's total.
pub fn set_stock(product: &Product, due: &Due, set: &SetStock) -> Event {
    let committed = due.reserved + product.head.stock.sold;
    match unless_over(due, Event::StockSet(StockSet { stock: set.stock })) {
        Event::StockSet(_) if set.stock > MAX_STOCK => {
            refused(SaleChangeRefusalReason::InvalidTerms)
        }
        Event::StockSet(_) if set.stock < committed => {
            refused(SaleChangeRefusalReason::StockBelowCommitted)
        }
        event => event,
    }
}

fn unless_over(due: &Due, event: Event) -> Event {
    match due.phase {
        Phase::None => refused(SaleChangeRefusalReason::UnknownProduct),
        Phase::Closed => refused(SaleChangeRefusalReason::Closed),
        _ => event,
    }
}

/// The event of refusing a change of the sale.
pub fn refused(reason: SaleChangeRefusalReason) -> Event {
    Event::SaleChangeRefused(SaleChangeRefused { reason })
}

#[cfg(test)]
mod tests;
