//! Outcomes of attempts and cancellations that the history does not give them.

use domain::absorb;
use domain::invariants::Violation;
use domain::product::Product;
use schemas::command::CommandBody;
use schemas::decision::{
    AttemptConflicted, CancelRefusalReason, CancelRefused, Event, OrderAccepted, RefusalReason,
};
use schemas::ids::Offset;

use crate::history::{
    History, accepted, audit, forged, history, id, refuse, refuse_accepted, reserve,
};

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
