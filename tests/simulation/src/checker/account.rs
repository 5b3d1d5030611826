//! One product's account: what each decision may contain, by the rules of a sale, stated again.

use std::collections::BTreeMap;

use schemas::command::{Command, CommandBody, PlaceAttempt, SaleTerms};
use schemas::decision::{
    CancelRefusalReason, Decision, Event, Order, RefusalReason, ReleaseCause,
    SaleChangeRefusalReason, SaleChangeRefused, Stock, Tally,
};
use schemas::ids::{AttemptId, BuyerId, ChainHash, Offset, Partition, TimestampMs};

/// What one decision made of an attempt.
#[derive(Debug, Clone, PartialEq)]
pub struct AttemptOutcome {
    /// `reserved`, `sold`, `refused`, `cancelled` or `expired`, as in the API.
    pub status: &'static str,
    /// Why it was refused, if it was.
    pub reason: Option<RefusalReason>,
    /// The attempt's position.
    pub position: (u32, i64),
    /// The round.
    pub round: u32,
    /// The offset of the command that led to it.
    pub answers: Offset,
    /// The product's version of the decision.
    pub version: u64,
    /// The decision's offset in `stock-decisions`.
    pub at: Offset,
}

impl AttemptOutcome {
    /// Whether it is an attempt's first outcome in its round.
    pub fn is_first(&self) -> bool {
        matches!(self.status, "reserved" | "sold" | "refused")
    }
}

/// A product's account.
#[derive(Default)]
pub struct Account {
    /// The hash of its decision chain.
    pub chain: ChainHash,
    /// Its stock and counts after each of its decisions, and the decision's offset in
    /// `stock-decisions`.
    pub figures: Vec<(Stock, Tally, Offset)>,
    decided_at_ms: TimestampMs,
    round: u32,
    terms: Option<SaleTerms>,
    opened: bool,
    paused: bool,
    closed: bool,
    /// New terms keep the window of an open sale, and the event that opens it again is still to
    /// come.
    reopening: bool,
    stock: Stock,
    tally: Tally,
    standing: BTreeMap<AttemptId, Order>,
    /// The attempts with an outcome in this round, and the quantity of each.
    answered: BTreeMap<AttemptId, u32>,
    /// The version at which the seller's sale last changed: its terms, its stock or its phase.
    changed_at: u64,
}

/// Whether the sale is another one to its seller after this event.
fn is_change(event: &Event) -> bool {
    matches!(
        event,
        Event::SaleSet(_)
            | Event::SaleOpened
            | Event::SalePaused
            | Event::SaleClosed
            | Event::StockSet(_)
    )
}

/// Fails with this text unless `holds`.
fn must(holds: bool, what: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(what()) }
}

impl Account {
    /// The version of the last decision.
    pub fn version(&self) -> u64 {
        self.figures.len() as u64
    }

    /// Takes the next decision, with the command that it answers, that command's append time, and
    /// the decision's offset in `stock-decisions`.
    pub fn take(
        &mut self,
        command: &Command,
        appended_at_ms: TimestampMs,
        at: Offset,
        decision: &Decision,
        chain: ChainHash,
    ) -> Result<(), String> {
        // Only a correction sets a product's time back.
        let before = self.decided_at_ms.max(appended_at_ms);
        let now = match command.body {
            CommandBody::CorrectClock => appended_at_ms,
            _ => before,
        };
        must(command.product_id == decision.product_id, || {
            "it is about another product".into()
        })?;
        if self.terms.is_none() && decision.version == 0 {
            return self.take_without_sale(&command.body, appended_at_ms, decision, chain);
        }
        let has_sale = |event: &Event| matches!(event, Event::SaleSet(_));
        must(
            self.terms.is_some() || decision.events.iter().any(has_sale),
            || "it has a version, but no sale".into(),
        )?;
        must(decision.version == self.version() + 1, || {
            format!("version {} follows {}", decision.version, self.version())
        })?;
        must(decision.decided_at_ms == now, || {
            format!("decided at {}, not at {now}", decision.decided_at_ms)
        })?;
        must(decision.chain == chain, || "the chain is broken".into())?;
        self.decided_at_ms = now;
        self.chain = chain;
        let mut answered = matches!(command.body, CommandBody::TimeAdvanced);
        for event in &decision.events {
            if self.by_time(event, now) {
                must(
                    !answered
                        || matches!(
                            command.body,
                            CommandBody::TimeAdvanced
                                | CommandBody::PutSale(_)
                                | CommandBody::BeginRound(_)
                        ),
                    || "time takes effect after the answer".into(),
                )?;
                self.note_change(event);
            } else {
                must(!answered, || format!("{event:?} is a second answer"))?;
                self.overdue(now)?;
                self.at_version(command, event)?;
                self.answer(&command.body, event, decision.answers, now)?;
                if let Event::ClockCorrected(corrected) = event {
                    let times = (corrected.from_ms, corrected.to_ms);
                    must(times == (before, now), || {
                        format!("{corrected:?} is not from {before} to {now}")
                    })?;
                    self.correct_holds(before - now, now);
                }
                self.note_change(event);
                answered = true;
            }
            let Stock {
                total,
                available,
                reserved,
                sold,
            } = self.stock;
            must(total == available + reserved + sold, || {
                format!("units do not conserve: {:?}", self.stock)
            })?;
        }
        must(answered, || {
            format!("{:?} has no answer in {:?}", command.body, decision.events)
        })?;
        self.overdue(now)?;
        must(!self.reopening, || "the sale does not stay open".into())?;
        must(decision.stock == self.stock, || {
            format!(
                "the account has {:?}, the decision {:?}",
                self.stock, decision.stock
            )
        })?;
        must(decision.tally == self.tally, || {
            format!(
                "the account has {:?}, the decision {:?}",
                self.tally, decision.tally
            )
        })?;
        self.figures.push((self.stock, self.tally, at));
        Ok(())
    }

    /// Takes a decision on a product without a sale, of which nothing may be left.
    fn take_without_sale(
        &self,
        command: &CommandBody,
        now: TimestampMs,
        decision: &Decision,
        chain: ChainHash,
    ) -> Result<(), String> {
        let [event] = decision.events.as_slice() else {
            return Err(format!("without a sale came {:?}", decision.events));
        };
        must(!is_change(event), || {
            format!("without a sale came {event:?}")
        })?;
        must(decision.decided_at_ms == now, || {
            format!("decided at {}, not at {now}", decision.decided_at_ms)
        })?;
        must(decision.chain == chain, || "the chain is broken".into())?;
        let figures = (decision.stock, decision.tally);
        must(figures == Default::default(), || {
            format!("without a sale there are {figures:?}")
        })?;
        Self::default().answer(command, event, decision.answers, now)
    }

    /// Remembers the version of a change of the seller's sale.
    fn note_change(&mut self, event: &Event) {
        if is_change(event) {
            self.changed_at = self.version() + 1;
        }
    }

    /// A change of the sale takes effect at the version that it was made for, and only there.
    fn at_version(&self, command: &Command, event: &Event) -> Result<(), String> {
        let differs = Event::SaleChangeRefused(SaleChangeRefused {
            reason: SaleChangeRefusalReason::VersionDiffers,
        });
        let of_sale = is_change(event) || matches!(event, Event::SaleChangeRefused(_));
        let is_right = command
            .if_version
            .is_none_or(|version| version == self.changed_at);
        must(!of_sale || is_right != (*event == differs), || {
            format!(
                "it was made for version {:?} of a sale at {}, and {event:?} came of it",
                command.if_version, self.changed_at
            )
        })
    }

    /// Takes an event that is due by time alone; returns whether it was one.
    fn by_time(&mut self, event: &Event, now: TimestampMs) -> bool {
        let Some(terms) = &self.terms else {
            return false;
        };
        match event {
            Event::OrderReleased(released) if released.cause == ReleaseCause::Expired => {
                let order = &released.order;
                let due = order.hold_until_ms.is_some_and(|until| until <= now);
                let stands = self.standing.get(&order.attempt_id) == Some(order);
                if due && stands {
                    self.release(order.attempt_id, ReleaseCause::Expired);
                }
                due && stands
            }
            Event::SaleOpened if !self.opened && !self.paused && !self.closed => {
                let due = terms.opens_at_ms <= now || self.reopening;
                self.opened |= due;
                self.reopening &= !due;
                due
            }
            Event::SaleClosed if !self.closed => {
                let due = terms.closes_at_ms.is_some_and(|closes| closes <= now);
                self.closed |= due;
                due
            }
            _ => false,
        }
    }

    /// After a correction every hold that was accepted after the true time ends earlier by as much
    /// as the time was ahead, and if it has ended by then, right after it.
    fn correct_holds(&mut self, ahead_ms: i64, now: TimestampMs) {
        let held = self.standing.values_mut();
        for order in held.filter(|order| order.accepted_at_ms > now) {
            let Some(until) = &mut order.hold_until_ms else {
                continue;
            };
            *until = (*until - ahead_ms).max(now + 1);
            order.accepted_at_ms = now;
        }
    }

    /// The earliest deadline of all holds.
    pub fn idle_since(&self) -> Option<TimestampMs> {
        self.standing
            .values()
            .filter_map(|order| order.hold_until_ms)
            .min()
    }

    /// Fails when something due has not taken effect: an expired hold, an opening, a closing.
    fn overdue(&self, now: TimestampMs) -> Result<(), String> {
        let ran_out = |order: &&Order| order.hold_until_ms.is_some_and(|until| until <= now);
        if let Some(order) = self.standing.values().find(ran_out) {
            return Err(format!(
                "the hold of {} expired before {now} and was not released",
                order.attempt_id
            ));
        }
        let Some(terms) = &self.terms else {
            return Ok(());
        };
        let scheduled = !self.opened && !self.paused && !self.closed;
        must(!(scheduled && terms.opens_at_ms <= now), || {
            "the sale is due to open and has not".into()
        })?;
        let closes = terms.closes_at_ms.is_some_and(|closes| closes <= now);
        must(self.closed || !closes, || {
            "the sale is due to close and has not".into()
        })
    }

    fn answer(
        &mut self,
        command: &CommandBody,
        event: &Event,
        offset: Offset,
        now: TimestampMs,
    ) -> Result<(), String> {
        let fits = match (command, event) {
            (CommandBody::PlaceAttempt(place), Event::OrderAccepted(accepted)) => {
                let against = self.refusal(place);
                must(against.is_none(), || {
                    format!("accepted, where {against:?} holds with {:?}", self.stock)
                })?;
                let hold_ms = self.terms.as_ref().and_then(|terms| terms.hold_ms);
                must(!self.answered.contains_key(&place.attempt_id), || {
                    "it is accepted a second time".into()
                })?;
                let expected = Order {
                    attempt_id: place.attempt_id,
                    buyer_id: place.buyer_id.clone(),
                    quantity: place.quantity,
                    attempt_offset: offset,
                    accepted_at_ms: now,
                    hold_until_ms: hold_ms.map(|hold| now + hold),
                    price: self.terms.as_ref().map(|terms| terms.price.clone()),
                };
                self.accept(expected.clone());
                accepted.order == expected
            }
            (CommandBody::PlaceAttempt(place), Event::AttemptRefused(refused)) => {
                must(!self.answered.contains_key(&place.attempt_id), || {
                    "it is refused after its answer".into()
                })?;
                let justified = self.refusal(place);
                must(justified == Some(refused.reason), || {
                    format!(
                        "refused as {}, where {justified:?} holds with {:?}",
                        refused.reason, self.stock
                    )
                })?;
                // One that was made for another round has no outcome in this one.
                if refused.reason != RefusalReason::AnotherRound {
                    self.answered.insert(place.attempt_id, place.quantity);
                    self.tally.refused += 1;
                }
                (refused.attempt_id, &refused.buyer_id, refused.quantity)
                    == (place.attempt_id, &place.buyer_id, place.quantity)
            }
            (CommandBody::PlaceAttempt(place), Event::AttemptRepeated(repeated)) => {
                self.answered.get(&place.attempt_id) == Some(&place.quantity)
                    && repeated.attempt_id == place.attempt_id
            }
            (CommandBody::PlaceAttempt(place), Event::AttemptConflicted(conflicted)) => {
                let first = self.answered.get(&place.attempt_id);
                first.is_some_and(|quantity| *quantity != place.quantity)
                    && (conflicted.attempt_id, conflicted.quantity)
                        == (place.attempt_id, place.quantity)
            }
            (CommandBody::CancelOrder(cancel), Event::OrderReleased(released)) => {
                let standing = self.standing.get(&cancel.attempt_id);
                let theirs = standing.is_some_and(|order| {
                    order.buyer_id == cancel.buyer_id && *order == released.order
                });
                if theirs {
                    self.release(cancel.attempt_id, ReleaseCause::Cancelled);
                }
                theirs && released.cause == ReleaseCause::Cancelled
            }
            (CommandBody::CancelOrder(cancel), Event::CancelRefused(refused)) => {
                let reason = match self.standing.get(&cancel.attempt_id) {
                    None => Some(CancelRefusalReason::UnknownOrder),
                    Some(order) if order.buyer_id != cancel.buyer_id => {
                        Some(CancelRefusalReason::NotYours)
                    }
                    Some(_) => None,
                };
                reason == Some(refused.reason) && refused.attempt_id == cancel.attempt_id
            }
            (CommandBody::PutSale(terms), Event::SaleSet(set)) => {
                must(!self.closed, || "late terms begin a round".into())?;
                let first = self.terms.is_none();
                must(set.round == self.round + u32::from(first), || {
                    format!("round {} follows {}", set.round, self.round)
                })?;
                must(set.terms == *terms, || "the terms are others".into())?;
                self.set_terms(terms, first)
            }
            (CommandBody::BeginRound(terms), Event::SaleSet(set)) => {
                must(self.closed && set.round == self.round + 1, || {
                    format!("round {} follows {}", set.round, self.round)
                })?;
                must(set.terms == *terms, || "the terms are others".into())?;
                self.set_terms(terms, true)
            }
            (CommandBody::OpenSale, Event::SaleOpened) => {
                (self.opened, self.paused) = (true, false);
                self.is_under_way()
            }
            (CommandBody::PauseSale, Event::SalePaused) => {
                self.paused = true;
                self.is_under_way()
            }
            (CommandBody::CloseSale, Event::SaleClosed) => {
                let was = self.is_under_way();
                self.closed = true;
                was
            }
            (CommandBody::SetStock(set), Event::StockSet(event)) => {
                self.is_under_way() && event.stock == set.stock && self.set_total(set.stock)
            }
            (CommandBody::CorrectClock, Event::ClockCorrected(_)) => true,
            (command, Event::SaleChangeRefused(refused)) => {
                self.is_refused_rightly(command, refused.reason, now)
            }
            _ => false,
        };
        must(fits, || format!("{event:?} is no answer to {command:?}"))
    }

    fn is_under_way(&self) -> bool {
        self.terms.is_some() && !self.closed
    }

    /// Why an attempt cannot be accepted now, if it cannot.
    fn refusal(&self, place: &PlaceAttempt) -> Option<RefusalReason> {
        let Some(terms) = &self.terms else {
            return Some(RefusalReason::UnknownProduct);
        };
        if place.round.is_some_and(|round| round != self.round) {
            return Some(RefusalReason::AnotherRound);
        }
        let has = self.units_of(&place.buyer_id);
        let over = terms
            .limit_per_buyer
            .is_some_and(|limit| has + place.quantity > limit);
        match () {
            () if self.closed => Some(RefusalReason::Closed),
            () if self.paused => Some(RefusalReason::Paused),
            () if !self.opened => Some(RefusalReason::NotOpenYet),
            () if place.quantity == 0 => Some(RefusalReason::InvalidQuantity),
            () if over => Some(RefusalReason::OverBuyerLimit),
            () if self.stock.available == 0 => Some(RefusalReason::SoldOut),
            () if self.stock.available < place.quantity => Some(RefusalReason::NotEnoughLeft),
            () => None,
        }
    }

    fn is_refused_rightly(
        &self,
        command: &CommandBody,
        reason: SaleChangeRefusalReason,
        now: TimestampMs,
    ) -> bool {
        let committed = self.stock.reserved + self.stock.sold;
        let over = |terms: &SaleTerms| {
            let closes = terms.closes_at_ms;
            closes.is_some_and(|closes| closes <= now || closes <= terms.opens_at_ms)
        };
        match (command, reason) {
            (_, SaleChangeRefusalReason::VersionDiffers) => true,
            (CommandBody::BeginRound(_), SaleChangeRefusalReason::NoClosedRound) => !self.closed,
            (CommandBody::BeginRound(terms), SaleChangeRefusalReason::InvalidTerms) => {
                self.closed && over(terms)
            }
            (CommandBody::BeginRound(_), SaleChangeRefusalReason::HoldsOutstanding) => {
                self.closed && self.stock.reserved > 0
            }
            (CommandBody::BeginRound(_), _) => false,
            (CommandBody::PutSale(terms), SaleChangeRefusalReason::InvalidTerms) => {
                !self.closed && over(terms)
            }
            (CommandBody::PutSale(terms), SaleChangeRefusalReason::HoldsOutstanding) => {
                self.is_under_way() && self.stock.reserved > 0 && terms.hold_ms.is_none()
            }
            (CommandBody::PutSale(_), SaleChangeRefusalReason::Closed) => self.closed,
            (CommandBody::PutSale(terms), SaleChangeRefusalReason::StockBelowCommitted) => {
                self.is_under_way() && terms.stock < committed
            }
            (CommandBody::SetStock(set), SaleChangeRefusalReason::StockBelowCommitted) => {
                self.is_under_way() && set.stock < committed
            }
            (CommandBody::PutSale(_), _) => false,
            (_, SaleChangeRefusalReason::UnknownProduct) => self.terms.is_none(),
            (_, SaleChangeRefusalReason::Closed) => self.closed,
            _ => false,
        }
    }

    fn units_of(&self, buyer: &BuyerId) -> u32 {
        let theirs = self
            .standing
            .values()
            .filter(|order| order.buyer_id == *buyer);
        theirs.map(|order| order.quantity).sum()
    }

    fn accept(&mut self, order: Order) {
        self.stock.available -= order.quantity;
        match order.hold_until_ms {
            Some(_) => self.stock.reserved += order.quantity,
            None => self.stock.sold += order.quantity,
        }
        self.tally.accepted += 1;
        self.answered.insert(order.attempt_id, order.quantity);
        self.standing.insert(order.attempt_id, order);
    }

    fn release(&mut self, attempt: AttemptId, cause: ReleaseCause) {
        let Some(order) = self.standing.remove(&attempt) else {
            return;
        };
        match order.hold_until_ms {
            Some(_) => self.stock.reserved -= order.quantity,
            None => self.stock.sold -= order.quantity,
        }
        self.stock.available += order.quantity;
        match cause {
            ReleaseCause::Cancelled => self.tally.cancelled += 1,
            ReleaseCause::Expired => self.tally.expired += 1,
        }
    }

    fn set_total(&mut self, total: u32) -> bool {
        let committed = self.stock.reserved + self.stock.sold;
        if total < committed {
            return false;
        }
        (self.stock.total, self.stock.available) = (total, total - committed);
        true
    }

    fn set_terms(&mut self, terms: &SaleTerms, next_round: bool) -> bool {
        if next_round {
            if self.stock.reserved > 0 {
                return false;
            }
            let round = self.round + 1;
            let (chain, figures) = (self.chain, std::mem::take(&mut self.figures));
            let decided_at_ms = self.decided_at_ms;
            *self = Self {
                chain,
                figures,
                decided_at_ms,
                round,
                ..Self::default()
            };
        }
        let opens_at_ms = terms.opens_at_ms;
        let window_stays = self
            .terms
            .as_ref()
            .is_some_and(|before| before.opens_at_ms == opens_at_ms);
        self.reopening = self.opened && !self.paused && window_stays;
        self.opened = false;
        self.terms = Some(terms.clone());
        self.set_total(terms.stock)
    }

    /// The attempts' outcomes by a decision that was taken.
    pub fn outcomes_of(
        &self,
        partition: Partition,
        at: Offset,
        decision: &Decision,
    ) -> Vec<(AttemptId, AttemptOutcome)> {
        // An attempt that found no sale has none.
        if decision.version == 0 {
            return vec![];
        }
        let outcome = |status, reason, asked: Offset| AttemptOutcome {
            status,
            reason,
            position: (partition.0, asked.0),
            round: self.round,
            answers: decision.answers,
            version: decision.version,
            at,
        };
        let of_event = |event: &Event| match event {
            Event::OrderAccepted(accepted) => {
                let order = &accepted.order;
                let status = if order.hold_until_ms.is_some() {
                    "reserved"
                } else {
                    "sold"
                };
                Some((
                    order.attempt_id,
                    outcome(status, None, order.attempt_offset),
                ))
            }
            Event::AttemptRefused(refused) if refused.is_outcome() => Some((
                refused.attempt_id,
                outcome("refused", Some(refused.reason), decision.answers),
            )),
            Event::OrderReleased(released) => {
                let status = released.cause.as_str();
                Some((
                    released.order.attempt_id,
                    outcome(status, None, released.order.attempt_offset),
                ))
            }
            _ => None,
        };
        decision.events.iter().filter_map(of_event).collect()
    }
}
