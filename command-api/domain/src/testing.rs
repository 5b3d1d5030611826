//! Given the commands before, when a command is decided, then these events happen.
//!
//! Every decision is also absorbed by a second product and checked by a [`Ledger`], and the product
//! is split into the parts of a checkpoint and restored, so each test shows that these agree.

use schemas::command::{CancelOrder, Command, CommandBody, PlaceAttempt, SaleTerms, SetStock};
use schemas::decision::{
    AttemptConflicted, AttemptRefused, AttemptRepeated, CancelRefusalReason, CancelRefused,
    ClockCorrected, Event, Order, OrderAccepted, OrderReleased, RefusalReason, ReleaseCause,
    SaleChangeRefusalReason, SaleChangeRefused, SaleSet, Stock, StockSet,
};
use schemas::ids::{AttemptId, ChainHash, Money, Offset, ProductId, TimestampMs};

use crate::invariants::Ledger;
use crate::product::Product;
use crate::{DecisionContext, absorb, answer, snapshot};

/// The moment at which [`terms`] open.
pub const OPENS: TimestampMs = 1_000;

/// A product after some commands.
#[derive(Default)]
pub struct Given {
    pub product: Product,
    shadow: Product,
    ledger: Ledger,
    offset: i64,
}

/// The events of a command, and the product after it.
pub struct Then {
    given: Given,
    events: Vec<Event>,
}

/// A product after these commands at these times. The first command has offset 0.
pub fn given(commands: impl IntoIterator<Item = (TimestampMs, CommandBody)>) -> Given {
    let nothing = Given::default();
    commands
        .into_iter()
        .fold(nothing, |given, (at, body)| given.when(at, body).given)
}

impl Given {
    /// A command is decided.
    pub fn when(self, at: TimestampMs, body: CommandBody) -> Then {
        self.when_if(at, body, None)
    }

    /// A command that was made for a version of the sale is decided.
    pub fn when_if(mut self, at: TimestampMs, body: CommandBody, version: Option<u64>) -> Then {
        let context = DecisionContext {
            claim: Offset(0),
            offset: Offset(self.offset),
            follows: Offset(self.offset - 1),
            appended_at_ms: at,
        };
        self.offset += 1;
        let command = Command {
            product_id: "p".parse().unwrap(),
            body,
            if_version: version,
        };
        let decision = answer(&mut self.product, &command, context).expect("invariants hold");
        absorb(&mut self.shadow, &decision).expect("what was decided can be absorbed");
        let taken = self
            .ledger
            .record(&decision, &command, at, ChainHash::default());
        taken.unwrap_or_else(|violation| panic!("{violation} in {decision:?}"));
        // Comparing whole products after each of thousands of commands would take minutes.
        if self.product.remembered() < 100 || self.offset % 500 == 0 {
            self.compare(&command.product_id);
        }
        Then {
            given: self,
            events: decision.events,
        }
    }

    fn compare(&self, product_id: &ProductId) {
        assert_eq!(self.shadow, self.product);
        let mut restored = Product::default();
        for part in snapshot::parts(product_id, &self.product) {
            snapshot::restore(&mut restored, part);
        }
        assert_eq!(restored, self.product);
        assert_eq!(snapshot::check(&restored), Ok(()));
    }
}

impl Then {
    /// Exactly these events happen, in this order.
    #[track_caller]
    pub fn then(self, events: impl IntoIterator<Item = Event>) -> Self {
        let expected: Vec<Event> = events.into_iter().collect();
        assert_eq!(self.events, expected);
        self
    }

    /// The product has these units.
    #[track_caller]
    pub fn stock(self, available: u32, reserved: u32, sold: u32) -> Self {
        let expected = Stock {
            total: available + reserved + sold,
            available,
            reserved,
            sold,
        };
        assert_eq!(self.given.product.head.stock, expected);
        self
    }

    /// Another command is decided.
    pub fn when(self, at: TimestampMs, body: CommandBody) -> Then {
        self.given.when(at, body)
    }

    /// Another command, which was made for a version of the sale, is decided.
    pub fn when_if(self, at: TimestampMs, body: CommandBody, version: u64) -> Then {
        self.given.when_if(at, body, Some(version))
    }

    /// The number of events.
    pub fn count(&self) -> usize {
        self.events.len()
    }

    /// The product after the command.
    pub fn product(&self) -> &Product {
        &self.given.product
    }
}

/// A sale of `stock` units sold at once, without limit, from [`OPENS`] until closed by hand.
pub fn terms(stock: u32) -> SaleTerms {
    SaleTerms {
        name: "Lamp".into(),
        price: Money {
            minor: 1999,
            currency: "GBP".into(),
        },
        stock,
        limit_per_buyer: None,
        hold_ms: None,
        opens_at_ms: OPENS,
        closes_at_ms: None,
    }
}

/// [`terms`] with units held for this long.
pub fn held(stock: u32, hold_ms: i64) -> SaleTerms {
    SaleTerms {
        hold_ms: Some(hold_ms),
        ..terms(stock)
    }
}

/// [`terms`] with a limit per buyer.
pub fn limited(stock: u32, limit: u32) -> SaleTerms {
    SaleTerms {
        limit_per_buyer: Some(limit),
        ..terms(stock)
    }
}

pub fn put(terms: SaleTerms) -> CommandBody {
    CommandBody::PutSale(terms)
}

pub fn begin_round(terms: SaleTerms) -> CommandBody {
    CommandBody::BeginRound(terms)
}

/// A product whose first command put these terms, before they open.
pub fn on_sale(terms: SaleTerms) -> Given {
    given([(0, put(terms))])
}

pub fn set_stock(stock: u32) -> CommandBody {
    CommandBody::SetStock(SetStock { stock })
}

/// The id of the attempt of this number, evenly spread as ids are.
pub fn id(number: u32) -> AttemptId {
    let spread = u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    AttemptId::from_bytes(spread.to_le_bytes())
}

pub fn attempt(number: u32, buyer: &str, quantity: u32) -> CommandBody {
    attempt_in(None, number, buyer, quantity)
}

/// An attempt that was made for a round.
pub fn attempt_in(round: Option<u32>, number: u32, buyer: &str, quantity: u32) -> CommandBody {
    CommandBody::PlaceAttempt(PlaceAttempt {
        attempt_id: id(number),
        buyer_id: buyer.parse().unwrap(),
        quantity,
        round,
    })
}

pub fn cancel(number: u32, buyer: &str) -> CommandBody {
    CommandBody::CancelOrder(CancelOrder {
        attempt_id: id(number),
        buyer_id: buyer.parse().unwrap(),
    })
}

/// An order sold at once.
pub fn sold(number: u32, buyer: &str, quantity: u32, offset: i64, at: TimestampMs) -> Order {
    Order {
        attempt_id: id(number),
        buyer_id: buyer.parse().unwrap(),
        quantity,
        attempt_offset: Offset(offset),
        accepted_at_ms: at,
        hold_until_ms: None,
        price: Some(terms(0).price),
    }
}

/// The order with its units held until a deadline.
pub fn until(order: Order, deadline: TimestampMs) -> Order {
    Order {
        hold_until_ms: Some(deadline),
        ..order
    }
}

pub fn accepted(order: Order) -> Event {
    Event::OrderAccepted(OrderAccepted { order })
}

pub fn released(order: Order, cause: ReleaseCause) -> Event {
    Event::OrderReleased(OrderReleased { order, cause })
}

pub fn refused(number: u32, buyer: &str, quantity: u32, reason: RefusalReason) -> Event {
    Event::AttemptRefused(AttemptRefused {
        attempt_id: id(number),
        buyer_id: buyer.parse().unwrap(),
        quantity,
        reason,
    })
}

pub fn repeated(number: u32) -> Event {
    let attempt_id = id(number);
    Event::AttemptRepeated(AttemptRepeated { attempt_id })
}

pub fn conflicted(number: u32, quantity: u32) -> Event {
    let attempt_id = id(number);
    Event::AttemptConflicted(AttemptConflicted {
        attempt_id,
        quantity,
    })
}

pub fn kept(number: u32, buyer: &str, reason: CancelRefusalReason) -> Event {
    Event::CancelRefused(CancelRefused {
        attempt_id: id(number),
        buyer_id: buyer.parse().unwrap(),
        reason,
    })
}

pub fn unchanged(reason: SaleChangeRefusalReason) -> Event {
    Event::SaleChangeRefused(SaleChangeRefused { reason })
}

pub fn clock_corrected(from_ms: TimestampMs, to_ms: TimestampMs) -> Event {
    Event::ClockCorrected(ClockCorrected { from_ms, to_ms })
}

pub fn sale_set(terms: SaleTerms, round: u32) -> Event {
    Event::SaleSet(SaleSet { terms, round })
}

pub fn stock_set(stock: u32) -> Event {
    Event::StockSet(StockSet { stock })
}
