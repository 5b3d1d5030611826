//! One record of every case, with every field at a value of its own. A case that an older version has,
//! too, keeps its record: what came later has cases of its own.

use std::sync::Arc;

use schemas::codec::{Codec, DecodeError};
use schemas::command::{CancelOrder, Command, CommandBody, PlaceAttempt, SaleTerms, SetStock};
use schemas::decision::{
    AttemptConflicted, AttemptRefused, AttemptRepeated, CancelRefusalReason, CancelRefused, Claim,
    ClockCorrected, CommandKind, Decision, DecisionRecord, Event, Order, OrderAccepted,
    OrderReleased, RefusalReason, ReleaseCause, SaleChangeRefusalReason, SaleChangeRefused,
    SaleSet, Skipped, Stock, StockSet, Tally,
};
use schemas::ids::{AttemptId, ChainHash, Money, Offset, RecordHash};
use schemas::snapshot::{ProductHead, ProductPart, SnapshotRecord, SpentQuantity};
use schemas::topics::Topic;

/// A record of any topic.
#[derive(Debug, Clone, PartialEq)]
pub enum Record {
    Command(Command),
    Decision(DecisionRecord),
    Snapshot(Box<SnapshotRecord>),
}

impl Record {
    pub fn topic(&self) -> Topic {
        match self {
            Record::Command(_) => Topic::PurchaseAttempts,
            Record::Decision(_) => Topic::StockDecisions,
            Record::Snapshot(_) => Topic::ProductSnapshots,
        }
    }

    pub fn encode(&self, codec: &Codec) -> Vec<u8> {
        match self.clone() {
            Record::Command(command) => codec.encode_command(command),
            Record::Decision(decision) => codec.encode_decision(decision),
            Record::Snapshot(snapshot) => codec.encode_snapshot(&snapshot),
        }
    }
}

/// What these bytes are in this topic.
pub fn decode(codec: &Codec, topic: Topic, bytes: &[u8]) -> Result<Record, DecodeError> {
    match topic {
        Topic::PurchaseAttempts => codec.decode_command(bytes).map(Record::Command),
        Topic::StockDecisions => codec.decode_decision(bytes).map(Record::Decision),
        Topic::ProductSnapshots => codec
            .decode_snapshot(bytes)
            .map(|record| Record::Snapshot(Box::new(record))),
    }
}

/// Every case and its name.
pub fn all() -> Vec<(String, Record)> {
    let mut cases = Vec::new();
    for (name, body, if_version) in commands() {
        let record = Record::Command(Command {
            product_id: "lamp 7".parse().unwrap(),
            body,
            if_version,
        });
        cases.push((format!("command-{name}"), record));
    }
    let decider: Arc<str> = "decider-1".into();
    let claim = |partitions| {
        let decider = decider.clone();
        Record::Decision(DecisionRecord::Claim(Claim {
            decider,
            partitions,
        }))
    };
    cases.push(("claim".into(), claim(None)));
    cases.push(("claim-with-partitions".into(), claim(Some(8))));
    for (name, by) in [("skipped", None), ("skipped-by-operator", Some("carol"))] {
        let record = Record::Decision(DecisionRecord::Skipped(Skipped {
            claim: Offset(11),
            answers: Offset(12),
            follows: Offset(10),
            reason: "the record does not begin with a zero byte".into(),
            by: by.map(Into::into),
        }));
        cases.push((name.into(), record));
    }
    for (name, events) in events() {
        let record = Record::Decision(DecisionRecord::Decision(decision(events)));
        cases.push((format!("decision-{name}"), record));
    }
    for kind in CommandKind::ALL {
        let mut decision = decision(vec![]);
        decision.command = Some(*kind);
        let record = Record::Decision(DecisionRecord::Decision(decision));
        let name = format!("decision-on-{}", kind.as_str().replace('_', "-"));
        cases.push((name, record));
    }
    let snapshot = |part, log| {
        Record::Snapshot(Box::new(SnapshotRecord {
            covers: Offset(1_000),
            claim: Offset(800),
            answered: Offset(900),
            previous: Offset(17),
            first: Offset(-1),
            part,
            log,
        }))
    };
    for (name, part) in parts() {
        cases.push((format!("snapshot-{name}"), snapshot(part, None)));
    }
    let log = RecordHash(std::array::from_fn(|i| 150 + i as u8));
    cases.push(("snapshot-with-log".into(), snapshot(None, Some(log))));
    cases
}

fn id(first: u8) -> AttemptId {
    AttemptId::from_bytes(std::array::from_fn(|i| first + i as u8))
}

fn full_terms() -> SaleTerms {
    SaleTerms {
        name: "Lampe für Käthe".into(),
        price: Money {
            minor: 1_999,
            currency: "GBP".into(),
        },
        stock: 1_000_000_000,
        limit_per_buyer: Some(2),
        hold_ms: Some(600_000),
        opens_at_ms: 1_760_000_000_000,
        closes_at_ms: Some(1_760_000_600_000),
    }
}

fn least_terms() -> SaleTerms {
    SaleTerms {
        limit_per_buyer: None,
        hold_ms: None,
        closes_at_ms: None,
        ..full_terms()
    }
}

fn held_order() -> Order {
    Order {
        attempt_id: id(1),
        buyer_id: "ann@example.org".parse().unwrap(),
        quantity: 3,
        attempt_offset: Offset(42),
        accepted_at_ms: 1_760_000_000_001,
        hold_until_ms: Some(1_760_000_600_001),
        price: None,
    }
}

fn priced_order() -> Order {
    Order {
        price: Some(full_terms().price),
        ..held_order()
    }
}

fn sold_order() -> Order {
    Order {
        attempt_id: id(101),
        hold_until_ms: None,
        ..held_order()
    }
}

/// The name, the body and the version that it was made for.
fn commands() -> Vec<(&'static str, CommandBody, Option<u64>)> {
    let place = PlaceAttempt {
        attempt_id: id(1),
        buyer_id: "ann@example.org".parse().unwrap(),
        quantity: 3,
        round: None,
    };
    let of_round = PlaceAttempt {
        round: Some(4),
        ..place.clone()
    };
    let always = vec![
        ("place-attempt", CommandBody::PlaceAttempt(place)),
        (
            "place-attempt-of-round",
            CommandBody::PlaceAttempt(of_round),
        ),
        (
            "place-attempt-most",
            CommandBody::PlaceAttempt(PlaceAttempt {
                attempt_id: AttemptId::from_bytes([0xff; 16]),
                buyer_id: "b".repeat(64).parse().unwrap(),
                quantity: i32::MAX as u32,
                round: None,
            }),
        ),
        (
            "cancel-order",
            CommandBody::CancelOrder(CancelOrder {
                attempt_id: id(1),
                buyer_id: "ann@example.org".parse().unwrap(),
            }),
        ),
        ("put-sale", CommandBody::PutSale(full_terms())),
        ("put-sale-least", CommandBody::PutSale(least_terms())),
        ("open-sale", CommandBody::OpenSale),
        ("pause-sale", CommandBody::PauseSale),
        ("close-sale", CommandBody::CloseSale),
        ("set-stock", CommandBody::SetStock(SetStock { stock: 77 })),
        ("time-advanced", CommandBody::TimeAdvanced),
        ("begin-round", CommandBody::BeginRound(full_terms())),
        ("correct-clock", CommandBody::CorrectClock),
    ];
    let version = Some(1 << 40);
    let mut commands: Vec<_> = always
        .into_iter()
        .map(|(name, body)| (name, body, None))
        .collect();
    commands.push(("close-sale-of-version", CommandBody::CloseSale, version));
    commands
}

fn events() -> Vec<(&'static str, Vec<Event>)> {
    let refused = |reason: &RefusalReason| {
        Event::AttemptRefused(AttemptRefused {
            attempt_id: id(9),
            buyer_id: "bob".parse().unwrap(),
            quantity: 5,
            reason: *reason,
        })
    };
    let released = |cause: &ReleaseCause| {
        Event::OrderReleased(OrderReleased {
            order: held_order(),
            cause: *cause,
        })
    };
    let kept = |reason: &CancelRefusalReason| {
        Event::CancelRefused(CancelRefused {
            attempt_id: id(9),
            buyer_id: "bob".parse().unwrap(),
            reason: *reason,
        })
    };
    let unchanged = |reason: &SaleChangeRefusalReason| {
        Event::SaleChangeRefused(SaleChangeRefused { reason: *reason })
    };
    let terms_set = |terms| Event::SaleSet(SaleSet { terms, round: 3 });
    let accepted = |order| Event::OrderAccepted(OrderAccepted { order });
    let attempt_id = id(9);
    vec![
        ("nothing", vec![]),
        (
            "sale-set",
            vec![terms_set(full_terms()), terms_set(least_terms())],
        ),
        ("sale-opened", vec![Event::SaleOpened]),
        ("sale-paused", vec![Event::SalePaused]),
        ("sale-closed", vec![Event::SaleClosed]),
        ("stock-set", vec![Event::StockSet(StockSet { stock: 55 })]),
        (
            "order-accepted",
            vec![accepted(held_order()), accepted(sold_order())],
        ),
        ("order-accepted-with-price", vec![accepted(priced_order())]),
        (
            "attempt-refused",
            RefusalReason::ALL[..8].iter().map(refused).collect(),
        ),
        (
            "attempt-refused-of-another-round",
            vec![refused(&RefusalReason::AnotherRound)],
        ),
        (
            "attempt-repeated",
            vec![Event::AttemptRepeated(AttemptRepeated { attempt_id })],
        ),
        (
            "attempt-conflicted",
            vec![Event::AttemptConflicted(AttemptConflicted {
                attempt_id,
                quantity: 6,
            })],
        ),
        (
            "order-released",
            ReleaseCause::ALL.iter().map(released).collect(),
        ),
        (
            "cancel-refused",
            CancelRefusalReason::ALL.iter().map(kept).collect(),
        ),
        (
            "sale-change-refused",
            SaleChangeRefusalReason::ALL[..5]
                .iter()
                .map(unchanged)
                .collect(),
        ),
        (
            "sale-change-refused-of-round-and-version",
            SaleChangeRefusalReason::ALL[5..]
                .iter()
                .map(unchanged)
                .collect(),
        ),
        (
            "clock-corrected",
            vec![Event::ClockCorrected(ClockCorrected {
                from_ms: 1_760_003_600_014,
                to_ms: 1_760_000_000_014,
            })],
        ),
    ]
}

/// A decision of these events. Its figures need not follow from them: bytes have no opinion.
pub fn decision(events: Vec<Event>) -> Decision {
    Decision {
        claim: Offset(11),
        answers: Offset(12),
        follows: Offset(10),
        product_id: "lamp 7".parse().unwrap(),
        version: 13,
        decided_at_ms: 1_760_000_000_014,
        events,
        stock: Stock {
            total: 15,
            available: 4,
            reserved: 5,
            sold: 6,
        },
        tally: Tally {
            accepted: 19,
            refused: 20,
            cancelled: 21,
            expired: 22,
        },
        command: None,
        chain: ChainHash(std::array::from_fn(|i| 200 + i as u8)),
    }
}

fn parts() -> Vec<(&'static str, Option<ProductPart>)> {
    let Decision {
        product_id,
        chain,
        stock,
        tally,
        ..
    } = decision(vec![]);
    let head = ProductHead {
        version: 13,
        chain,
        decided_at_ms: 1_760_000_000_014,
        round: 3,
        terms: Some(full_terms()),
        opened: true,
        paused: false,
        closed: true,
        stock,
        tally,
        sale_version: None,
    };
    let of_version = ProductHead {
        sale_version: Some(9),
        ..head.clone()
    };
    let bare = ProductHead {
        terms: None,
        opened: false,
        paused: true,
        closed: false,
        ..head.clone()
    };
    let part = |head, orders, spent| {
        Some(ProductPart {
            product_id: product_id.clone(),
            head,
            orders,
            spent,
            spent_quantities: None,
        })
    };
    let quantities = ProductPart {
        product_id: product_id.clone(),
        head: None,
        orders: vec![priced_order()],
        spent: vec![id(50), id(60)],
        spent_quantities: Some(vec![SpentQuantity {
            attempt_id: id(60),
            quantity: 7,
        }]),
    };
    vec![
        ("complete", None),
        ("head", part(Some(head), vec![], vec![])),
        ("head-without-terms", part(Some(bare), vec![], vec![])),
        (
            "orders-and-spent",
            part(None, vec![held_order(), sold_order()], vec![id(50), id(60)]),
        ),
        ("head-of-version", part(Some(of_version), vec![], vec![])),
        ("quantities", Some(quantities)),
    ]
}
