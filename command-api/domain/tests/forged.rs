//! One good history, forged by hand in many ways: the ledger names each forgery. Every forged history
//! is sealed with a fresh chain, so that the chain does not give it away.

use domain::figures::Phase;
use domain::invariants::{Ledger, Violation, check_stock};
use domain::product::Product;
use domain::{DecisionContext, absorb, answer};
use schemas::codec::{Codec, chain_hash};
use schemas::command::{CancelOrder, Command, CommandBody, PlaceAttempt, SaleTerms};
use schemas::decision::{
    AttemptConflicted, AttemptRefused, CancelRefusalReason, CancelRefused, CommandKind, Decision,
    DecisionRecord, Event, OrderAccepted, RefusalReason, SaleChangeRefusalReason,
    SaleChangeRefused, SaleSet, Stock,
};
use schemas::ids::{AttemptId, ChainHash, Money, Offset};

type History = Vec<(Decision, Command)>;

fn id(number: u8) -> AttemptId {
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
fn history() -> History {
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
fn audit(
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

fn forged(forge: impl Fn(&mut History)) -> (usize, Violation) {
    let mut history = history();
    forge(&mut history);
    audit(history, 0, |_, _| {}).expect_err("the ledger accepts no forged history")
}

fn accepted(event: &mut Event) -> &mut OrderAccepted {
    match event {
        Event::OrderAccepted(accepted) => accepted,
        other => panic!("{other:?} is no acceptance"),
    }
}

/// Moves units from the stock to holds, or back if negative.
fn reserve(decision: &mut Decision, units: i32) {
    decision.stock.available = decision.stock.available.checked_add_signed(-units).unwrap();
    decision.stock.reserved = decision.stock.reserved.checked_add_signed(units).unwrap();
}

fn refuse(history: &mut History, place: usize, reason: RefusalReason) {
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
fn refuse_accepted(history: &mut History, place: usize, reason: RefusalReason) {
    refuse(history, place, reason);
    let decision = &mut history[place].0;
    reserve(decision, -1);
    decision.tally.accepted -= 1;
    decision.tally.refused += 1;
}

#[test]
fn the_history_itself_is_valid() {
    assert_eq!(audit(history(), 0, |_, _| {}), Ok(()));
}

#[test]
fn a_decision_left_out_is_a_gap() {
    let (expected, found) = (4, 5);
    let gap = Violation::VersionGap { expected, found };
    assert_eq!(forged(|history| drop(history.remove(3))), (3, gap));
}

#[test]
fn two_swapped_decisions_are_noticed() {
    let (expected, found) = (4, 5);
    let gap = Violation::VersionGap { expected, found };
    assert_eq!(forged(|history| history.swap(3, 4)), (3, gap));
    // With their versions exchanged, they no longer answer the commands at their offsets.
    let swapped = forged(|history| {
        let (third, fourth) = (history[3].0.clone(), history[4].0.clone());
        history[3].0.events = fourth.events;
        history[4].0.events = third.events;
    });
    assert_eq!(swapped, (3, Violation::AnswersSomethingElse));
}

#[test]
fn a_quantity_changed_is_noticed_with_and_without_its_figures() {
    let (place, violation) =
        forged(|history| accepted(&mut history[2].0.events[0]).order.quantity = 2);
    assert_eq!(place, 2);
    assert!(matches!(violation, Violation::StockDiffers { .. }));
    let (place, violation) = forged(|history| {
        accepted(&mut history[1].0.events[1]).order.quantity = 1;
        reserve(&mut history[1].0, -1);
    });
    assert_eq!((place, violation), (1, Violation::AnswersSomethingElse));
}

#[test]
fn an_acceptance_twice_in_a_decision_is_oversold_or_a_second_outcome() {
    let (quantity, available) = (2, 1);
    let oversold = Violation::Oversold {
        quantity,
        available,
    };
    let double = |history: &mut History, place: usize| {
        let decision = &mut history[place].0;
        let again = decision.events.last().unwrap().clone();
        decision.events.push(again);
        decision.tally.accepted += 1;
    };
    let sold_out = forged(|history| {
        accepted(&mut history[2].0.events[0]).order.quantity = 2;
        double(history, 2);
        double(history, 2);
    });
    assert_eq!(sold_out.0, 2);
    assert!(
        matches!(sold_out.1, Violation::Oversold { .. }),
        "{:?}",
        sold_out.1
    );
    let second = forged(|history| {
        double(history, 2);
        reserve(&mut history[2].0, 1);
    });
    assert_eq!(second, (2, Violation::SecondOutcome(id(2))));
    let one_too_many = forged(|history| {
        refuse(history, 3, RefusalReason::NotEnoughLeft);
        let mut order = accepted(&mut history[2].0.events[0]).order.clone();
        order.attempt_id = id(3);
        order.quantity = 2;
        history[3].0.events = vec![Event::OrderAccepted(OrderAccepted { order })];
    });
    assert_eq!(one_too_many, (3, oversold));
}

#[test]
fn an_attempt_answered_again_has_a_second_outcome() {
    let again = forged(|history| {
        refuse(history, 7, RefusalReason::OverBuyerLimit);
        history[7].0.tally.refused += 1;
    });
    assert_eq!(again, (7, Violation::SecondOutcome(id(5))));
}

#[test]
fn refusing_with_idle_stock_or_an_open_sale_is_wrong() {
    for reason in [
        RefusalReason::UnknownProduct,
        RefusalReason::NotOpenYet,
        RefusalReason::Closed,
        RefusalReason::Paused,
        RefusalReason::InvalidQuantity,
        RefusalReason::OverBuyerLimit,
        RefusalReason::SoldOut,
        RefusalReason::NotEnoughLeft,
    ] {
        let (place, violation) = forged(|history| refuse_accepted(history, 6, reason));
        assert_eq!(place, 6);
        let attempt = id(5);
        let available = 2;
        let wrong = Violation::WronglyRefused {
            attempt,
            reason,
            available,
        };
        assert_eq!(violation, wrong);
    }
}

#[test]
fn a_flipped_bit_of_any_chain_hash_breaks_the_chain() {
    for place in 0..history().len() {
        for back in 1..=32 {
            let spoiled = audit(history(), 0, |at, bytes| {
                if at == place {
                    let byte = bytes.len() - back;
                    bytes[byte] ^= 1;
                }
            });
            let (found, violation) = spoiled.unwrap_err();
            assert_eq!(found, place);
            assert!(matches!(violation, Violation::ChainBroken { .. }));
        }
    }
}

#[test]
fn a_flipped_bit_before_the_hash_breaks_the_chain_too() {
    let (place, violation) = audit(history(), 0, |at, bytes| {
        if at == 4 {
            // The last byte of the tally; the command's kind, which is null, and the hash follow.
            let byte = bytes.len() - 34;
            bytes[byte] ^= 2;
        }
    })
    .unwrap_err();
    assert_eq!(place, 4);
    assert!(matches!(violation, Violation::ChainBroken { .. }));
}

#[test]
fn another_buyer_is_noticed_when_buying_and_when_giving_back() {
    let mallory = || "mallory".parse().unwrap();
    let bought = forged(|history| accepted(&mut history[2].0.events[0]).order.buyer_id = mallory());
    assert_eq!(bought, (2, Violation::AnswersSomethingElse));
    let given_back = forged(|history| match &mut history[5].0.events[0] {
        Event::OrderReleased(released) => released.order.buyer_id = mallory(),
        other => panic!("{other:?} is no release"),
    });
    assert_eq!(given_back, (5, Violation::NoSuchOrder(id(2))));
}

#[test]
fn a_decision_that_names_another_command_is_noticed() {
    let named = |place: usize, kind| {
        let found = forged(|history| history[place].0.command = Some(kind));
        assert_eq!(found, (place, Violation::AnswersSomethingElse));
    };
    named(0, CommandKind::SetStock);
    named(1, CommandKind::CancelOrder);
    named(8, CommandKind::PutSale);
    named(9, CommandKind::OpenSale);
    let mut before_version_2 = history();
    for (decision, _) in &mut before_version_2 {
        decision.command = None;
    }
    assert_eq!(audit(before_version_2, 0, |_, _| {}), Ok(()));
}

#[test]
fn figures_that_do_not_follow_are_noticed() {
    let (place, violation) = forged(|history| history[3].0.stock.total += 1);
    assert!(matches!(
        (place, violation),
        (3, Violation::StockDiffers { .. })
    ));
    let (place, violation) = forged(|history| history[3].0.tally.refused += 1);
    assert!(matches!(
        (place, violation),
        (3, Violation::TallyDiffers { .. })
    ));
    let uneven = Stock {
        total: 3,
        available: 1,
        reserved: 1,
        sold: u32::MAX,
    };
    assert_eq!(
        check_stock(&uneven),
        Err(Violation::UnitsNotConserved(uneven))
    );
}

#[test]
fn time_that_goes_back_is_noticed() {
    let (before, found) = (1_000, 999);
    let back = Violation::TimeWentBack { before, found };
    assert_eq!(
        forged(|history| history[2].0.decided_at_ms = 999),
        (2, back)
    );
}

#[test]
fn more_than_the_limit_is_noticed() {
    let over = forged(|history| {
        let mut order = accepted(&mut history[1].0.events[1]).order.clone();
        order.attempt_id = id(4);
        order.quantity = 1;
        order.attempt_offset = Offset(4);
        let decision = &mut history[4].0;
        decision.events = vec![Event::OrderAccepted(OrderAccepted { order })];
        reserve(decision, 1);
        decision.tally.accepted += 1;
        decision.tally.refused -= 1;
    });
    let (units, limit) = (3, 2);
    assert_eq!(over, (4, Violation::OverLimit { units, limit }));
}

#[test]
fn holds_run_out_neither_early_nor_late() {
    let early = forged(|history| history[9].0.decided_at_ms = 1_499);
    assert_eq!(early, (9, Violation::ExpiredEarly(id(1))));
    let late = forged(|history| {
        let before = history[8].0.clone();
        let decision = &mut history[9].0;
        decision.events.clear();
        decision.stock = before.stock;
        decision.tally = before.tally;
    });
    assert_eq!(late, (9, Violation::Overdue(1_500)));
    let longer =
        forged(|history| accepted(&mut history[2].0.events[0]).order.hold_until_ms = Some(1_501));
    assert_eq!(longer, (2, Violation::AnswersSomethingElse));
}

#[test]
fn decisions_are_made_at_the_logs_time() {
    // The first decision is as early as can be: at 0 ms.
    let before = audit(history(), 1, |_, _| {});
    let (expected, found) = (999, 1_000);
    assert_eq!(
        before,
        Err((1, Violation::NotTheLogsTime { expected, found }))
    );
}

#[test]
fn a_sale_opens_and_closes_by_time_no_sooner_than_it_says() {
    let early = forged(|history| {
        history[1].0.decided_at_ms = 999;
        accepted(&mut history[1].0.events[1]).order.accepted_at_ms = 999;
        accepted(&mut history[1].0.events[1]).order.hold_until_ms = Some(1_499);
    });
    assert_eq!(early, (1, Violation::NotDue(999)));
    let closed = forged(|history| {
        history[3].0.events.insert(0, Event::SaleClosed);
        refuse(history, 3, RefusalReason::Closed);
    });
    assert_eq!(closed, (3, Violation::NotDue(1_000)));
    let with_terms = forged(|history| history[0].0.events.push(Event::SaleOpened));
    assert_eq!(with_terms, (0, Violation::AnswersSomethingElse));
}

#[test]
fn an_opening_that_is_due_is_not_passed_over() {
    let late = forged(|history| {
        history[1].0.events.remove(0);
        refuse(history, 1, RefusalReason::NotOpenYet);
        let decision = &mut history[1].0;
        reserve(decision, -2);
        decision.tally.accepted -= 1;
        decision.tally.refused += 1;
    });
    assert_eq!(late, (1, Violation::Overdue(1_000)));
}

#[test]
fn nothing_is_sold_after_the_close() {
    let sold = forged(|history| {
        let mut order = accepted(&mut history[1].0.events[1]).order.clone();
        order.attempt_id = id(6);
        history[11].0.events = vec![Event::OrderAccepted(OrderAccepted { order })];
    });
    assert_eq!(sold, (11, Violation::WrongPhase(Phase::Closed)));
}

#[test]
fn giving_back_is_refused_for_a_reason_that_holds() {
    let refused = forged(|history| {
        let decision = &mut history[5].0;
        decision.events = vec![Event::CancelRefused(CancelRefused {
            attempt_id: id(2),
            buyer_id: "bob".parse().unwrap(),
            reason: CancelRefusalReason::UnknownOrder,
        })];
        reserve(decision, 1);
        decision.tally.cancelled -= 1;
    });
    assert_eq!(refused, (5, Violation::CancelWronglyRefused(id(2))));
}

#[test]
fn rounds_follow_each_other_and_leave_no_holds_behind() {
    let round = |history: &mut History, place: usize, round: u32| {
        let Event::SaleSet(set) = history[0].0.events[0].clone() else {
            panic!("the history begins with its terms");
        };
        let set = SaleSet { round, ..set };
        history[place].0.events = vec![Event::SaleClosed, Event::SaleSet(set)];
    };
    let jumped = forged(|history| match &mut history[0].0.events[0] {
        Event::SaleSet(set) => set.round = 2,
        other => panic!("{other:?} are no terms"),
    });
    let (expected, found) = (1, 2);
    assert_eq!(jumped, (0, Violation::RoundGap { expected, found }));
    assert_eq!(
        forged(|history| round(history, 6, 2)),
        (6, Violation::HoldsForgotten(2))
    );
}

#[test]
fn nothing_rides_along_with_an_answer() {
    let rider = forged(|history| history[9].0.events.push(Event::SalePaused));
    assert_eq!(rider, (9, Violation::AnswersSomethingElse));
    let silent = forged(|history| history[7].0.events.clear());
    assert_eq!(silent, (7, Violation::AnswersSomethingElse));
}

#[test]
fn an_attempt_has_its_outcome_in_its_own_round_only() {
    let of_round = |history: &mut History, place: usize, round: u32| {
        let CommandBody::PlaceAttempt(attempt) = &mut history[place].1.body else {
            panic!("it is an attempt");
        };
        attempt.round = Some(round);
    };
    for place in [2, 3] {
        let elsewhere = forged(|history| of_round(history, place, 2));
        assert_eq!(elsewhere, (place, Violation::AnotherRound(id(place as u8))));
    }
    let turned_away = forged(|history| {
        refuse_accepted(history, 2, RefusalReason::AnotherRound);
        history[2].0.tally.refused -= 1;
    });
    assert_eq!(turned_away, (2, Violation::AnotherRound(id(2))));
}

#[test]
fn a_conflict_is_one_with_an_earlier_attempt_for_another_quantity() {
    let conflict = |history: &mut History, number: u8, quantity: u32| {
        let CommandBody::PlaceAttempt(attempt) = &mut history[7].1.body else {
            panic!("it is an attempt");
        };
        attempt.attempt_id = id(number);
        attempt.quantity = quantity;
        let attempt_id = id(number);
        let conflicted = AttemptConflicted {
            attempt_id,
            quantity,
        };
        history[7].0.events = vec![Event::AttemptConflicted(conflicted)];
    };
    let mut history = history();
    conflict(&mut history, 5, 2);
    assert_eq!(audit(history, 0, |_, _| {}), Ok(()));
    let same = forged(|history| conflict(history, 5, 1));
    assert_eq!(same, (7, Violation::NoConflict(id(5))));
    let with_nothing = forged(|history| conflict(history, 9, 2));
    assert_eq!(with_nothing, (7, Violation::NoConflict(id(9))));
}

#[test]
fn a_change_made_for_another_version_takes_no_effect() {
    let late = forged(|history| history[10].1.if_version = Some(1));
    assert_eq!(late, (10, Violation::AnotherVersion));
    let mut right = history();
    // The sale opened by time in the second decision.
    right[10].1.if_version = Some(2);
    assert_eq!(audit(right, 0, |_, _| {}), Ok(()));
    let refused = forged(|history| {
        history[10].0.events = vec![Event::SaleChangeRefused(SaleChangeRefused {
            reason: SaleChangeRefusalReason::VersionDiffers,
        })];
    });
    assert_eq!(refused, (10, Violation::AnswersSomethingElse));
}

#[test]
fn another_price_than_the_terms_have_is_noticed() {
    let cheaper = forged(|history| {
        let order = &mut accepted(&mut history[2].0.events[0]).order;
        order.price.as_mut().unwrap().minor = 1;
    });
    assert_eq!(cheaper, (2, Violation::AnswersSomethingElse));
    let mut before_version_2 = history();
    for place in [1, 2, 6] {
        let event = before_version_2[place].0.events.last_mut().unwrap();
        accepted(event).order.price = None;
    }
    for place in [5, 9] {
        for event in &mut before_version_2[place].0.events {
            if let Event::OrderReleased(released) = event {
                released.order.price = None;
            }
        }
    }
    assert_eq!(audit(before_version_2, 0, |_, _| {}), Ok(()));
}

/// A decider that recovers has no commands to compare with, but knows its own orders: what does
/// not fit them is refused rather than counted wrongly.
#[test]
fn what_does_not_fit_the_orders_that_stand_is_not_absorbed() {
    let absorbed = |forge: &dyn Fn(&mut History)| {
        let mut history = history();
        forge(&mut history);
        let mut product = Product::default();
        let decisions = history.iter().map(|(decision, _)| decision).enumerate();
        for (place, decision) in decisions {
            absorb(&mut product, decision).map_err(|violation| (place, violation))?;
        }
        Ok(())
    };
    assert_eq!(absorbed(&|_| {}), Ok(()));
    let other_buyer = absorbed(&|history| match &mut history[5].0.events[0] {
        Event::OrderReleased(released) => released.order.buyer_id = "mallory".parse().unwrap(),
        other => panic!("{other:?} is no release"),
    });
    assert_eq!(other_buyer, Err((5, Violation::NoSuchOrder(id(2)))));
    let sold_twice = absorbed(&|history| {
        accepted(&mut history[6].0.events[0]).order.attempt_id = id(1);
    });
    assert_eq!(sold_twice, Err((6, Violation::SecondOutcome(id(1)))));
    let refused_later = absorbed(&|history| {
        refuse(history, 7, RefusalReason::OverBuyerLimit);
        history[7].0.tally.refused += 1;
    });
    assert_eq!(refused_later, Err((7, Violation::SecondOutcome(id(5)))));
}
