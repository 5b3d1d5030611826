//! Times that are not the log's, and deadlines that take effect too early or too late.

use domain::invariants::Violation;
use schemas::decision::{Event, RefusalReason};

use crate::history::{accepted, audit, forged, history, id, refuse, reserve};

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
