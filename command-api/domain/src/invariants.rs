//! What must hold, in one module: production asks it of every decision before it is written
//! and when it is read, simulation and audit of whole histories.
//!
//! Nothing here calls the code that decides or evolves: the figures are worked out anew from
//! the events.

use std::collections::{HashMap, HashSet};

use schemas::command::{CommandBody, SaleTerms};
use schemas::decision::{Decision, Event, Order, RefusalReason, ReleaseCause, Stock, Tally};
use schemas::ids::{AttemptId, BuyerId, ChainHash, TimestampMs};

use crate::product::Phase;

/// What must hold did not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// Units appeared or vanished: total is not available + reserved + sold.
    UnitsNotConserved(Stock),
    /// The events do not lead to the stock that the decision says.
    StockDiffers {
        /// The stock worked out.
        kept: Stock,
        /// The stock said.
        said: Stock,
    },
    /// The events do not lead to the counts that the decision says.
    TallyDiffers {
        /// The counts worked out.
        kept: Tally,
        /// The counts said.
        said: Tally,
    },
    /// More units were given than there were.
    Oversold {
        /// Units given.
        quantity: u32,
        /// Units there were.
        available: u32,
    },
    /// An attempt was refused for a reason that did not hold: idle stock, or an open sale.
    WronglyRefused {
        /// The attempt.
        attempt: AttemptId,
        /// The reason given.
        reason: RefusalReason,
        /// Units there were.
        available: u32,
    },
    /// The decision is not the product's next one.
    VersionGap {
        /// The version expected.
        expected: u64,
        /// The version found.
        found: u64,
    },
    /// The decision was made before the one before it.
    TimeWentBack {
        /// The time of the one before.
        before: TimestampMs,
        /// The decision's own.
        found: TimestampMs,
    },
    /// The chain hash does not follow from the one before and the bytes.
    ChainBroken {
        /// The hash worked out.
        expected: ChainHash,
        /// The hash said.
        found: ChainHash,
    },
    /// An attempt has a second outcome.
    SecondOutcome(AttemptId),
    /// An order was released that did not stand so.
    NoSuchOrder(AttemptId),
    /// A buyer has more units than the sale allows.
    OverLimit {
        /// Units the buyer has.
        units: u32,
        /// Units allowed.
        limit: u32,
    },
    /// The decision does not answer the command it says it answers.
    AnswersSomethingElse,
    /// An event happened that the sale's phase does not allow.
    WrongPhase(Phase),
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::UnitsNotConserved(s) => write!(
                f,
                "units not conserved: total {} is not available {} + reserved {} + sold {}",
                s.total, s.available, s.reserved, s.sold
            ),
            Self::StockDiffers { kept, said } => {
                write!(
                    f,
                    "the events lead to {kept:?}, but the decision says {said:?}"
                )
            }
            Self::TallyDiffers { kept, said } => {
                write!(
                    f,
                    "the events lead to {kept:?}, but the decision says {said:?}"
                )
            }
            Self::Oversold {
                quantity,
                available,
            } => {
                write!(f, "oversold: {quantity} units given, {available} available")
            }
            Self::WronglyRefused {
                attempt,
                reason,
                available,
            } => write!(
                f,
                "attempt {attempt} was refused as {reason} with {available} units available"
            ),
            Self::VersionGap { expected, found } => {
                write!(
                    f,
                    "the product's version should be {expected}, but is {found}"
                )
            }
            Self::TimeWentBack { before, found } => {
                write!(
                    f,
                    "decided at {found} ms, before the decision before it at {before} ms"
                )
            }
            Self::ChainBroken { expected, found } => {
                write!(f, "the chain hash should be {expected}, but is {found}")
            }
            Self::SecondOutcome(attempt) => write!(f, "attempt {attempt} has a second outcome"),
            Self::NoSuchOrder(attempt) => {
                write!(
                    f,
                    "the order of attempt {attempt} was released, but did not stand so"
                )
            }
            Self::OverLimit { units, limit } => {
                write!(f, "a buyer has {units} units where {limit} are allowed")
            }
            Self::AnswersSomethingElse => {
                f.write_str("the decision does not answer the command at the offset it names")
            }
            Self::WrongPhase(phase) => write!(f, "this cannot happen while the sale is {phase:?}"),
        }
    }
}

impl std::error::Error for Violation {}

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
    let expected = before.version + 1;
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
            if set.round > figures.round {
                figures.stock = Stock::default();
                figures.tally = Tally::default();
            }
            let paused = figures.phase == Phase::Paused && set.round == figures.round;
            figures.phase = if paused {
                Phase::Paused
            } else {
                Phase::Scheduled
            };
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

/// A product's whole history, taken decision by decision: beyond [`check_decision`], one
/// outcome an attempt, releases of standing orders only, limits kept, chain unbroken.
#[derive(Debug, Default)]
pub struct Ledger {
    /// The figures after the last decision.
    pub figures: Figures,
    /// The chain hash after it.
    pub chain: ChainHash,
    terms: Option<SaleTerms>,
    standing: HashMap<AttemptId, Order>,
    answered: HashSet<AttemptId>,
    units_of: HashMap<BuyerId, u32>,
}

impl Ledger {
    /// Takes the product's next decision, which answers `command`; `expected_chain` is the
    /// hash worked out from the decision's bytes and [`Ledger::chain`].
    pub fn take(
        &mut self,
        decision: &Decision,
        command: &CommandBody,
        expected_chain: ChainHash,
    ) -> Result<(), Violation> {
        if decision.chain != expected_chain {
            let found = decision.chain;
            return Err(Violation::ChainBroken {
                expected: expected_chain,
                found,
            });
        }
        let round = self.figures.round;
        self.figures = check_decision(self.figures, decision)?;
        self.chain = decision.chain;
        if self.figures.round > round {
            *self = Self {
                figures: self.figures,
                chain: self.chain,
                ..Self::default()
            };
        }
        for event in &decision.events {
            self.record(event)?;
        }
        if answers(decision, command) {
            Ok(())
        } else {
            Err(Violation::AnswersSomethingElse)
        }
    }

    fn record(&mut self, event: &Event) -> Result<(), Violation> {
        match event {
            Event::SaleSet(set) => self.terms = Some(set.terms.clone()),
            Event::OrderAccepted(accepted) => {
                let order = &accepted.order;
                self.first_outcome(order.attempt_id)?;
                self.standing.insert(order.attempt_id, order.clone());
                let units = self.units_of.entry(order.buyer_id.clone()).or_default();
                *units += order.quantity;
                let limit = self.terms.as_ref().and_then(|terms| terms.limit_per_buyer);
                if let Some(limit) = limit.filter(|limit| *units > *limit) {
                    return Err(Violation::OverLimit {
                        units: *units,
                        limit,
                    });
                }
            }
            Event::AttemptRefused(refused) => {
                self.first_outcome(refused.attempt_id)?;
                let has = self.units_of.get(&refused.buyer_id).copied().unwrap_or(0);
                let justified = match (refused.reason, &self.terms) {
                    (RefusalReason::OverBuyerLimit, Some(terms)) => terms
                        .limit_per_buyer
                        .is_some_and(|limit| has + refused.quantity > limit),
                    (RefusalReason::InvalidQuantity, Some(terms)) => {
                        !(1..=crate::attempt::most_units(terms)).contains(&refused.quantity)
                    }
                    (RefusalReason::OverBuyerLimit | RefusalReason::InvalidQuantity, None) => false,
                    _ => true,
                };
                if !justified {
                    return Err(Violation::WronglyRefused {
                        attempt: refused.attempt_id,
                        reason: refused.reason,
                        available: self.figures.stock.available,
                    });
                }
            }
            Event::OrderReleased(released) => {
                let order = &released.order;
                match self.standing.remove(&order.attempt_id) {
                    Some(standing) if standing == *order => {}
                    _ => return Err(Violation::NoSuchOrder(order.attempt_id)),
                }
                if let Some(units) = self.units_of.get_mut(&order.buyer_id) {
                    *units -= order.quantity;
                }
            }
            Event::AttemptRepeated(repeated) if !self.answered.contains(&repeated.attempt_id) => {
                return Err(Violation::AnswersSomethingElse);
            }
            _ => {}
        }
        Ok(())
    }

    fn first_outcome(&mut self, attempt: AttemptId) -> Result<(), Violation> {
        if self.answered.insert(attempt) {
            Ok(())
        } else {
            Err(Violation::SecondOutcome(attempt))
        }
    }
}

/// Whether the decision's last event is an answer to the command.
fn answers(decision: &Decision, command: &CommandBody) -> bool {
    match (command, decision.events.last()) {
        (CommandBody::PlaceAttempt(place), Some(Event::OrderAccepted(event))) => {
            let order = &event.order;
            order.attempt_id == place.attempt_id
                && order.buyer_id == place.buyer_id
                && order.quantity == place.quantity
                && order.attempt_offset == decision.answers
        }
        (CommandBody::PlaceAttempt(place), Some(Event::AttemptRefused(event))) => {
            event.attempt_id == place.attempt_id
                && event.buyer_id == place.buyer_id
                && event.quantity == place.quantity
        }
        (CommandBody::PlaceAttempt(place), Some(Event::AttemptRepeated(event))) => {
            event.attempt_id == place.attempt_id
        }
        (CommandBody::PlaceAttempt(_), _) => false,
        (CommandBody::CancelOrder(cancel), Some(Event::OrderReleased(event))) => {
            event.order.attempt_id == cancel.attempt_id && event.order.buyer_id == cancel.buyer_id
        }
        (CommandBody::CancelOrder(cancel), Some(Event::CancelRefused(event))) => {
            event.attempt_id == cancel.attempt_id
        }
        (CommandBody::CancelOrder(_), _) => false,
        (CommandBody::PutSale(terms), last) => match last {
            Some(Event::SaleChangeRefused(_)) => true,
            _ => decision
                .events
                .iter()
                .any(|event| matches!(event, Event::SaleSet(set) if set.terms == *terms)),
        },
        (CommandBody::OpenSale, Some(Event::SaleOpened)) => true,
        (CommandBody::PauseSale, Some(Event::SalePaused)) => true,
        (CommandBody::CloseSale, Some(Event::SaleClosed)) => true,
        (CommandBody::SetStock(set), Some(Event::StockSet(event))) => event.stock == set.stock,
        (
            CommandBody::OpenSale
            | CommandBody::PauseSale
            | CommandBody::CloseSale
            | CommandBody::SetStock(_),
            last,
        ) => matches!(last, Some(Event::SaleChangeRefused(_))),
        (CommandBody::TimeAdvanced, _) => decision.events.iter().all(|event| {
            matches!(
                event,
                Event::OrderReleased(_) | Event::SaleOpened | Event::SaleClosed
            )
        }),
    }
}
