//! A product's state, and how each event changes it.

use std::collections::{BTreeSet, HashMap};
use std::hint::black_box;

use schemas::command::SaleTerms;
use schemas::decision::{Event, Order, ReleaseCause, Stock, Tally};
use schemas::ids::{AttemptId, BuyerId, ChainHash, TimestampMs};

use crate::invariants::Figures;
use crate::seen::{IdIsHash, IdSet, NameHash};

/// What is known of a product after its decisions so far. A product nobody has put on sale is
/// the default one.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Product {
    /// Decisions so far.
    pub version: u64,
    /// The chain hash after them.
    pub chain: ChainHash,
    /// The time of the last one.
    pub decided_at_ms: TimestampMs,
    /// The round, from 1; 0 while there is no sale.
    pub round: u32,
    /// What is offered; none while there is no sale.
    pub terms: Option<SaleTerms>,
    /// Whether the sale has opened.
    pub opened: bool,
    /// Whether it is paused.
    pub paused: bool,
    /// Whether the round is over.
    pub closed: bool,
    /// The round's units.
    pub stock: Stock,
    /// The round's counts.
    pub tally: Tally,
    /// The orders that stand, held or sold.
    pub(crate) orders: HashMap<AttemptId, Order, IdIsHash>,
    /// The held ones by deadline.
    pub(crate) holds: BTreeSet<(TimestampMs, AttemptId)>,
    /// The attempts of the round that have no standing order: refused or released.
    pub(crate) spent: IdSet,
    /// Units of standing orders by buyer.
    pub(crate) units_of: HashMap<BuyerId, u32, NameHash>,
}

/// Where a sale stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// There is no sale.
    None,
    /// It has not opened.
    Scheduled,
    /// It takes attempts.
    Open,
    /// It refuses attempts for the time being.
    Paused,
    /// The round is over.
    Closed,
}

impl Phase {
    /// The phase that these facts make: over before paused, paused before not yet open.
    pub fn of(has_terms: bool, opened: bool, paused: bool, closed: bool) -> Self {
        match (has_terms, closed, paused, opened) {
            (false, ..) => Phase::None,
            (true, true, ..) => Phase::Closed,
            (true, false, true, _) => Phase::Paused,
            (true, false, false, false) => Phase::Scheduled,
            (true, false, false, true) => Phase::Open,
        }
    }
}

impl Product {
    /// Whether the attempt has had its answer in this round.
    pub fn has_answered(&self, attempt: &AttemptId) -> bool {
        self.orders.contains_key(attempt) || self.spent.contains(attempt)
    }

    /// Has the processor fetch where an attempt is looked for when it is decided. Asked for some
    /// attempts before the first of them is decided, it fetches side by side what each decision
    /// would wait for by itself.
    pub fn look_ahead(&self, attempt: &AttemptId) {
        black_box(self.spent.touch(attempt));
    }

    /// The order that an attempt became, while it stands.
    pub fn order(&self, attempt: &AttemptId) -> Option<&Order> {
        self.orders.get(attempt)
    }

    /// Units of a buyer's standing orders.
    pub fn units_of(&self, buyer: &BuyerId) -> u32 {
        self.units_of.get(buyer).copied().unwrap_or(0)
    }

    /// When the next deadline takes effect, if there is one.
    pub fn next_deadline(&self) -> Option<TimestampMs> {
        let terms = self.terms.as_ref()?;
        let opens = (!self.opened && !self.paused && !self.closed).then_some(terms.opens_at_ms);
        let closes = terms.closes_at_ms.filter(|_| !self.closed);
        let expires = self.holds.first().map(|(deadline, _)| *deadline);
        opens.into_iter().chain(closes).chain(expires).min()
    }

    /// How many orders and answered attempts are remembered, which is what memory goes by.
    pub fn remembered(&self) -> usize {
        self.orders.len() + self.spent.len()
    }

    /// What the invariants compare from one decision to the next.
    pub fn figures(&self) -> Figures {
        Figures {
            version: self.version,
            decided_at_ms: self.decided_at_ms,
            round: self.round,
            phase: Phase::of(self.terms.is_some(), self.opened, self.paused, self.closed),
            stock: self.stock,
            tally: self.tally,
        }
    }
}

/// Changes a product by what happened.
pub fn evolve(product: &mut Product, event: &Event) {
    match event {
        Event::SaleSet(set) => {
            if set.round > product.round {
                begin_round(product);
            }
            product.round = set.round;
            // A changed window opens anew: a `SaleOpened` follows at once where it is due.
            product.opened = false;
            set_total(&mut product.stock, set.terms.stock);
            product.terms = Some(set.terms.clone());
        }
        Event::SaleOpened => {
            product.opened = true;
            product.paused = false;
        }
        Event::SalePaused => product.paused = true,
        Event::SaleClosed => product.closed = true,
        Event::StockSet(set) => set_total(&mut product.stock, set.stock),
        Event::OrderAccepted(accepted) => accept(product, &accepted.order),
        Event::AttemptRefused(refused) => {
            product.spent.insert(refused.attempt_id);
            product.tally.refused += 1;
        }
        Event::OrderReleased(released) => release(product, &released.order, released.cause),
        Event::AttemptRepeated(_) | Event::CancelRefused(_) | Event::SaleChangeRefused(_) => {}
    }
}

fn begin_round(product: &mut Product) {
    product.paused = false;
    product.closed = false;
    product.stock = Stock::default();
    product.tally = Tally::default();
    product.orders = HashMap::default();
    product.holds = BTreeSet::new();
    product.spent = IdSet::default();
    product.units_of = HashMap::default();
}

fn set_total(stock: &mut Stock, total: u32) {
    stock.total = total;
    stock.available = total - stock.reserved - stock.sold;
}

fn accept(product: &mut Product, order: &Order) {
    product.stock.available -= order.quantity;
    match order.hold_until_ms {
        Some(deadline) => {
            product.stock.reserved += order.quantity;
            product.holds.insert((deadline, order.attempt_id));
        }
        None => product.stock.sold += order.quantity,
    }
    product.tally.accepted += 1;
    *product.units_of.entry(order.buyer_id.clone()).or_default() += order.quantity;
    product.orders.insert(order.attempt_id, order.clone());
}

fn release(product: &mut Product, order: &Order, cause: ReleaseCause) {
    match order.hold_until_ms {
        Some(deadline) => {
            product.stock.reserved -= order.quantity;
            product.holds.remove(&(deadline, order.attempt_id));
        }
        None => product.stock.sold -= order.quantity,
    }
    product.stock.available += order.quantity;
    match cause {
        ReleaseCause::Cancelled => product.tally.cancelled += 1,
        ReleaseCause::Expired => product.tally.expired += 1,
    }
    if let Some(units) = product.units_of.get_mut(&order.buyer_id) {
        *units -= order.quantity;
        if *units == 0 {
            product.units_of.remove(&order.buyer_id);
        }
    }
    product.orders.remove(&order.attempt_id);
    product.spent.insert(order.attempt_id);
}
