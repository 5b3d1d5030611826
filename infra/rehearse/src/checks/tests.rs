use schemas::decision::{Stock, Tally};
use schemas::ids::{AttemptId, Offset, Partition, Position};

use super::*;
use crate::api_types::{Answer, Receipt, Sale};

fn at(offset: i64) -> Position {
    Position {
        partition: Partition(1),
        offset: Offset(offset),
    }
}

fn receipt(number: u8, offset: i64) -> Receipt {
    Receipt {
        attempt_id: AttemptId::from_bytes([number; 16]),
        position: at(offset),
        resent: false,
    }
}

fn attempt(number: u8, offset: i64, quantity: u32, status: Status) -> AttemptObservation {
    let answer = Answer {
        status,
        quantity,
        position: at(offset),
        decided_at: "then".into(),
    };
    AttemptObservation {
        buyer: format!("buyer-{number}").into(),
        quantity,
        receipt: receipt(number, offset),
        repeated: None,
        answer: Some(answer.clone()),
        cancel: None,
        at_end: Some(answer),
    }
}

/// Six units: 4 sold at 10, 3 refused at 11 with 2 left, 2 sold at 12, sold out at 13, the 4
/// cancelled at 14, 4 sold at 15.
fn sound() -> SaleObservation {
    let refused = Status::Refused;
    let mut attempts = vec![
        attempt(1, 10, 4, Status::Sold),
        attempt(2, 11, 3, refused(RefusalReason::NotEnoughLeft)),
        attempt(3, 12, 2, Status::Sold),
        attempt(4, 13, 1, refused(RefusalReason::SoldOut)),
        attempt(5, 15, 4, Status::Sold),
    ];
    attempts[0].cancel = Some(receipt(1, 14));
    attempts[0].at_end.as_mut().unwrap().status = Status::Cancelled;
    attempts[0].at_end.as_mut().unwrap().decided_at = "later".into();
    attempts[1].repeated = Some(receipt(2, 20));
    SaleObservation {
        product_id: "P".into(),
        stock: 6,
        limit_per_buyer: None,
        attempts,
        at_end: Some(Sale {
            product_id: "P".into(),
            state: "sold_out".into(),
            stock: Stock {
                total: 6,
                available: 0,
                reserved: 0,
                sold: 6,
            },
            attempts: Tally {
                accepted: 3,
                refused: 2,
                cancelled: 1,
                expired: 0,
            },
            opens_at: String::new(),
            server_time: String::new(),
        }),
    }
}

fn broken(sale: SaleObservation) -> Vec<&'static str> {
    let judged = judge(&[sale], &Failures::default(), true);
    assert!(
        judged
            .iter()
            .all(|invariant| invariant.holds == (invariant.broken == 0))
    );
    assert!(
        judged
            .iter()
            .all(|invariant| invariant.holds == invariant.first.is_none())
    );
    let broken = judged.iter().filter(|invariant| !invariant.holds);
    broken.map(|invariant| invariant.name).collect()
}

#[test]
fn a_sound_sale_breaks_nothing() {
    assert_eq!(broken(sound()), [""; 0]);
}

#[test]
fn each_thing_that_can_be_wrong_breaks_its_invariant() {
    const ANSWER: &str = "every attempt has one answer, which does not change";
    const KEY: &str = "the same key names the same attempt, at its first position";
    const ORDER: &str = "positions follow the order of posting";
    const UNITS: &str = "units and counts of each sale match the answers";
    const OVER: &str = "nothing is oversold";
    const UNDER: &str = "nobody is refused units that are available";
    const LIMIT: &str = "every buyer stays within the limit, and is refused only beyond it";
    type Spoil = fn(&mut SaleObservation);
    let cases: [(&str, Spoil, &[&str]); 13] = [
        (
            "no answer",
            |s| s.attempts[3].answer = None,
            &[ANSWER, UNITS],
        ),
        (
            "no answer at the end",
            |s| s.attempts[3].at_end = None,
            &[ANSWER],
        ),
        (
            "cancelled by nobody",
            |s| end(s, 2).status = Status::Cancelled,
            &[ANSWER],
        ),
        (
            "not cancelled",
            |s| end(s, 0).status = Status::Sold,
            &[ANSWER],
        ),
        (
            "decided again",
            |s| end(s, 2).decided_at = "later".into(),
            &[ANSWER],
        ),
        (
            "two ids",
            |s| s.attempts[1].repeated = Some(receipt(9, 20)),
            &[KEY],
        ),
        (
            "not at its first position",
            |s| s.attempts[1].receipt.position = at(9),
            &[KEY],
        ),
        ("out of order", |s| s.attempts.swap(1, 2), &[ORDER]),
        ("units vanish", |s| stock(s).available = 1, &[UNITS]),
        ("an uncounted sale", |s| stock(s).total = 7, &[UNITS]),
        (
            "oversold",
            |s| s.attempts[0].cancel = None,
            &[ANSWER, UNITS, OVER],
        ),
        ("undersold", |s| s.stock = 7, &[UNITS, UNDER]),
        ("over the limit", |s| s.limit_per_buyer = Some(3), &[LIMIT]),
    ];
    for (what, spoil, expected) in cases {
        let mut sale = sound();
        spoil(&mut sale);
        assert_eq!(broken(sale), expected, "{what}");
    }
}

#[test]
fn a_request_sent_again_may_have_its_earlier_position() {
    let mut sale = sound();
    sale.attempts[2].receipt.position = at(30);
    assert_eq!(broken(sale.clone()).len(), 1);
    sale.attempts[2].receipt.resent = true;
    assert_eq!(broken(sale.clone()), [""; 0]);
    // An instance that failed may itself have sent others again, but none to a later position.
    sale.attempts[1].receipt.position = at(31);
    assert_eq!(broken(sale.clone()), [""; 0]);
    sale.attempts[3].receipt.position = at(0);
    assert_eq!(broken(sale).len(), 1);
}

#[test]
fn a_buyer_is_refused_only_beyond_the_limit() {
    let mut sale = sound();
    sale.limit_per_buyer = Some(4);
    sale.attempts[3] = attempt(1, 13, 1, Status::Refused(RefusalReason::OverBuyerLimit));
    assert_eq!(broken(sale.clone()), [""; 0]);
    sale.attempts[3].buyer = "another".into();
    assert_eq!(broken(sale).len(), 1);
}

#[test]
fn a_rejected_order_breaks_a_rehearsal() {
    let rejected = Failures::default();
    rejected.add("400".into());
    let judged = judge(&[sound()], &rejected, true);
    assert!(!judged[0].holds);
    assert_eq!(judged[0].first.as_deref(), Some("400"));
}

fn end(sale: &mut SaleObservation, index: usize) -> &mut Answer {
    sale.attempts[index].at_end.as_mut().unwrap()
}

fn stock(sale: &mut SaleObservation) -> &mut Stock {
    &mut sale.at_end.as_mut().unwrap().stock
}
