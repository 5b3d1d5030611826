//! What must hold, in one module: production asks it of every decision before it is written
//! and when it is read, simulation and audit of whole histories.
//!
//! Nothing here calls the code that decides or evolves: the figures are worked out anew from
//! the events.

mod ledger;
mod line;
mod violation;

use schemas::decision::{Decision, Event, Order, RefusalReason, ReleaseCause, Stock, Tally};
use schemas::ids::TimestampMs;

pub use self::ledger::Ledger;
pub use self::line::{Line, check_product, check_turn};
pub use self::violation::Violation;
use crate::product::Phase;

/// What one decision passes on to the next.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Figures {
    /// Decisions so far.
    pub version: u64,
    /// The time of the last one.
    pub decided_at_ms: TimestampMs,
    /// The round; 0 while there is no sale.
    pub round: u32,
    /// Where the sale stands.
    pub phase: Phase,
    /// The units.
    pub stock: Stock,
    /// The counts.
    pub tally: Tally,
}

impl Default for Figures {
    fn default() -> Self {
        Self {
            version: 0,
            decided_at_ms: 0,
            round: 0,
            phase: Phase::None,
            stock: Stock::default(),
            tally: Tally::default(),
        }
    }
}

/// Units conserve.
pub fn check_stock(stock: &Stock) -> Result<(), Violation> {
    let parts = u64::from(stock.available) + u64::from(stock.reserved) + u64::from(stock.sold);
    if u64::from(stock.total) == parts {
        Ok(())
    } else {
        Err(Violation::UnitsNotConserved(*stock))
    }
}

/// A decision follows from the figures before it: next version, time not going back, and
/// every unit accounted for by its events. Returns the figures after it.
pub fn check_decision(before: Figures, decision: &Decision) -> Result<Figures, Violation> {
    let expected = before.version.saturating_add(1);
    if decision.version != expected {
        return Err(Violation::VersionGap {
            expected,
            found: decision.version,
        });
    }
    if decision.decided_at_ms < before.decided_at_ms {
        let found = decision.decided_at_ms;
        return Err(Violation::TimeWentBack {
            before: before.decided_at_ms,
            found,
        });
    }
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
            kept: after.stock,
            said: decision.stock,
        });
    }
    if after.tally != decision.tally {
        return Err(Violation::TallyDiffers {
            kept: after.tally,
            said: decision.tally,
        });
    }
    Ok(after)
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
                // These two need the terms and the buyer: the ledger of a history has them.
                RefusalReason::InvalidQuantity | RefusalReason::OverBuyerLimit => true,
            };
            if !justified {
                return Err(Violation::WronglyRefused {
                    attempt: refused.attempt_id,
                    reason: refused.reason,
                    available: stock.available,
                });
            }
            figures.tally.refused += 1;
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
        Event::AttemptRepeated(_) | Event::CancelRefused(_) | Event::SaleChangeRefused(_) => {}
    }
    Ok(())
}

/// Where an order's units are counted.
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
