//! Decisions that do not follow each other, their own events, or the commands that they answer.

use domain::invariants::{Violation, check_stock};
use schemas::decision::{CommandKind, Event, Stock};

use crate::history::{accepted, audit, forged, history, reserve};

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
fn nothing_rides_along_with_an_answer() {
    let rider = forged(|history| history[9].0.events.push(Event::SalePaused));
    assert_eq!(rider, (9, Violation::AnswersSomethingElse));
    let silent = forged(|history| history[7].0.events.clear());
    assert_eq!(silent, (7, Violation::AnswersSomethingElse));
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
