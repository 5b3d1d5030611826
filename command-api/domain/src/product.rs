//! A product's state, and how each event changes it.

use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;

use schemas::decision::{ClockCorrected, Event, Order, ReleaseCause, Stock, Tally};
use schemas::ids::{AttemptId, BuyerId, ChainHash, TimestampMs};
use schemas::snapshot::ProductHead;

use crate::attempt_set::AttemptSet;
use crate::figures::{Figures, Phase};
use crate::hashing::{AttemptIdHash, BuyerIdHash};

/// What is known of a product after its decisions so far. A product that was never put on sale
/// is the default one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Product {
    /// Version, chain, terms, stock and the like, in the form in which a checkpoint stores them.
    pub head: ProductHead,
    /// The standing orders: those whose units are held or sold.
    pub(crate) orders: HashMap<AttemptId, Order, AttemptIdHash>,
    /// The held ones by deadline.
    pub(crate) holds: BTreeSet<(TimestampMs, AttemptId)>,
    /// The attempts of the round that have no standing order: refused or released.
    pub(crate) spent: AttemptSet,
    /// The quantities of those of `spent` that requested other than one unit.
    pub(crate) spent_quantities: HashMap<AttemptId, u32, AttemptIdHash>,
    /// Whether `spent` comes from a checkpoint without quantities. None is then known, nor kept,
    /// until the round ends.
    pub(crate) quantities_unknown: bool,
    /// Units of standing orders by buyer.
    pub(crate) units_of: HashMap<BuyerId, u32, BuyerIdHash>,
}

impl Product {
    /// Whether the attempt already has an outcome in this round.
    pub fn has_answered(&self, attempt: &AttemptId) -> bool {
        self.orders.contains_key(attempt) || self.spent.contains(attempt)
    }

    /// The quantity that an attempt with an outcome in this round requested, if it is known.
    pub fn requested(&self, attempt: &AttemptId) -> Option<u32> {
        if let Some(order) = self.orders.get(attempt) {
            return Some(order.quantity);
        }
        if self.quantities_unknown {
            return None;
        }
        Some(self.spent_quantities.get(attempt).copied().unwrap_or(1))
    }

    /// Sets the chain hash, once the last decision has been encoded. A product without a sale has none:
    /// its decisions leave nothing.
    pub fn set_chain(&mut self, chain: ChainHash) {
        if self.head.terms.is_some() {
            self.head.chain = chain;
        }
    }

    /// Remembers an attempt that has no standing order.
    fn spend(&mut self, attempt: AttemptId, quantity: u32) {
        self.spent.insert(attempt);
        if quantity != 1 && !self.quantities_unknown {
            self.spent_quantities.insert(attempt, quantity);
        }
    }

    /// Prefetches the memory in which an attempt is looked up when it is decided. Called for
    /// several attempts before the first of them is decided, it lets the processor fetch in
    /// parallel what each decision would otherwise wait for alone.
    pub fn prefetch(&self, attempt: &AttemptId) {
        black_box(self.spent.prefetch(attempt));
    }

    /// The order that an attempt became, while its units are held or sold.
    pub fn order(&self, attempt: &AttemptId) -> Option<&Order> {
        self.orders.get(attempt)
    }

    /// Units of a buyer's standing orders.
    pub fn units_of(&self, buyer: &BuyerId) -> u32 {
        self.units_of.get(buyer).copied().unwrap_or(0)
    }

    /// When the next deadline takes effect, if there is one.
    pub fn next_deadline(&self) -> Option<TimestampMs> {
        let terms = self.head.terms.as_ref()?;
        let opens = (!self.head.opened && !self.head.paused && !self.head.closed)
            .then_some(terms.opens_at_ms);
        let closes = terms.closes_at_ms.filter(|_| !self.head.closed);
        let expires = self.holds.first().map(|(deadline, _)| *deadline);
        opens.into_iter().chain(closes).chain(expires).min()
    }

    /// How many orders and answered attempts are remembered; memory grows with this number.
    pub fn remembered(&self) -> usize {
        self.orders.len() + self.spent.len()
    }

    /// What the invariants compare from one decision to the next.
    pub fn figures(&self) -> Figures {
        Figures {
            version: self.head.version,
            decided_at_ms: self.head.decided_at_ms,
            round: self.head.round,
            phase: Phase::of(
                self.head.terms.is_some(),
                self.head.opened,
                self.head.paused,
                self.head.closed,
            ),
            stock: self.head.stock,
            tally: self.head.tally,
        }
    }
}

/// Changes a product by an event.
pub fn evolve(product: &mut Product, event: &Event) {
    match event {
        Event::SaleSet(set) => {
            if set.round > product.head.round {
                begin_round(product);
            }
            product.head.round = set.round;
            // A changed window opens anew: a `SaleOpened` follows at once where it is due.
            product.head.opened = false;
            set_total(&mut product.head.stock, set.terms.stock);
            product.head.terms = Some(set.terms.clone());
        }
        Event::SaleOpened => {
            product.head.opened = true;
            product.head.paused = false;
        }
        Event::SalePaused => product.head.paused = true,
        Event::SaleClosed => product.head.closed = true,
        Event::StockSet(set) => set_total(&mut product.head.stock, set.stock),
        Event::OrderAccepted(accepted) => accept(product, &accepted.order),
        Event::AttemptRefused(refused) if refused.is_outcome() => {
            product.spend(refused.attempt_id, refused.quantity);
            product.head.tally.refused += 1;
        }
        Event::OrderReleased(released) => release(product, &released.order, released.cause),
        Event::ClockCorrected(corrected) => correct_holds(product, corrected),
        Event::AttemptRefused(_)
        | Event::AttemptRepeated(_)
        | Event::AttemptConflicted(_)
        | Event::CancelRefused(_)
        | Event::SaleChangeRefused(_) => {}
    }
}

/// Moves the holds back that were accepted at a time after the corrected one. They count as accepted
/// at the corrected time, so that the next correction does not move them once more.
fn correct_holds(product: &mut Product, corrected: &ClockCorrected) {
    for (deadline, attempt) in std::mem::take(&mut product.holds) {
        let mut deadline = deadline;
        if let Some(order) = product.orders.get_mut(&attempt)
            && order.accepted_at_ms > corrected.to_ms
        {
            deadline = corrected_deadline(deadline, corrected);
            order.accepted_at_ms = corrected.to_ms;
            order.hold_until_ms = Some(deadline);
        }
        product.holds.insert((deadline, attempt));
    }
}

/// The deadline, after a correction, of a hold that was accepted at a time after the corrected one.
/// What was left of the hold is left. One that was overdue already ends right after the correction.
fn corrected_deadline(deadline: TimestampMs, corrected: &ClockCorrected) -> TimestampMs {
    let ahead_ms = corrected.from_ms - corrected.to_ms;
    (deadline - ahead_ms).max(corrected.to_ms + 1)
}

fn begin_round(product: &mut Product) {
    product.head.paused = false;
    product.head.closed = false;
    product.head.stock = Stock::default();
    product.head.tally = Tally::default();
    product.orders = HashMap::default();
    product.holds = BTreeSet::new();
    product.spent = AttemptSet::default();
    product.spent_quantities = HashMap::default();
    product.quantities_unknown = false;
    product.units_of = HashMap::default();
}

fn set_total(stock: &mut Stock, total: u32) {
    stock.total = total;
    stock.available = total - stock.reserved - stock.sold;
}

fn accept(product: &mut Product, order: &Order) {
    product.head.stock.available -= order.quantity;
    match order.hold_until_ms {
        Some(deadline) => {
            product.head.stock.reserved += order.quantity;
            product.holds.insert((deadline, order.attempt_id));
        }
        None => product.head.stock.sold += order.quantity,
    }
    product.head.tally.accepted += 1;
    *product.units_of.entry(order.buyer_id.clone()).or_default() += order.quantity;
    product.orders.insert(order.attempt_id, order.clone());
}

fn release(product: &mut Product, order: &Order, cause: ReleaseCause) {
    match order.hold_until_ms {
        Some(deadline) => {
            product.head.stock.reserved -= order.quantity;
            product.holds.remove(&(deadline, order.attempt_id));
        }
        None => product.head.stock.sold -= order.quantity,
    }
    product.head.stock.available += order.quantity;
    match cause {
        ReleaseCause::Cancelled => product.head.tally.cancelled += 1,
        ReleaseCause::Expired => product.head.tally.expired += 1,
    }
    if let Some(units) = product.units_of.get_mut(&order.buyer_id) {
        *units -= order.quantity;
        if *units == 0 {
            product.units_of.remove(&order.buyer_id);
        }
    }
    product.orders.remove(&order.attempt_id);
    product.spend(order.attempt_id, order.quantity);
}
