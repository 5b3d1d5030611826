//! Whether a retry can help after a refusal, by the current state of the sale.

use ports::read_store::{CommandRefusal, SaleRow};
use schemas::decision::{CancelRefusalReason, RefusalReason, SaleChangeRefusalReason};
use schemas::ids::TimestampMs;

use super::sales::{SaleState, state};

/// Whether a new attempt for the same may succeed.
pub(super) fn attempt_can_succeed(
    reason: RefusalReason,
    quantity: u32,
    sale: Option<&SaleRow>,
    now: TimestampMs,
) -> bool {
    let Some(sale) = sale.filter(|sale| state(sale, now) != SaleState::Closed) else {
        return false;
    };
    match reason {
        RefusalReason::NotOpenYet | RefusalReason::Paused => true,
        // Units that are held may come back.
        RefusalReason::SoldOut | RefusalReason::NotEnoughLeft => {
            u64::from(sale.stock.available) + u64::from(sale.stock.reserved) >= quantity.into()
        }
        // The limit counts the buyer's own holds, which end. Units that are sold stay the buyer's;
        // where units are held at all, those that the buyer has are most likely held, too.
        RefusalReason::OverBuyerLimit => sale
            .terms
            .limit_per_buyer
            .is_none_or(|limit| quantity <= limit && sale.stock.reserved > 0),
        // There is a sale by now, or a new round.
        RefusalReason::UnknownProduct | RefusalReason::Closed => true,
        // The same key names another attempt in the round that is current now.
        RefusalReason::AnotherRound => true,
        RefusalReason::InvalidQuantity => false,
    }
}

/// Whether the same command may succeed when it is sent again.
pub(super) fn command_can_succeed(
    reason: CommandRefusal,
    sale: Option<&SaleRow>,
    now: TimestampMs,
) -> bool {
    use SaleChangeRefusalReason as Change;
    let is_held = sale.is_some_and(|sale| sale.stock.reserved > 0);
    match reason {
        CommandRefusal::SaleChange(Change::UnknownProduct) => sale.is_some(),
        // There may be a new round.
        CommandRefusal::SaleChange(Change::Closed) => {
            sale.is_some_and(|sale| state(sale, now) != SaleState::Closed)
        }
        CommandRefusal::SaleChange(Change::InvalidTerms | Change::VersionDiffers) => false,
        CommandRefusal::SaleChange(Change::NoClosedRound) => {
            sale.is_some_and(|sale| state(sale, now) == SaleState::Closed)
        }
        // Holds end, and their units are no longer committed.
        CommandRefusal::SaleChange(Change::StockBelowCommitted) => is_held,
        CommandRefusal::SaleChange(Change::HoldsOutstanding) => true,
        CommandRefusal::Cancel(
            CancelRefusalReason::UnknownOrder | CancelRefusalReason::NotYours,
        )
        | CommandRefusal::IdempotencyConflict => false,
        // The same key names another attempt in the round that is current now.
        CommandRefusal::AnotherRound => {
            sale.is_some_and(|sale| state(sale, now) != SaleState::Closed)
        }
        // The record was damaged; a new one need not be.
        CommandRefusal::Undecodable | CommandRefusal::Skipped => true,
    }
}

#[cfg(test)]
mod tests {
    use ports::read_store::SalePhase;
    use schemas::command::SaleTerms;
    use schemas::decision::{Stock, Tally};
    use schemas::ids::Money;

    use super::*;

    const NOW: TimestampMs = 1_000_000;

    /// A sale of ten with these units available and held.
    fn sale(phase: SalePhase, available: u32, reserved: u32) -> SaleRow {
        SaleRow {
            product_id: "p".parse().unwrap(),
            version: 1,
            round: 1,
            terms: SaleTerms {
                name: "A lamp".into(),
                price: Money {
                    minor: 1999,
                    currency: "GBP".into(),
                },
                stock: 10,
                limit_per_buyer: Some(2),
                hold_ms: Some(60_000),
                opens_at_ms: 0,
                closes_at_ms: None,
            },
            phase,
            stock: Stock {
                total: 10,
                available,
                reserved,
                sold: 10 - available - reserved,
            },
            tally: Tally::default(),
            decided_at_ms: 0,
            sale_version: None,
        }
    }

    /// For each state of the sale: without a sale; open with units; all held; all sold; paused with
    /// units; closed with units held.
    fn states() -> [Option<SaleRow>; 6] {
        [
            None,
            Some(sale(SalePhase::Open, 5, 0)),
            Some(sale(SalePhase::Open, 0, 5)),
            Some(sale(SalePhase::Open, 0, 0)),
            Some(sale(SalePhase::Paused, 5, 0)),
            Some(sale(SalePhase::Closed, 0, 5)),
        ]
    }

    #[test]
    fn an_attempt_may_succeed_where_the_reason_can_pass() {
        for reason in RefusalReason::ALL {
            let expected = match reason {
                RefusalReason::UnknownProduct
                | RefusalReason::NotOpenYet
                | RefusalReason::Closed
                | RefusalReason::Paused
                | RefusalReason::AnotherRound => [false, true, true, true, true, false],
                RefusalReason::InvalidQuantity => [false; 6],
                RefusalReason::OverBuyerLimit => [false, false, true, false, false, false],
                RefusalReason::SoldOut | RefusalReason::NotEnoughLeft => {
                    [false, true, true, false, true, false]
                }
            };
            let found = states().map(|sale| attempt_can_succeed(*reason, 2, sale.as_ref(), NOW));
            assert_eq!(found, expected, "{reason}");
        }
    }

    #[test]
    fn a_quantity_that_no_hold_can_give_back_is_no_reason_to_retry() {
        let held = sale(SalePhase::Open, 1, 2);
        let more = |reason, quantity| attempt_can_succeed(reason, quantity, Some(&held), NOW);
        assert!(more(RefusalReason::NotEnoughLeft, 3));
        assert!(!more(RefusalReason::NotEnoughLeft, 4));
        // More than the limit allows at all.
        assert!(more(RefusalReason::OverBuyerLimit, 2));
        assert!(!more(RefusalReason::OverBuyerLimit, 3));
        let mut unlimited = sale(SalePhase::Open, 5, 0);
        unlimited.terms.limit_per_buyer = None;
        let reason = RefusalReason::OverBuyerLimit;
        assert!(attempt_can_succeed(reason, 3, Some(&unlimited), NOW));
        // A sale whose time is over is closed, although no decision says so yet.
        let mut over = sale(SalePhase::Open, 5, 0);
        over.terms.closes_at_ms = Some(NOW);
        assert!(!attempt_can_succeed(
            RefusalReason::SoldOut,
            1,
            Some(&over),
            NOW
        ));
    }

    #[test]
    fn a_command_may_succeed_where_the_reason_can_pass() {
        use SaleChangeRefusalReason as Change;
        for reason in CommandRefusal::all() {
            let expected = match reason {
                CommandRefusal::SaleChange(Change::UnknownProduct) => {
                    [false, true, true, true, true, true]
                }
                CommandRefusal::SaleChange(Change::Closed) | CommandRefusal::AnotherRound => {
                    [false, true, true, true, true, false]
                }
                CommandRefusal::SaleChange(Change::StockBelowCommitted) => {
                    [false, false, true, false, false, true]
                }
                CommandRefusal::SaleChange(Change::NoClosedRound) => {
                    [false, false, false, false, false, true]
                }
                CommandRefusal::SaleChange(Change::HoldsOutstanding)
                | CommandRefusal::Undecodable
                | CommandRefusal::Skipped => [true; 6],
                CommandRefusal::SaleChange(Change::InvalidTerms | Change::VersionDiffers)
                | CommandRefusal::Cancel(_)
                | CommandRefusal::IdempotencyConflict => [false; 6],
            };
            let found = states().map(|sale| command_can_succeed(reason, sale.as_ref(), NOW));
            assert_eq!(found, expected, "{}", reason.as_str());
        }
    }
}
