//! The history, how it is forged, and its audit. Every forged history is sealed with a fresh chain, so
//! that the chain does not give it away.

use domain::invariants::{Ledger, Violation};
use domain::product::Product;
use domain::{DecisionContext, answer};
use schemas::codec::{Codec, chain_hash};
use schemas::command::{CancelOrder, Command, CommandBody, PlaceAttempt, SaleTerms};
use schemas::decision::{
    AttemptRefused, Decision, DecisionRecord, Event, OrderAccepted, RefusalReason,
};
use schemas::ids::{AttemptId, ChainHash, Money, Offset};

pub type History = Vec<(Decision, Command)>;

pub fn id(number: u8) -> AttemptId {
    AttemptId::from_bytes([number; 16])
}

fn attempt(number: u8, buyer: &str, quantity: u32) -> CommandBody {
    CommandBody::PlaceAttempt(PlaceAttempt {
        attempt_id: id(number),
        buyer_id: buyer.parse().unwrap(),
        quantity,
        round: None,
    })
}

fn cancel(number: u8, buyer: &str) -> CommandBody {
    CommandBody::CancelOrder(CancelOrder {
        attempt_id: id(number),
        buyer_id: buyer.parse().unwrap(),
    })
}

/// Four units, two a buyer, held for 500 ms, on sale from 1,000 ms.
pub fn history() -> History {
    let terms = SaleTerms {
        name: "Lamp".into(),
        price: Money {
            minor: 1999,
            currency: "GBP".into(),
        },
        stock: 4,
        limit_per_buyer: Some(2),
        hold_ms: Some(500),
        opens_at_ms: 1_000,
        closes_at_ms: None,
    };
    let commands = [
        (0, CommandBody::PutSale(terms)),
        (1_000, attempt(1, "ann", 2)),      // 1: opened, accepted
        (1_000, attempt(2, "bob", 1)),      // 2: accepted
        (1_000, attempt(3, "cy", 2)),       // 3: not enough left
        (1_000, attempt(4, "ann", 1)),      // 4: over the limit
        (1_000, cancel(2, "bob")),          // 5: cancelled
        (1_001, attempt(5, "cy", 1)),       // 6: accepted, one is left
        (1_001, attempt(5, "cy", 1)),       // 7: repeated
        (1_001, cancel(1, "eve")),          // 8: not hers
        (1_501, CommandBody::TimeAdvanced), // 9: both holds run out
        (1_600, CommandBody::CloseSale),    // 10
        (1_600, attempt(6, "ann", 1)),      // 11: closed
    ];
    let mut product = Product::default();
    let mut offset = -1;
    let decide = |(at, body)| {
        offset += 1;
        let command = Command {
            product_id: "p".parse().unwrap(),
            body,
            if_version: None,
        };
        let context = DecisionContext {
            claim: Offset(0),
            offset: Offset(offset),
            follows: Offset(offset - 1),
            appended_at_ms: at,
        };
        let decision = answer(&mut product, &command, context).unwrap();
        (decision, command)
    };
    commands.into_iter().map(decide).collect()
}

/// Seals the history with its chain and checks it with a ledger; `spoil` may change each record's
/// bytes before that. The log's time is `behind_ms` behind the decisions' time.
pub fn audit(
    history: History,
    behind_ms: i64,
    spoil: impl Fn(usize, &mut Vec<u8>),
) -> Result<(), (usize, Violation)> {
    let codec = Codec::embedded();
    let mut ledger = Ledger::default();
    let mut sealed = ChainHash::default();
    for (place, (decision, command)) in history.into_iter().enumerate() {
        let (mut bytes, chain) = codec.encode_chained(decision, sealed);
        sealed = chain;
        spoil(place, &mut bytes);
        let Ok(DecisionRecord::Decision(decision)) = codec.decode_decision(&bytes) else {
            panic!("a decision reads back as one");
        };
        let expected = chain_hash(&bytes, ledger.chain);
        let appended_at_ms = decision.decided_at_ms - behind_ms;
        ledger
            .record(&decision, &command, appended_at_ms, expected)
            .map_err(|violation| (place, violation))?;
    }
    Ok(())
}

pub fn forged(forge: impl Fn(&mut History)) -> (usize, Violation) {
    let mut history = history();
    forge(&mut history);
    audit(history, 0, |_, _| {}).expect_err("the ledger accepts no forged history")
}

pub fn accepted(event: &mut Event) -> &mut OrderAccepted {
    match event {
        Event::OrderAccepted(accepted) => accepted,
        other => panic!("{other:?} is no acceptance"),
    }
}

/// Moves units from the stock to holds, or back if negative.
pub fn reserve(decision: &mut Decision, units: i32) {
    decision.stock.available = decision.stock.available.checked_add_signed(-units).unwrap();
    decision.stock.reserved = decision.stock.reserved.checked_add_signed(units).unwrap();
}

pub fn refuse(history: &mut History, place: usize, reason: RefusalReason) {
    let (decision, command) = &mut history[place];
    let CommandBody::PlaceAttempt(attempt) = &command.body else {
        panic!("{command:?} is no attempt");
    };
    *decision.events.last_mut().unwrap() = Event::AttemptRefused(AttemptRefused {
        attempt_id: attempt.attempt_id,
        buyer_id: attempt.buyer_id.clone(),
        quantity: attempt.quantity,
        reason,
    });
}

/// Turns the acceptance of one unit into a refusal with consistent figures.
pub fn refuse_accepted(history: &mut History, place: usize, reason: RefusalReason) {
    refuse(history, place, reason);
    let decision = &mut history[place].0;
    reserve(decision, -1);
    decision.tally.accepted -= 1;
    decision.tally.refused += 1;
}
