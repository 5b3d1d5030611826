//! Corrections of a product's time in a forged history: a ledger accepts only the one that the
//! operator's command caused, and only its effect on the holds.

use domain::invariants::{Ledger, Violation};
use domain::product::Product;
use domain::{DecisionContext, answer};
use schemas::command::{Command, CommandBody, PlaceAttempt, SaleTerms};
use schemas::decision::{ClockCorrected, Decision, Event};
use schemas::ids::{AttemptId, ChainHash, Money, Offset, TimestampMs};

/// The time at which the sale opens.
const OPENS: TimestampMs = 1_000;
/// A time that is an hour ahead.
const AHEAD: TimestampMs = OPENS + 3_600_000;

type History = Vec<(TimestampMs, Command, Decision)>;

/// A unit is held for half a second at a time that is an hour ahead; the time is corrected, and the
/// hold runs out.
fn history() -> History {
    let terms = SaleTerms {
        name: "Lamp".into(),
        price: Money {
            minor: 1999,
            currency: "GBP".into(),
        },
        stock: 3,
        limit_per_buyer: None,
        hold_ms: Some(500),
        opens_at_ms: OPENS,
        closes_at_ms: None,
    };
    let attempt = PlaceAttempt {
        attempt_id: AttemptId::from_bytes([1; 16]),
        buyer_id: "ann".parse().unwrap(),
        quantity: 1,
        round: None,
    };
    let commands = [
        (OPENS, CommandBody::PutSale(terms)),
        (AHEAD, CommandBody::PlaceAttempt(attempt)),
        (OPENS + 10, CommandBody::CorrectClock),
        (OPENS + 510, CommandBody::TimeAdvanced),
    ];
    let mut product = Product::default();
    let decide = |(offset, (at, body)): (i64, (TimestampMs, CommandBody))| {
        let context = DecisionContext {
            claim: Offset(0),
            offset: Offset(offset),
            follows: Offset(offset - 1),
            appended_at_ms: at,
        };
        let product_id = "p".parse().unwrap();
        let command = Command {
            product_id,
            body,
            if_version: None,
        };
        let decision = answer(&mut product, &command, context).unwrap();
        (at, command, decision)
    };
    (0..).zip(commands).map(decide).collect()
}

/// What a ledger finds in the history, and at which decision.
fn audit(forge: impl Fn(&mut History)) -> Result<(), (usize, Violation)> {
    let mut history = history();
    forge(&mut history);
    let mut ledger = Ledger::default();
    for (place, (at, command, decision)) in history.iter().enumerate() {
        ledger
            .record(decision, command, *at, ChainHash::default())
            .map_err(|violation| (place, violation))?;
    }
    Ok(())
}

fn corrected(history: &mut History) -> &mut ClockCorrected {
    match history[2].2.events.last_mut() {
        Some(Event::ClockCorrected(corrected)) => corrected,
        other => panic!("{other:?} is no correction"),
    }
}

#[test]
fn the_history_itself_is_valid() {
    assert_eq!(audit(|_| {}), Ok(()));
}

#[test]
fn a_time_that_falls_without_its_correction_is_noticed() {
    let (before, found) = (AHEAD, OPENS + 10);
    let back = Violation::TimeWentBack { before, found };
    assert_eq!(audit(|history| history[2].2.events.clear()), Err((2, back)));
    // A correction that no command requested is no answer.
    let found = audit(|history| history[2].1.body = CommandBody::OpenSale);
    let expected = Violation::NotTheLogsTime {
        expected: AHEAD,
        found: OPENS + 10,
    };
    assert_eq!(found, Err((2, expected)));
}

#[test]
fn a_correction_from_or_to_another_time_is_noticed() {
    let wrong = |from_ms, to_ms| {
        let corrected = ClockCorrected { from_ms, to_ms };
        Err((2, Violation::WronglyCorrected(corrected)))
    };
    let (from, to) = (AHEAD, OPENS + 10);
    let forged = audit(|history| corrected(history).from_ms += 1);
    assert_eq!(forged, wrong(from + 1, to));
    let forged = audit(|history| corrected(history).to_ms -= 1);
    assert_eq!(forged, wrong(from, to - 1));
}

#[test]
fn a_hold_that_a_correction_moved_runs_out_neither_early_nor_late() {
    let early = audit(|history| {
        history[3].0 -= 1;
        history[3].2.decided_at_ms -= 1;
    });
    assert!(
        matches!(early, Err((3, Violation::ExpiredEarly(_)))),
        "{early:?}"
    );
    let late = audit(|history| {
        let before = history[2].2.clone();
        let last = &mut history[3].2;
        last.events.clear();
        (last.stock, last.tally) = (before.stock, before.tally);
    });
    assert_eq!(late, Err((3, Violation::Overdue(OPENS + 510))));
}
