//! The check of a product's whole history.

use std::collections::{BTreeSet, HashMap};

use schemas::command::{Command, CommandBody, SaleTerms};
use schemas::decision::{
    CancelRefusalReason, CancelRefused, ClockCorrected, Decision, Event, Order, OrderAccepted,
    RefusalReason, ReleaseCause, SaleChangeRefusalReason,
};
use schemas::ids::{AttemptId, BuyerId, ChainHash, Offset, TimestampMs};

use super::limits::{LAST_MOMENT_MS, MAX_HOLDS_RUN_OUT, is_valid_quantity};
use super::{Violation, check_decision};
use crate::figures::{Figures, Phase};
use crate::hashing::{AttemptIdHash, BuyerIdHash};

/// Checks a product's whole history, decision by decision. Beyond [`check_decision`] it requires
/// one outcome an attempt, releases of standing orders only, no buyer over the limit, no deadline
/// passed over, and an unbroken chain.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    /// The figures after the last decision.
    pub figures: Figures,
    /// The chain hash after it.
    pub chain: ChainHash,
    /// The version of the last decision that changed the sale.
    sale_version: u64,
    round: Round,
}

/// What is known of the current round.
#[derive(Debug, Clone, Default)]
struct Round {
    number: u32,
    terms: Option<SaleTerms>,
    standing: HashMap<AttemptId, Order, AttemptIdHash>,
    holds: BTreeSet<(TimestampMs, AttemptId)>,
    /// The attempts with an outcome, and the quantities that they requested.
    answered: HashMap<AttemptId, u32, AttemptIdHash>,
    units_of: HashMap<BuyerId, u32, BuyerIdHash>,
}

impl Ledger {
    /// Checks the product's next decision. It answers `command`, which was appended to
    /// `purchase-attempts` at `appended_at_ms`; `expected_chain` is the hash computed from the
    /// decision's bytes and [`Ledger::chain`].
    pub fn record(
        &mut self,
        decision: &Decision,
        command: &Command,
        appended_at_ms: TimestampMs,
        expected_chain: ChainHash,
    ) -> Result<(), Violation> {
        if decision.leaves_state() {
            return self.advance(decision, command, appended_at_ms, expected_chain);
        }
        let mut discarded = self.clone();
        discarded.advance(decision, command, appended_at_ms, expected_chain)
    }

    fn advance(
        &mut self,
        decision: &Decision,
        command: &Command,
        appended_at_ms: TimestampMs,
        expected_chain: ChainHash,
    ) -> Result<(), Violation> {
        if decision.chain != expected_chain {
            let found = decision.chain;
            return Err(Violation::ChainBroken {
                expected: expected_chain,
                found,
            });
        }
        let window = self.window();
        let before = (self.figures.round, self.sale_version);
        let time = match command.body {
            CommandBody::CorrectClock => appended_at_ms.clamp(0, LAST_MOMENT_MS),
            _ => appended_at_ms
                .min(LAST_MOMENT_MS)
                .max(self.figures.decided_at_ms),
        };
        self.figures = check_decision(self.figures, decision)?;
        if decision.decided_at_ms != time {
            let found = decision.decided_at_ms;
            return Err(Violation::NotTheLogsTime {
                expected: time,
                found,
            });
        }
        self.chain = decision.chain;
        for event in &decision.events {
            self.round
                .record(event, decision.decided_at_ms, self.figures.stock.available)?;
        }
        self.nothing_overdue(decision)?;
        let by_time =
            by_time(decision, &command.body, &window).ok_or(Violation::AnswersSomethingElse)?;
        by_time
            .iter()
            .try_for_each(|event| window.check_due(event, time))?;
        let (round, sale_version) = before;
        let answer = decision.events.get(by_time.len());
        check_round(&command.body, answer, round)?;
        let at_version = command.if_version.is_none_or(|version| {
            version == sale_version && !by_time.iter().any(Event::changes_sale)
        });
        check_version(answer, at_version)?;
        if decision.events.iter().any(Event::changes_sale) {
            self.sale_version = decision.version;
        }
        Ok(())
    }

    fn window(&self) -> Window {
        let terms = self.round.terms.as_ref();
        Window {
            is_open: self.figures.phase == Phase::Open,
            opens_at_ms: terms.map(|terms| terms.opens_at_ms),
            closes_at_ms: terms.and_then(|terms| terms.closes_at_ms),
        }
    }

    /// Every deadline that has passed took effect, except for holds beyond the most that run
    /// out in one decision.
    fn nothing_overdue(&self, decision: &Decision) -> Result<(), Violation> {
        let now = decision.decided_at_ms;
        let terms = self.round.terms.as_ref();
        let opens = terms
            .filter(|_| self.figures.phase == Phase::Scheduled)
            .map(|terms| terms.opens_at_ms);
        let closes = terms
            .filter(|_| self.figures.phase != Phase::Closed)
            .and_then(|terms| terms.closes_at_ms);
        let expired = decision.events.iter().filter(|event| ran_out(event));
        let holds = (expired.count() < MAX_HOLDS_RUN_OUT)
            .then(|| self.round.holds.first().map(|(deadline, _)| *deadline))
            .flatten();
        let first = opens.into_iter().chain(closes).chain(holds).min();
        match first.filter(|deadline| *deadline <= now) {
            Some(deadline) => Err(Violation::Overdue(deadline)),
            None => Ok(()),
        }
    }
}

/// When a sale opens and closes by time, by the terms before a decision.
struct Window {
    is_open: bool,
    opens_at_ms: Option<TimestampMs>,
    closes_at_ms: Option<TimestampMs>,
}

impl Window {
    /// Whether new terms leave a sale open, or open it at once. A sale that was opened by hand
    /// stays open when its opening time does not change.
    fn opens_with(&self, terms: &SaleTerms, now: TimestampMs) -> bool {
        let stays_open = self.is_open && self.opens_at_ms == Some(terms.opens_at_ms);
        stays_open || terms.opens_at_ms <= now
    }

    /// An event that time caused was due. Holds are checked where their units are released.
    fn check_due(&self, event: &Event, now: TimestampMs) -> Result<(), Violation> {
        let at = match event {
            Event::SaleOpened => self.opens_at_ms,
            Event::SaleClosed => self.closes_at_ms,
            event if ran_out(event) => return Ok(()),
            _ => return Err(Violation::AnswersSomethingElse),
        };
        match at {
            Some(at) if at <= now => Ok(()),
            _ => Err(Violation::NotDue(now)),
        }
    }
}

impl Round {
    fn record(&mut self, event: &Event, now: TimestampMs, available: u32) -> Result<(), Violation> {
        match event {
            Event::SaleSet(set) => {
                if set.round > self.number {
                    *self = Self::default();
                }
                self.number = set.round;
                self.terms = Some(set.terms.clone());
                Ok(())
            }
            Event::OrderAccepted(accepted) => self.accept(accepted, now),
            Event::AttemptRefused(refused) if refused.is_outcome() => {
                self.first_outcome(refused.attempt_id, refused.quantity)?;
                let has = self.units_of.get(&refused.buyer_id).copied().unwrap_or(0);
                let wants = u64::from(has) + u64::from(refused.quantity);
                let justified = match (refused.reason, &self.terms) {
                    (RefusalReason::OverBuyerLimit, Some(terms)) => terms
                        .limit_per_buyer
                        .is_some_and(|limit| wants > u64::from(limit)),
                    (RefusalReason::InvalidQuantity, Some(terms)) => {
                        !is_valid_quantity(refused.quantity, terms)
                    }
                    (RefusalReason::OverBuyerLimit | RefusalReason::InvalidQuantity, None) => false,
                    _ => true,
                };
                if justified {
                    return Ok(());
                }
                Err(Violation::WronglyRefused {
                    attempt: refused.attempt_id,
                    reason: refused.reason,
                    available,
                })
            }
            Event::OrderReleased(released) => self.release(&released.order),
            // Before version 2 an attempt for another quantity was repeated, too.
            Event::AttemptRepeated(repeated)
                if !self.answered.contains_key(&repeated.attempt_id) =>
            {
                Err(Violation::AnswersSomethingElse)
            }
            Event::AttemptConflicted(conflicted) => {
                match self.answered.get(&conflicted.attempt_id) {
                    Some(quantity) if *quantity != conflicted.quantity => Ok(()),
                    _ => Err(Violation::NoConflict(conflicted.attempt_id)),
                }
            }
            Event::CancelRefused(refused) => self.keep(refused),
            Event::ClockCorrected(corrected) => {
                self.move_holds(corrected);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// After a correction of the product's time, what was left of a hold that was accepted after the
    /// corrected time is left, and it ends after that time.
    fn move_holds(&mut self, corrected: &ClockCorrected) {
        for order in self.standing.values_mut() {
            let Some(deadline) = order.hold_until_ms else {
                continue;
            };
            if order.accepted_at_ms <= corrected.to_ms {
                continue;
            }
            let left_ms = (deadline - corrected.from_ms).max(1);
            order.accepted_at_ms = corrected.to_ms;
            order.hold_until_ms = Some(corrected.to_ms + left_ms);
        }
        let holds = self.standing.values();
        let holds = holds.filter_map(|order| Some((order.hold_until_ms?, order.attempt_id)));
        self.holds = holds.collect();
    }

    fn accept(&mut self, accepted: &OrderAccepted, now: TimestampMs) -> Result<(), Violation> {
        let order = &accepted.order;
        self.first_outcome(order.attempt_id, order.quantity)?;
        let terms = self.terms.as_ref();
        let hold = terms.and_then(|terms| terms.hold_ms);
        let hold_until_ms = hold.map(|hold| now.saturating_add(hold));
        // Before version 2 an order had no price.
        let price = terms.map(|terms| &terms.price);
        let differs = order.price.is_some() && order.price.as_ref() != price;
        if order.accepted_at_ms != now || order.hold_until_ms != hold_until_ms || differs {
            return Err(Violation::AnswersSomethingElse);
        }
        if let Some(deadline) = order.hold_until_ms {
            self.holds.insert((deadline, order.attempt_id));
        }
        self.standing.insert(order.attempt_id, order.clone());
        let units = self.units_of.entry(order.buyer_id.clone()).or_default();
        *units += order.quantity;
        match terms.and_then(|terms| terms.limit_per_buyer) {
            Some(limit) if *units > limit => Err(Violation::OverLimit {
                units: *units,
                limit,
            }),
            _ => Ok(()),
        }
    }

    fn release(&mut self, order: &Order) -> Result<(), Violation> {
        match self.standing.remove(&order.attempt_id) {
            Some(standing) if standing == *order => {}
            _ => return Err(Violation::NoSuchOrder(order.attempt_id)),
        }
        if let Some(deadline) = order.hold_until_ms {
            self.holds.remove(&(deadline, order.attempt_id));
        }
        if let Some(units) = self.units_of.get_mut(&order.buyer_id) {
            *units -= order.quantity;
        }
        Ok(())
    }

    fn keep(&self, refused: &CancelRefused) -> Result<(), Violation> {
        let standing = self.standing.get(&refused.attempt_id);
        let justified = match refused.reason {
            CancelRefusalReason::UnknownOrder => standing.is_none(),
            CancelRefusalReason::NotYours => {
                standing.is_some_and(|order| order.buyer_id != refused.buyer_id)
            }
        };
        if justified {
            Ok(())
        } else {
            Err(Violation::CancelWronglyRefused(refused.attempt_id))
        }
    }

    fn first_outcome(&mut self, attempt: AttemptId, quantity: u32) -> Result<(), Violation> {
        match self.answered.insert(attempt, quantity) {
            None => Ok(()),
            Some(_) => Err(Violation::SecondOutcome(attempt)),
        }
    }
}

/// An attempt has an outcome only in the round that it was made for, and a new round begins when the
/// seller commands it. Before version 2 terms for a closed sale began one, too.
fn check_round(command: &CommandBody, answer: Option<&Event>, round: u32) -> Result<(), Violation> {
    match (command, answer) {
        (CommandBody::PlaceAttempt(place), Some(event)) => {
            // Before the first sale there is no round.
            let of_another = round > 0 && place.round.is_some_and(|of| of != round);
            let has_outcome = match event {
                Event::OrderAccepted(_) => true,
                Event::AttemptRefused(refused) => refused.is_outcome(),
                _ => return Ok(()),
            };
            match of_another == has_outcome {
                true => Err(Violation::AnotherRound(place.attempt_id)),
                false => Ok(()),
            }
        }
        (CommandBody::BeginRound(_), Some(Event::SaleSet(set))) if set.round <= round => {
            Err(Violation::RoundGap {
                expected: round.saturating_add(1),
                found: set.round,
            })
        }
        _ => Ok(()),
    }
}

/// A change of the sale takes effect at the version that it was made for, and only there.
fn check_version(answer: Option<&Event>, at_version: bool) -> Result<(), Violation> {
    let differs = SaleChangeRefusalReason::VersionDiffers;
    let refused =
        |event: &Event| matches!(event, Event::SaleChangeRefused(it) if it.reason == differs);
    match answer {
        Some(event) if event.changes_sale() && !at_version => Err(Violation::AnotherVersion),
        Some(event) if refused(event) && at_version => Err(Violation::AnswersSomethingElse),
        _ => Ok(()),
    }
}

/// The events before the decision's answer to the command, all of which must be caused by time;
/// none when the decision does not answer the command.
fn by_time<'a>(
    decision: &'a Decision,
    command: &CommandBody,
    window: &Window,
) -> Option<&'a [Event]> {
    // Decisions made before the kind was named have none.
    if decision.command.is_some() && decision.command != command.kind() {
        return None;
    }
    let (by_time, answered) = match (command, decision.events.as_slice()) {
        (CommandBody::TimeAdvanced, by_time) => (by_time, true),
        (
            CommandBody::PutSale(terms) | CommandBody::BeginRound(terms),
            [by_time @ .., Event::SaleSet(set), Event::SaleOpened],
        ) => {
            let opens = window.opens_with(terms, decision.decided_at_ms);
            (by_time, opens && set.terms == *terms)
        }
        (
            CommandBody::PutSale(terms) | CommandBody::BeginRound(terms),
            [by_time @ .., Event::SaleSet(set)],
        ) => (by_time, set.terms == *terms),
        (command, [by_time @ .., last]) => (by_time, answer(last, command, decision.answers)),
        (_, []) => return None,
    };
    answered.then_some(by_time)
}

fn answer(event: &Event, command: &CommandBody, offset: Offset) -> bool {
    match (command, event) {
        (CommandBody::PlaceAttempt(place), Event::OrderAccepted(event)) => {
            let order = &event.order;
            order.attempt_id == place.attempt_id
                && order.buyer_id == place.buyer_id
                && order.quantity == place.quantity
                && order.attempt_offset == offset
        }
        (CommandBody::PlaceAttempt(place), Event::AttemptRefused(event)) => {
            event.attempt_id == place.attempt_id
                && event.buyer_id == place.buyer_id
                && event.quantity == place.quantity
        }
        (CommandBody::PlaceAttempt(place), Event::AttemptRepeated(event)) => {
            event.attempt_id == place.attempt_id
        }
        (CommandBody::PlaceAttempt(place), Event::AttemptConflicted(event)) => {
            event.attempt_id == place.attempt_id && event.quantity == place.quantity
        }
        (CommandBody::CancelOrder(cancel), Event::OrderReleased(event)) => {
            event.cause == ReleaseCause::Cancelled
                && event.order.attempt_id == cancel.attempt_id
                && event.order.buyer_id == cancel.buyer_id
        }
        (CommandBody::CancelOrder(cancel), Event::CancelRefused(event)) => {
            event.attempt_id == cancel.attempt_id && event.buyer_id == cancel.buyer_id
        }
        (CommandBody::OpenSale, Event::SaleOpened)
        | (CommandBody::PauseSale, Event::SalePaused)
        | (CommandBody::CloseSale, Event::SaleClosed) => true,
        (CommandBody::SetStock(set), Event::StockSet(event)) => event.stock == set.stock,
        (CommandBody::CorrectClock, Event::ClockCorrected(_)) => true,
        (
            CommandBody::PutSale(_)
            | CommandBody::BeginRound(_)
            | CommandBody::OpenSale
            | CommandBody::PauseSale
            | CommandBody::CloseSale
            | CommandBody::SetStock(_),
            Event::SaleChangeRefused(_),
        ) => true,
        _ => false,
    }
}

fn ran_out(event: &Event) -> bool {
    matches!(event, Event::OrderReleased(released) if released.cause == ReleaseCause::Expired)
}
