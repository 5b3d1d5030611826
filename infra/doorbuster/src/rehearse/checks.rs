//! What must hold of a rehearsal, judged from outside: from receipts and answers alone.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use schemas::decision::RefusalReason;
use schemas::ids::Offset;
use serde::Serialize;

use super::said::{Receipt, Status};
use super::seen::{AttemptSeen, Complaints, SaleSeen};

/// One thing that must hold.
#[derive(Debug, Clone, Serialize)]
pub struct Invariant {
    /// What must hold.
    pub name: &'static str,
    /// Whether it does.
    pub holds: bool,
    /// How many times it was checked.
    pub checked: u64,
    /// How many times it was found broken.
    pub broken: u64,
    /// The first finding.
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

/// Judges all sales. `in_order` says that each sale's attempts were posted one after the
/// other, in the order of their list.
pub fn judge(sales: &[SaleSeen], turned_away: &Complaints, in_order: bool) -> Vec<Invariant> {
    let mut invariants = vec![
        taken(sales, turned_away),
        answered(sales),
        same_key(sales),
        in_line(sales, in_order),
        conserved(sales),
    ];
    invariants.extend(replayed(sales));
    invariants
}

fn taken(sales: &[SaleSeen], turned_away: &Complaints) -> Invariant {
    let mut invariant = Invariant::new("the door takes every order and cancelling");
    let orders = attempts(sales).count() as u64;
    let cancels = attempts(sales).filter(|(_, attempt)| attempt.cancel.is_some());
    invariant.broken = turned_away.count();
    invariant.checked = orders + cancels.count() as u64 + invariant.broken;
    invariant.holds = invariant.broken == 0;
    invariant.first = turned_away.first();
    invariant
}

/// One outcome an attempt, and the same one whenever it is read, but for what was cancelled.
fn answered(sales: &[SaleSeen]) -> Invariant {
    let mut invariant = Invariant::new("every attempt has one answer, and keeps it");
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

fn finding(attempt: &AttemptSeen) -> Option<String> {
    let Some(first) = &attempt.answer else {
        return Some("it was never answered".into());
    };
    let Some(last) = &attempt.at_end else {
        return Some(format!(
            "it was {} and had no answer at the end",
            first.status
        ));
    };
    if first.quantity != attempt.quantity {
        let units = attempt.quantity;
        return Some(format!(
            "{units} units were asked for, {} decided on",
            first.quantity
        ));
    }
    let mut expected = first.clone();
    if attempt.cancel.is_some() {
        // Cancelling is a decision of its own, with its own time.
        expected.status = Status::Cancelled;
        expected.decided_at = last.decided_at.clone();
    }
    (*last != expected).then(|| format!("it was {first:?}, then {last:?}"))
}

/// An attempt stands where its receipt says, or where an earlier sending of it does. Those are
/// not the buyers' alone: an instance that loses its log sends what is on its way again too, and
/// may so write an order twice. That it was away shows in orders that buyers had to send again.
fn same_key(sales: &[SaleSeen]) -> Invariant {
    let mut invariant = Invariant::new("the same key names the same attempt, at its first place");
    let resent = attempts(sales).any(|(_, attempt)| receipts(attempt).any(|r| r.resent));
    for (sale, attempt) in attempts(sales) {
        let receipts: Vec<_> = receipts(attempt).collect();
        let one_id = receipts
            .iter()
            .all(|r| r.attempt_id == attempt.receipt.attempt_id);
        let first = receipts.iter().map(|r| r.position).min();
        let place = attempt.answer.as_ref().map(|answer| answer.position);
        let at_first = place.is_none() || place == first || resent && place < first;
        invariant.check(one_id && at_first, || {
            format!(
                "{} of {}: answer at {place:?}, receipts {receipts:?}",
                attempt.buyer, sale.product_id
            )
        });
    }
    invariant
}

fn receipts(attempt: &AttemptSeen) -> impl Iterator<Item = Receipt> {
    attempt.repeated.into_iter().chain([attempt.receipt])
}

fn in_line(sales: &[SaleSeen], in_order: bool) -> Invariant {
    let mut invariant = Invariant::new(match in_order {
        true => "places in line follow the order of posting",
        false => "every attempt has a place in line of its own",
    });
    for sale in sales {
        let mut places: Vec<_> = sale
            .attempts
            .iter()
            .filter_map(|attempt| Some(attempt.answer.as_ref()?.position))
            .collect();
        if !in_order {
            places.sort_unstable();
        }
        for pair in places.windows(2) {
            let (before, after) = (pair[0], pair[1]);
            let holds = before.partition == after.partition && before.offset < after.offset;
            invariant.check(holds, || {
                format!("{}: {before} before {after}", sale.product_id)
            });
        }
    }
    invariant
}

/// The sale's figures add up, and are those that the answers add up to.
fn conserved(sales: &[SaleSeen]) -> Invariant {
    let mut invariant = Invariant::new("units and counts are those of the answers");
    for sale in sales {
        let product = &sale.product_id;
        let Some(at_end) = &sale.at_end else {
            invariant.check(false, || format!("{product}: the sale is gone"));
            continue;
        };
        let stock = at_end.stock;
        let sum = u64::from(stock.available) + u64::from(stock.reserved) + u64::from(stock.sold);
        invariant.check(
            u64::from(stock.total) == sum && stock.total == sale.stock,
            || {
                format!(
                    "{product}: {} units were offered, now {stock:?}",
                    sale.stock
                )
            },
        );
        let figures = sale.figures();
        let taken = u64::from(stock.sold) + u64::from(stock.reserved);
        invariant.check(taken == figures.units, || {
            format!(
                "{product}: the answers gave {} units away, the sale {taken}",
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

/// What the answers of one sale add up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Figures {
    /// Attempts that got units.
    pub accepted: u64,
    /// Attempts refused.
    pub refused: u64,
    /// Orders given back.
    pub cancelled: u64,
    /// Units given away and not given back.
    pub units: u64,
}

impl SaleSeen {
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

/// Plays each sale once more with one plain counter, in the order of the places in line.
fn replayed(sales: &[SaleSeen]) -> [Invariant; 3] {
    let mut verdict = Verdict {
        oversold: Invariant::new("nothing is oversold"),
        undersold: Invariant::new("nobody is refused units that are there"),
        limit: Invariant::new("every buyer keeps to the limit, and is refused only beyond it"),
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

fn replay(sale: &SaleSeen, verdict: &mut Verdict) {
    let mut line: BTreeMap<Offset, (&AttemptSeen, bool)> = BTreeMap::new();
    for attempt in &sale.attempts {
        if let Some(answer) = &attempt.answer {
            line.insert(answer.position.offset, (attempt, false));
        }
        if let Some(cancel) = attempt.cancel {
            line.insert(cancel.position.offset, (attempt, true));
        }
    }
    let mut left = i64::from(sale.stock);
    let mut units_of: HashMap<Arc<str>, i64> = HashMap::new();
    for (offset, (attempt, cancels)) in line {
        let status = attempt.answer.as_ref().map(|answer| answer.status);
        let asked = i64::from(attempt.quantity);
        let has = units_of.entry(attempt.buyer.clone()).or_default();
        let within = sale
            .limit_per_buyer
            .is_none_or(|limit| *has + asked <= i64::from(limit));
        let place = || {
            format!(
                "{} at offset {offset}: {asked} asked for, {left} left",
                sale.product_id
            )
        };
        match status {
            _ if cancels => {
                left += asked;
                *has -= asked;
            }
            Some(Status::Refused(RefusalReason::SoldOut)) => {
                verdict
                    .undersold
                    .check(left == 0, || format!("{}, sold_out", place()));
            }
            Some(Status::Refused(RefusalReason::NotEnoughLeft)) => {
                let holds = 0 < left && left < asked;
                verdict
                    .undersold
                    .check(holds, || format!("{}, not_enough_left", place()));
            }
            Some(Status::Refused(RefusalReason::OverBuyerLimit)) => {
                verdict
                    .limit
                    .check(!within, || format!("{}, over_buyer_limit", place()));
            }
            Some(Status::Refused(_)) | None => {}
            Some(_) => {
                verdict
                    .oversold
                    .check(asked <= left, || format!("{}, accepted", place()));
                let buyer = &attempt.buyer;
                verdict
                    .limit
                    .check(within, || format!("{}, accepted for {buyer}", place()));
                left -= asked;
                *has += asked;
            }
        }
    }
}

/// Buyers with at least one answer, and with units.
pub fn buyers(sales: &[SaleSeen]) -> (u64, u64) {
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

fn attempts(sales: &[SaleSeen]) -> impl Iterator<Item = (&SaleSeen, &AttemptSeen)> {
    sales
        .iter()
        .flat_map(|sale| sale.attempts.iter().map(move |attempt| (sale, attempt)))
}

#[cfg(test)]
mod tests;
