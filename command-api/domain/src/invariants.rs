//! What must hold, in one module. Production checks every decision with it, before the decision is
//! appended and when it is read; simulation and audit check whole histories.
//!
//! Nothing here calls the code that decides or evolves, nor shares its limits: the figures are
//! computed anew from the events, and the rules are restated.

mod ledger;
mod limits;
mod turn_order;
mod violation;

use schemas::decision::{Decision, Event, Order, RefusalReason, ReleaseCause, Stock, Tally};

pub use self::ledger::Ledger;
pub use self::turn_order::{TurnOrder, check_answers_next, check_product};
pub use self::violation::Violation;
use crate::figures::{Figures, Phase};

/// Units conserve: `total = available + reserved + sold`.
pub fn check_stock(stock: &Stock) -> Result<(), Violation> {
    let parts = u64::from(stock.available) + u64::from(stock.reserved) + u64::from(stock.sold);
    if u64::from(stock.total) == parts {
        Ok(())
    } else {
        Err(Violation::UnitsNotConserved(*stock))
    }
}

/// A decision follows from the figures before it: next version, time not going back unless it is
/// corrected, and every unit accounted for by its events. Returns the figures after it.
///
/// One that leaves no state is about a product without a sale, and does not begin one. Before
/// version 2 such a decision left a version and a count.
pub fn check_decision(before: Figures, decision: &Decision) -> Result<Figures, Violation> {
    let leaves_state = decision.leaves_state();
    let expected = match leaves_state {
        true => before.version.saturating_add(1),
        false => 0,
    };
    if decision.version != expected {
        return Err(Violation::VersionGap {
            expected,
            found: decision.version,
        });
    }
    check_time(before, decision)?;
    let mut after = Figures {
        version: expected,
        decided_at_ms: decision.decided_at_ms,
        ..before
    };
    for event in &decision.events {
        follow(&mut after, event)?;
        check_stock(&after.stock)?;
    }
    if after.stock != decision.stock {
        return Err(Violation::StockDiffers {
            computed: after.stock,
            stated: decision.stock,
        });
    }
    let without_sale = before.phase == Phase::None && after.phase == Phase::None;
    if !leaves_state && !without_sale {
        let expected = before.version.saturating_add(1);
        return Err(Violation::VersionGap { expected, found: 0 });
    }
    let tally = if leaves_state { after } else { before }.tally;
    if tally != decision.tally {
        return Err(Violation::TallyDiffers {
            computed: tally,
            stated: decision.tally,
        });
    }
    Ok(if leaves_state { after } else { before })
}

/// A product's time falls only where an operator corrects it, from the time before to that of the
/// decision.
fn check_time(before: Figures, decision: &Decision) -> Result<(), Violation> {
    let found = decision.decided_at_ms;
    let corrections = decision.events.iter().filter_map(|event| match event {
        Event::ClockCorrected(corrected) => Some(*corrected),
        _ => None,
    });
    let mut may_fall = false;
    for corrected in corrections {
        let from_ms = before.decided_at_ms.max(found);
        if (corrected.from_ms, corrected.to_ms) != (from_ms, found) || found < 0 {
            return Err(Violation::WronglyCorrected(corrected));
        }
        may_fall = true;
    }
    if found < before.decided_at_ms && !may_fall {
        let before = before.decided_at_ms;
        return Err(Violation::TimeWentBack { before, found });
    }
    Ok(())
}

fn follow(figures: &mut Figures, event: &Event) -> Result<(), Violation> {
    let stock = figures.stock;
    match event {
        Event::SaleSet(set) => {
            let next = matches!(figures.phase, Phase::None | Phase::Closed);
            let expected = figures.round.saturating_add(u32::from(next));
            if set.round != expected {
                let found = set.round;
                return Err(Violation::RoundGap { expected, found });
            }
            if next && stock.reserved > 0 {
                return Err(Violation::HoldsForgotten(stock.reserved));
            }
            if next {
                figures.stock = Stock::default();
                figures.tally = Tally::default();
            }
            if figures.phase != Phase::Paused {
                figures.phase = Phase::Scheduled;
            }
            figures.round = set.round;
            figures.stock = with_total(figures.stock, set.terms.stock)?;
        }
        Event::SaleOpened | Event::SalePaused | Event::SaleClosed | Event::StockSet(_)
            if matches!(figures.phase, Phase::None | Phase::Closed) =>
        {
            return Err(Violation::WrongPhase(figures.phase));
        }
        Event::SaleOpened => figures.phase = Phase::Open,
        Event::SalePaused => figures.phase = Phase::Paused,
        Event::SaleClosed => figures.phase = Phase::Closed,
        Event::StockSet(set) => figures.stock = with_total(stock, set.stock)?,
        Event::OrderAccepted(accepted) => {
            let quantity = accepted.order.quantity;
            if figures.phase != Phase::Open {
                return Err(Violation::WrongPhase(figures.phase));
            }
            if quantity == 0 || quantity > stock.available {
                return Err(Violation::Oversold {
                    quantity,
                    available: stock.available,
                });
            }
            figures.stock.available -= quantity;
            *side_of(&mut figures.stock, &accepted.order) += quantity;
            figures.tally.accepted += 1;
        }
        Event::AttemptRefused(refused) => {
            let justified = match refused.reason {
                RefusalReason::UnknownProduct => figures.phase == Phase::None,
                RefusalReason::NotOpenYet => figures.phase == Phase::Scheduled,
                RefusalReason::Closed => figures.phase == Phase::Closed,
                RefusalReason::Paused => figures.phase == Phase::Paused,
                RefusalReason::SoldOut => stock.available == 0,
                RefusalReason::NotEnoughLeft => (1..refused.quantity).contains(&stock.available),
                // These two need the terms and the buyer, which only the ledger of a history knows.
                RefusalReason::InvalidQuantity | RefusalReason::OverBuyerLimit => true,
                // This one needs the command.
                RefusalReason::AnotherRound => true,
            };
            if !justified {
                return Err(Violation::WronglyRefused {
                    attempt: refused.attempt_id,
                    reason: refused.reason,
                    available: stock.available,
                });
            }
            figures.tally.refused += u64::from(refused.is_outcome());
        }
        Event::OrderReleased(released) => {
            let quantity = released.order.quantity;
            if released.cause == ReleaseCause::Expired {
                let deadline = released.order.hold_until_ms;
                if deadline.is_none_or(|deadline| deadline > figures.decided_at_ms) {
                    return Err(Violation::ExpiredEarly(released.order.attempt_id));
                }
            }
            let side = side_of(&mut figures.stock, &released.order);
            *side = side
                .checked_sub(quantity)
                .ok_or(Violation::NoSuchOrder(released.order.attempt_id))?;
            figures.stock.available += quantity;
            match released.cause {
                ReleaseCause::Cancelled => figures.tally.cancelled += 1,
                ReleaseCause::Expired => figures.tally.expired += 1,
            }
        }
        Event::AttemptRepeated(_)
        | Event::AttemptConflicted(_)
        | Event::CancelRefused(_)
        | Event::SaleChangeRefused(_)
        | Event::ClockCorrected(_) => {}
    }
    Ok(())
}

/// The figure in which an order's units are counted.
fn side_of<'a>(stock: &'a mut Stock, order: &Order) -> &'a mut u32 {
    if order.hold_until_ms.is_some() {
        &mut stock.reserved
    } else {
        &mut stock.sold
    }
}

fn with_total(mut stock: Stock, total: u32) -> Result<Stock, Violation> {
    let committed = stock.reserved + stock.sold;
    let available = total.checked_sub(committed);
    stock.available = available.ok_or(Violation::Oversold {
        quantity: committed,
        available: total,
    })?;
    stock.total = total;
    Ok(stock)
}
