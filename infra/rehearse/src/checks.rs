//! The invariants of a rehearsal, judged from outside: from receipts and answers alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use schemas::decision::RefusalReason;
use schemas::ids::Offset;
use serde::Serialize;

use crate::api_types::{Receipt, Status};
use crate::observations::{AttemptObservation, Failures, SaleObservation};

/// An invariant and whether it held.
#[derive(Debug, Clone, Serialize)]
pub struct Invariant {
    /// What must hold.
    pub name: &'static str,
    /// Whether it holds.
    pub holds: bool,
    /// How many times it was checked.
    pub checked: u64,
    /// How many times it was found broken.
    pub broken: u64,
    /// The first violation.
    pub first: Option<String>,
}

impl Invariant {
    fn new(name: &'static str) -> Self {
        Self {
            name,
            holds: true,
            checked: 0,
            broken: 0,
            first: None,
        }
    }

    fn check(&mut self, holds: bool, finding: impl FnOnce() -> String) {
        self.checked += 1;
        if !holds {
            self.holds = false;
            self.broken += 1;
            self.first.get_or_insert_with(finding);
        }
    }
}

/// Judges all sales. `in_order` is true if the attempts of each sale were posted one after the
/// other, in the order of their list.
pub fn judge(sales: &[SaleObservation], rejected: &Failures, in_order: bool) -> Vec<Invariant> {
    let mut invariants = vec![
        acknowledged(sales, rejected),
        answered(sales),
        same_key(sales),
        positions(sales, in_order),
        conserved(sales),
    ];
    invariants.extend(replayed(sales));
    invariants
}

fn acknowledged(sales: &[SaleObservation], rejected: &Failures) -> Invariant {
    let mut invariant = Invariant::new("the API acknowledges every order and cancellation");
    let orders = attempts(sales).count() as u64;
    let cancels = attempts(sales).filter(|(_, attempt)| attempt.cancel.is_some());
    invariant.broken = rejected.count();
    invariant.checked = orders + cancels.count() as u64 + invariant.broken;
    invariant.holds = invariant.broken == 0;
    invariant.first = rejected.first();
    invariant
}

/// Every attempt has one answer, which stays the same unless the order is cancelled.
fn answered(sales: &[SaleObservation]) -> Invariant {
    let mut invariant = Invariant::new("every attempt has one answer, which does not change");
    for (sale, attempt) in attempts(sales) {
        let finding = finding(attempt);
        invariant.check(finding.is_none(), || {
            let what = finding.unwrap_or_default();
            format!(
                "attempt {} of {}: {what}",
                attempt.receipt.attempt_id, sale.product_id
            )
        });
    }
    invariant
}

fn finding(attempt: &AttemptObservation) -> Option<String> {
    let Some(first) = &attempt.answer else {
        return Some("it has no answer".into());
    };
    let Some(last) = &attempt.at_end else {
        return Some(format!(
            "its answer was {}, but it had no answer at the end",
            first.status
        ));
    };
    if first.quantity != attempt.quantity {
        let units = attempt.quantity;
        return Some(format!(
            "{units} units were requested, but {} decided",
            first.quantity
        ));
    }
    let mut expected = first.clone();
    if attempt.cancel.is_some() {
        // The cancellation is a decision of its own, with its own time.
        expected.status = Status::Cancelled;
        expected.decided_at = last.decided_at.clone();
    }
    (*last != expected).then(|| format!("its answer was {first:?}, then {last:?}"))
}

/// The position of an attempt is that of its first receipt. It may be earlier if an earlier sending
/// was appended without a receipt. Not only buyers send again: a command API that loses its log
/// connection retries appends and may write an order twice. Such a failure shows in orders that
/// buyers had to send again.
fn same_key(sales: &[SaleObservation]) -> Invariant {
    let mut invariant =
        Invariant::new("the same key names the same attempt, at its first position");
    let resent = attempts(sales).any(|(_, attempt)| receipts(attempt).any(|r| r.resent));
    for (sale, attempt) in attempts(sales) {
        let receipts: Vec<_> = receipts(attempt).collect();
        let one_id = receipts
            .iter()
            .all(|r| r.attempt_id == attempt.receipt.attempt_id);
        let first = receipts.iter().map(|r| r.position).min();
        let decided_at = attempt.answer.as_ref().map(|answer| answer.position);
        let at_first = decided_at.is_none() || decided_at == first || resent && decided_at < first;
        invariant.check(one_id && at_first, || {
            format!(
                "{} of {}: answer for position {decided_at:?}, receipts {receipts:?}",
                attempt.buyer, sale.product_id
            )
        });
    }
    invariant
}

fn receipts(attempt: &AttemptObservation) -> impl Iterator<Item = Receipt> {
    attempt.repeated.into_iter().chain([attempt.receipt])
}

fn positions(sales: &[SaleObservation], in_order: bool) -> Invariant {
    let mut invariant = Invariant::new(match in_order {
        true => "positions follow the order of posting",
        false => "every attempt has its own position",
    });
    for sale in sales {
        let mut positions: Vec<_> = sale
            .attempts
            .iter()
            .filter_map(|attempt| Some(attempt.answer.as_ref()?.position))
            .collect();
        if !in_order {
            positions.sort_unstable();
        }
        for pair in positions.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            let holds = before.partition == after.partition && before.offset < after.offset;
            invariant.check(holds, || {
                format!("{}: {before} before {after}", sale.product_id)
            });
        }
    }
    invariant
}

/// The figures of a sale add up, and are the sums of the answers.
fn conserved(sales: &[SaleObservation]) -> Invariant {
    let mut invariant = Invariant::new("units and counts of each sale match the answers");
    for sale in sales {
        let product = &sale.product_id;
        let Some(at_end) = &sale.at_end else {
            invariant.check(false, || format!("{product}: the sale has disappeared"));
            continue;
        };
        let stock = at_end.stock;
        let sum = u64::from(stock.available) + u64::from(stock.reserved) + u64::from(stock.sold);
        invariant.check(
            u64::from(stock.total) == sum && stock.total == sale.stock,
            || {
                format!(
                    "{product}: {} units were offered, but at the end there are {stock:?}",
                    sale.stock
                )
            },
        );
        let figures = sale.figures();
        let taken = u64::from(stock.sold) + u64::from(stock.reserved);
        invariant.check(taken == figures.units, || {
            format!(
                "{product}: {} units are sold by the answers, {taken} by the sale",
                figures.units
            )
        });
        let answers = [figures.accepted, figures.refused, figures.cancelled];
        let tally = at_end.attempts;
        let counts = [tally.accepted, tally.refused, tally.cancelled];
        invariant.check(answers == counts, || {
            format!(
                "{product}: accepted, refused, cancelled: {answers:?} by the answers, {counts:?} by the sale"
            )
        });
    }
    invariant
}

/// The sums of the answers of one sale.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Attempts that got units.
    pub accepted: u64,
    /// Attempts refused.
    pub refused: u64,
    /// Orders cancelled.
    pub cancelled: u64,
    /// Units sold or held and not returned.
    pub units: u64,
}

impl SaleObservation {
    /// Adds the answers up.
    pub fn figures(&self) -> Figures {
        let mut figures = Figures::default();
        for attempt in &self.attempts {
            match attempt.answer.as_ref().map(|answer| answer.status) {
                Some(Status::Refused(_)) => figures.refused += 1,
                Some(_) => figures.accepted += 1,
                None => continue,
            }
            match attempt
                .answer
                .as_ref()
                .is_some_and(|answer| answer.status.is_accepted())
            {
                true if attempt.cancel.is_some() => figures.cancelled += 1,
                true => figures.units += u64::from(attempt.quantity),
                false => {}
            }
        }
        figures
    }
}

/// Replays each sale with one plain counter, in the order of the positions.
fn replayed(sales: &[SaleObservation]) -> [Invariant; 3] {
    let mut verdict = Verdict {
        oversold: Invariant::new("nothing is oversold"),
        undersold: Invariant::new("nobody is refused units that are available"),
        limit: Invariant::new("every buyer stays within the limit, and is refused only beyond it"),
    };
    for sale in sales {
        replay(sale, &mut verdict);
    }
    [verdict.oversold, verdict.undersold, verdict.limit]
}

struct Verdict {
    oversold: Invariant,
    undersold: Invariant,
    limit: Invariant,
}

fn replay(sale: &SaleObservation, verdict: &mut Verdict) {
    let mut commands: BTreeMap<Offset, (&AttemptObservation, bool)> = BTreeMap::new();
    for attempt in &sale.attempts {
        if let Some(answer) = &attempt.answer {
            commands.insert(answer.position.offset, (attempt, false));
        }
        if let Some(cancel) = attempt.cancel {
            commands.insert(cancel.position.offset, (attempt, true));
        }
    }
    let mut left = i64::from(sale.stock);
    let mut units_of: HashMap<Arc<str>, i64> = HashMap::new();
    for (offset, (attempt, cancels)) in commands {
        let status = attempt.answer.as_ref().map(|answer| answer.status);
        let requested = i64::from(attempt.quantity);
        let has = units_of.entry(attempt.buyer.clone()).or_default();
        let within = sale
            .limit_per_buyer
            .is_none_or(|limit| *has + requested <= i64::from(limit));
        let situation = || {
            format!(
                "{} at offset {offset}: {requested} requested, {left} left",
                sale.product_id
            )
        };
        match status {
            _ if cancels => {
                left += requested;
                *has -= requested;
            }
            Some(Status::Refused(RefusalReason::SoldOut)) => {
                verdict
                    .undersold
                    .check(left == 0, || format!("{}, sold_out", situation()));
            }
            Some(Status::Refused(RefusalReason::NotEnoughLeft)) => {
                let holds = 0 < left && left < requested;
                verdict
                    .undersold
                    .check(holds, || format!("{}, not_enough_left", situation()));
            }
            Some(Status::Refused(RefusalReason::OverBuyerLimit)) => {
                verdict
                    .limit
                    .check(!within, || format!("{}, over_buyer_limit", situation()));
            }
            Some(Status::Refused(_)) | None => {}
            Some(_) => {
                verdict
                    .oversold
                    .check(requested <= left, || format!("{}, accepted", situation()));
                let buyer = &attempt.buyer;
                verdict
                    .limit
                    .check(within, || format!("{}, accepted for {buyer}", situation()));
                left -= requested;
                *has += requested;
            }
        }
    }
}

/// How many buyers have at least one answer, and how many have units.
pub fn buyers(sales: &[SaleObservation]) -> (u64, u64) {
    let mut answered: HashSet<&str> = HashSet::new();
    let mut served: HashSet<&str> = HashSet::new();
    for (_, attempt) in attempts(sales) {
        if let Some(answer) = &attempt.answer {
            answered.insert(&attempt.buyer);
            if answer.status.is_accepted() {
                served.insert(&attempt.buyer);
            }
        }
    }
    (answered.len() as u64, served.len() as u64)
}

fn attempts(
    sales: &[SaleObservation],
) -> impl Iterator<Item = (&SaleObservation, &AttemptObservation)> {
    sales
        .iter()
        .flat_map(|sale| sale.attempts.iter().map(move |attempt| (sale, attempt)))
}

#[cfg(test)]
mod tests;
