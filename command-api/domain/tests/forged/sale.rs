//! A sale that changes as its seller did not request.

use domain::figures::Phase;
use domain::invariants::Violation;
use schemas::decision::{
    Event, OrderAccepted, SaleChangeRefusalReason, SaleChangeRefused, SaleSet,
};

use crate::history::{History, accepted, audit, forged, history, id};

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
fn nothing_is_sold_after_the_close() {
    let sold = forged(|history| {
        let mut order = accepted(&mut history[1].0.events[1]).order.clone();
        order.attempt_id = id(6);
        history[11].0.events = vec![Event::OrderAccepted(OrderAccepted { order })];
    });
    assert_eq!(sold, (11, Violation::WrongPhase(Phase::Closed)));
}
