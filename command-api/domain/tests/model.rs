//! Random commands at random times, decided by the core and by a naive model that was written
//! from the rules: a list of attempts that is searched from end to end each time.

use domain::invariants::Ledger;
use domain::product::Product;
use domain::{DecisionContext, absorb, answer, snapshot};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use schemas::codec::{Codec, chain_hash};
use schemas::command::{CancelOrder, Command, CommandBody, PlaceAttempt, SaleTerms, SetStock};
use schemas::decision::{
    CancelRefusalReason, Decision, DecisionRecord, Event, RefusalReason, ReleaseCause,
    SaleChangeRefusalReason, Stock, Tally,
};
use schemas::ids::{AttemptId, BuyerId, Money, Offset, TimestampMs};

/// The state of an attempt.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    Refused,
    Held(TimestampMs),
    Sold,
    Cancelled,
    Expired,
}

struct Attempt {
    id: AttemptId,
    buyer: BuyerId,
    quantity: u32,
    placed_at: TimestampMs,
    fate: Fate,
}

/// The answer to a command.
#[derive(Clone, PartialEq, Debug)]
enum Answer {
    Accepted {
        hold_until: Option<TimestampMs>,
    },
    Refused(RefusalReason),
    Repeated,
    Conflicted,
    GivenBack,
    Kept(CancelRefusalReason),
    Changed,
    Unchanged(SaleChangeRefusalReason),
    /// By how much the time was ahead.
    Corrected(i64),
    Nothing,
}

#[derive(Default)]
struct Model {
    now: TimestampMs,
    terms: Option<SaleTerms>,
    round: u32,
    total: u32,
    open: bool,
    paused: bool,
    closed: bool,
    attempts: Vec<Attempt>,
    /// Decisions so far, and how many there were at the last change of the sale.
    decisions: u64,
    changed_at: u64,
}

impl Model {
    fn units(&self, counts: impl Fn(&Attempt) -> bool) -> u32 {
        let counted = self.attempts.iter().filter(|attempt| counts(attempt));
        counted.map(|attempt| attempt.quantity).sum()
    }

    fn stock(&self) -> Stock {
        let reserved = self.units(|a| matches!(a.fate, Fate::Held(_)));
        let sold = self.units(|a| a.fate == Fate::Sold);
        Stock {
            total: self.total,
            available: self.total - reserved - sold,
            reserved,
            sold,
        }
    }

    fn tally(&self) -> Tally {
        let count =
            |is: fn(&Fate) -> bool| self.attempts.iter().filter(|a| is(&a.fate)).count() as u64;
        Tally {
            accepted: count(|fate| *fate != Fate::Refused),
            refused: count(|fate| *fate == Fate::Refused),
            cancelled: count(|fate| *fate == Fate::Cancelled),
            expired: count(|fate| *fate == Fate::Expired),
        }
    }

    /// Time passes, never back, and what is due happens.
    fn pass_time(&mut self, at: TimestampMs) {
        self.now = self.now.max(at);
        self.let_deadlines_pass();
    }

    /// The time is set back. Holds of a later time keep what was left of them.
    fn correct_clock(&mut self, at: TimestampMs) -> Answer {
        let before = self.now.max(at);
        self.now = at.max(0);
        self.let_deadlines_pass();
        for attempt in &mut self.attempts {
            if let Fate::Held(deadline) = attempt.fate
                && attempt.placed_at > self.now
            {
                attempt.placed_at = self.now;
                let left = (deadline - before).max(1);
                attempt.fate = Fate::Held(self.now + left);
            }
        }
        Answer::Corrected(before - self.now)
    }

    fn let_deadlines_pass(&mut self) {
        let Some(terms) = &self.terms else { return };
        for attempt in &mut self.attempts {
            if matches!(attempt.fate, Fate::Held(deadline) if deadline <= self.now) {
                attempt.fate = Fate::Expired;
            }
        }
        let before = (self.open, self.closed);
        if !self.paused && !self.closed && terms.opens_at_ms <= self.now {
            self.open = true;
        }
        if terms.closes_at_ms.is_some_and(|closes| closes <= self.now) {
            self.closed = true;
        }
        if before != (self.open, self.closed) {
            self.changed_at = self.decisions;
        }
    }

    fn ask(&mut self, at: TimestampMs, command: &Command) -> Answer {
        if self.terms.is_none() {
            // Nothing is left of what came before.
            *self = Model::default();
        }
        self.decisions += 1;
        if command.body == CommandBody::CorrectClock {
            return self.correct_clock(at);
        }
        self.pass_time(at);
        let of_sale = !matches!(
            command.body,
            CommandBody::PlaceAttempt(_) | CommandBody::CancelOrder(_) | CommandBody::TimeAdvanced
        );
        if let Some(version) = command.if_version
            && of_sale
            && version != self.changed_at
        {
            return Answer::Unchanged(SaleChangeRefusalReason::VersionDiffers);
        }
        let answer = self.carry_out(&command.body);
        if answer == Answer::Changed {
            self.changed_at = self.decisions;
        }
        answer
    }

    fn carry_out(&mut self, body: &CommandBody) -> Answer {
        match body {
            CommandBody::PlaceAttempt(place) => self.place(place),
            CommandBody::CancelOrder(cancel) => self.cancel(cancel),
            CommandBody::PutSale(_) if self.closed => {
                Answer::Unchanged(SaleChangeRefusalReason::Closed)
            }
            CommandBody::PutSale(terms) => self.put(terms),
            CommandBody::BeginRound(_) if !self.closed => {
                Answer::Unchanged(SaleChangeRefusalReason::NoClosedRound)
            }
            CommandBody::BeginRound(terms) => self.put(terms),
            CommandBody::TimeAdvanced | CommandBody::CorrectClock => Answer::Nothing,
            _ if self.terms.is_none() => Answer::Unchanged(SaleChangeRefusalReason::UnknownProduct),
            _ if self.closed => Answer::Unchanged(SaleChangeRefusalReason::Closed),
            CommandBody::OpenSale => {
                self.open = true;
                self.paused = false;
                Answer::Changed
            }
            CommandBody::PauseSale => {
                self.paused = true;
                Answer::Changed
            }
            CommandBody::CloseSale => {
                self.closed = true;
                Answer::Changed
            }
            CommandBody::SetStock(SetStock { stock }) if *stock > 1_000_000_000 => {
                Answer::Unchanged(SaleChangeRefusalReason::InvalidTerms)
            }
            CommandBody::SetStock(SetStock { stock }) => {
                let now = self.stock();
                if *stock < now.reserved + now.sold {
                    return Answer::Unchanged(SaleChangeRefusalReason::StockBelowCommitted);
                }
                self.total = *stock;
                Answer::Changed
            }
        }
    }

    fn place(&mut self, place: &PlaceAttempt) -> Answer {
        if self.terms.is_none() {
            return Answer::Refused(RefusalReason::UnknownProduct);
        }
        if let Some(first) = self.attempts.iter().find(|a| a.id == place.attempt_id) {
            return match first.quantity == place.quantity {
                true => Answer::Repeated,
                false => Answer::Conflicted,
            };
        }
        if place.round.is_some_and(|round| round != self.round) {
            return Answer::Refused(RefusalReason::AnotherRound);
        }
        let reason = self.reason_against(place);
        let hold_until = self.terms.as_ref().and_then(|terms| terms.hold_ms);
        let hold_until = hold_until.map(|hold| self.now + hold);
        let fate = match (reason, hold_until) {
            (Some(_), _) => Fate::Refused,
            (None, Some(deadline)) => Fate::Held(deadline),
            (None, None) => Fate::Sold,
        };
        self.attempts.push(Attempt {
            id: place.attempt_id,
            buyer: place.buyer_id.clone(),
            quantity: place.quantity,
            placed_at: self.now,
            fate,
        });
        match reason {
            Some(reason) => Answer::Refused(reason),
            None => Answer::Accepted { hold_until },
        }
    }

    fn reason_against(&self, place: &PlaceAttempt) -> Option<RefusalReason> {
        let terms = self.terms.as_ref()?;
        let most = if terms.hold_ms.is_some() {
            1_000
        } else {
            100_000
        };
        let has = self
            .units(|a| a.buyer == place.buyer_id && matches!(a.fate, Fate::Held(_) | Fate::Sold));
        let wants = u64::from(has) + u64::from(place.quantity);
        let available = self.stock().available;
        let reasons = [
            (self.closed, RefusalReason::Closed),
            (self.paused, RefusalReason::Paused),
            (!self.open, RefusalReason::NotOpenYet),
            (
                place.quantity == 0 || place.quantity > most,
                RefusalReason::InvalidQuantity,
            ),
            (
                terms
                    .limit_per_buyer
                    .is_some_and(|limit| wants > limit.into()),
                RefusalReason::OverBuyerLimit,
            ),
            (available == 0, RefusalReason::SoldOut),
            (available < place.quantity, RefusalReason::NotEnoughLeft),
        ];
        reasons
            .into_iter()
            .find(|(holds, _)| *holds)
            .map(|(_, reason)| reason)
    }

    fn cancel(&mut self, cancel: &CancelOrder) -> Answer {
        let standing = self
            .attempts
            .iter_mut()
            .find(|a| a.id == cancel.attempt_id && matches!(a.fate, Fate::Held(_) | Fate::Sold));
        match standing {
            None => Answer::Kept(CancelRefusalReason::UnknownOrder),
            Some(order) if order.buyer != cancel.buyer_id => {
                Answer::Kept(CancelRefusalReason::NotYours)
            }
            Some(order) => {
                order.fate = Fate::Cancelled;
                Answer::GivenBack
            }
        }
    }

    fn put(&mut self, terms: &SaleTerms) -> Answer {
        use SaleChangeRefusalReason::*;
        let stock = self.stock();
        let bad = terms.stock > 1_000_000_000
            || terms.limit_per_buyer == Some(0)
            || terms
                .closes_at_ms
                .is_some_and(|closes| closes <= terms.opens_at_ms)
            || terms.closes_at_ms.is_some_and(|closes| closes <= self.now);
        if bad {
            return Answer::Unchanged(InvalidTerms);
        }
        let new_round = self.terms.is_none() || self.closed;
        if stock.reserved > 0 && (new_round || terms.hold_ms.is_none()) {
            return Answer::Unchanged(HoldsOutstanding);
        }
        if new_round {
            *self = Model {
                now: self.now,
                round: self.round + 1,
                decisions: self.decisions,
                ..Model::default()
            };
        } else if terms.stock < stock.reserved + stock.sold {
            return Answer::Unchanged(StockBelowCommitted);
        }
        let same_opening = self
            .terms
            .as_ref()
            .is_some_and(|t| t.opens_at_ms == terms.opens_at_ms);
        let stays_open = self.open && same_opening;
        self.open = !self.paused && (stays_open || terms.opens_at_ms <= self.now);
        self.total = terms.stock;
        self.terms = Some(terms.clone());
        Answer::Changed
    }
}

/// The answer that a decision gives to its command.
fn answer_of(decision: &Decision, body: &CommandBody) -> Answer {
    if *body == CommandBody::TimeAdvanced {
        return Answer::Nothing;
    }
    match decision
        .events
        .last()
        .expect("every command but time is answered")
    {
        Event::OrderAccepted(event) => Answer::Accepted {
            hold_until: event.order.hold_until_ms,
        },
        Event::AttemptRefused(event) => Answer::Refused(event.reason),
        Event::AttemptRepeated(_) => Answer::Repeated,
        Event::AttemptConflicted(_) => Answer::Conflicted,
        Event::OrderReleased(event) => {
            assert_eq!(event.cause, ReleaseCause::Cancelled);
            Answer::GivenBack
        }
        Event::CancelRefused(event) => Answer::Kept(event.reason),
        Event::SaleChangeRefused(event) => Answer::Unchanged(event.reason),
        Event::ClockCorrected(event) => Answer::Corrected(event.from_ms - event.to_ms),
        _ => Answer::Changed,
    }
}

/// Everything that keeps the state of a product, side by side.
struct Run {
    codec: Codec,
    model: Model,
    product: Product,
    follower: Product,
    ledger: Ledger,
    /// The attempts that have had an outcome in the round.
    outcomes: Vec<AttemptId>,
}

impl Run {
    fn step(&mut self, offset: i64, at: TimestampMs, body: CommandBody, version: Version) {
        let command = Command {
            product_id: "p".parse().unwrap(),
            body,
            if_version: match version {
                Version::Any => None,
                Version::Current => Some(self.model.changed_at),
                Version::Before => Some(self.model.changed_at.saturating_sub(1)),
            },
        };
        let expected = self.model.ask(at, &command);
        let round = self.product.head.round;
        let context = DecisionContext {
            claim: Offset(0),
            offset: Offset(offset),
            follows: Offset(offset - 1),
            appended_at_ms: at,
        };
        let decision = answer(&mut self.product, &command, context).expect("invariants hold");
        assert_eq!(answer_of(&decision, &command.body), expected);
        assert_eq!(decision.stock, self.model.stock());
        assert_eq!(decision.tally, self.model.tally());
        assert_eq!(self.product.head.round, self.model.round);
        assert_eq!(decision.decided_at_ms, self.model.now);
        let stock = decision.stock;
        assert!(stock.sold <= stock.total);
        assert_eq!(stock.total, stock.available + stock.reserved + stock.sold);

        if self.product.head.round > round {
            self.outcomes.clear();
        }
        for event in &decision.events {
            let attempt = match event {
                Event::OrderAccepted(event) => {
                    assert_eq!(
                        event.order.attempt_offset,
                        Offset(offset),
                        "its place in the queue"
                    );
                    event.order.attempt_id
                }
                Event::AttemptRefused(event) if event.is_outcome() && decision.leaves_state() => {
                    event.attempt_id
                }
                _ => continue,
            };
            assert!(!self.outcomes.contains(&attempt), "a second outcome");
            self.outcomes.push(attempt);
        }

        let (bytes, chain) = self.codec.encode_chained(decision, self.product.head.chain);
        self.product.set_chain(chain);
        let Ok(DecisionRecord::Decision(read)) = self.codec.decode_decision(&bytes) else {
            panic!("a decision reads back as one");
        };
        absorb(&mut self.follower, &read).expect("what was decided can be absorbed");
        assert_eq!(self.follower, self.product);
        let expected_chain = chain_hash(&bytes, self.ledger.chain);
        let taken = self.ledger.record(&read, &command, at, expected_chain);
        taken.unwrap_or_else(|violation| panic!("{violation} in {read:?}"));

        let mut restored = Product::default();
        for part in snapshot::parts(&command.product_id, &self.product) {
            snapshot::restore(&mut restored, part);
        }
        assert_eq!(restored, self.product);
        assert_eq!(snapshot::check(&restored), Ok(()));
    }
}

/// The version of the sale that a change is made for.
#[derive(Clone, Copy, Debug)]
enum Version {
    Any,
    Current,
    Before,
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![
        6 => Just(Version::Any),
        2 => Just(Version::Current),
        1 => Just(Version::Before),
    ]
}

/// All times are on this grid, so that deadlines are often met to the millisecond.
const GRID_MS: i64 = 25;

fn attempt_id() -> impl Strategy<Value = AttemptId> {
    (0u128..40).prop_map(|n| {
        let spread = n.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
        AttemptId::from_bytes(spread.to_le_bytes())
    })
}

fn buyer_id() -> impl Strategy<Value = BuyerId> {
    (0u8..6).prop_map(|n| format!("buyer {n}").parse().unwrap())
}

fn quantity() -> impl Strategy<Value = u32> {
    prop_oneof![
        20 => 1u32..5,
        1 => Just(0),
        1 => prop_oneof![Just(1_000), Just(1_001), Just(100_000), Just(100_001), Just(i32::MAX as u32)],
    ]
}

fn stock() -> impl Strategy<Value = u32> {
    prop_oneof![
        20 => 0u32..16,
        1 => prop_oneof![Just(1_000_000_000), Just(1_000_000_001), Just(u32::MAX)],
    ]
}

fn terms() -> impl Strategy<Value = SaleTerms> {
    let limit = proptest::option::of(0u32..7);
    let hold = proptest::option::of((1i64..25).prop_map(|n| n * GRID_MS));
    let closes = proptest::option::weighted(0.3, (0i64..240).prop_map(|n| n * GRID_MS));
    let opens = prop_oneof![Just(0), Just(500), Just(1_000), Just(4_000)];
    (stock(), limit, hold, opens, closes).prop_map(
        |(stock, limit_per_buyer, hold_ms, opens_at_ms, closes_at_ms)| SaleTerms {
            name: "Lamp".into(),
            price: Money {
                minor: 1999,
                currency: "GBP".into(),
            },
            stock,
            limit_per_buyer,
            hold_ms,
            opens_at_ms,
            closes_at_ms,
        },
    )
}

/// The time from one command to the next, on the grid.
fn step() -> impl Strategy<Value = i64> {
    prop_oneof![60 => -2i64..8, 1 => -60i64..60]
}

/// Mostly none or one of the first rounds.
fn round() -> impl Strategy<Value = Option<u32>> {
    prop_oneof![4 => Just(None), 4 => (0u32..4).prop_map(Some)]
}

fn body() -> impl Strategy<Value = CommandBody> {
    prop_oneof![
        24 => (attempt_id(), buyer_id(), quantity(), round()).prop_map(
            |(attempt_id, buyer_id, quantity, round)| {
                CommandBody::PlaceAttempt(PlaceAttempt { attempt_id, buyer_id, quantity, round })
            }
        ),
        8 => (attempt_id(), buyer_id()).prop_map(|(attempt_id, buyer_id)| {
            CommandBody::CancelOrder(CancelOrder { attempt_id, buyer_id })
        }),
        3 => terms().prop_map(CommandBody::PutSale),
        2 => terms().prop_map(CommandBody::BeginRound),
        2 => Just(CommandBody::OpenSale),
        1 => Just(CommandBody::PauseSale),
        1 => Just(CommandBody::CloseSale),
        2 => stock().prop_map(|stock| CommandBody::SetStock(SetStock { stock })),
        3 => Just(CommandBody::TimeAdvanced),
        1 => Just(CommandBody::CorrectClock),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 256,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("regressions"))),
        ..ProptestConfig::default()
    })]

    /// Steps in time may go back a little, as a clock that is set does, and sometimes far.
    #[test]
    fn the_core_decides_as_the_model_does(
        commands in proptest::collection::vec((step(), body(), version()), 1..200)
    ) {
        let mut run = Run {
            codec: Codec::embedded(),
            model: Model::default(),
            product: Product::default(),
            follower: Product::default(),
            ledger: Ledger::default(),
            outcomes: Vec::new(),
        };
        let mut at = 500;
        for (offset, (step, body, version)) in commands.into_iter().enumerate() {
            at += step * GRID_MS;
            run.step(offset as i64, at, body, version);
        }
    }
}
