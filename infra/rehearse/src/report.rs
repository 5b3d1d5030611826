//! The result of a rehearsal, as text for the terminal and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::sync::Mutex;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use crate::api_types::Status;
use crate::checks::{self, Invariant};
use crate::observations::{Run, SaleObservation};

/// The most products in the text; the JSON has all.
const SHOWN_PRODUCTS: usize = 20;

/// The report of a rehearsal.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Whether every invariant holds, which includes that every attempt was answered.
    pub passed: bool,
    /// Counts over all products.
    pub totals: Totals,
    /// Latencies in milliseconds.
    pub latency_ms: BTreeMap<&'static str, Percentiles>,
    /// How fast it went.
    pub rates: Rates,
    /// What was checked, and the outcome.
    pub invariants: Vec<Invariant>,
    /// Each product, in the order of the rehearsal.
    pub products: Vec<ProductFigures>,
}

/// Counts over all products.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    /// Rows of the file; 0 for a crowd.
    pub rows: u64,
    /// Attempts that the API acknowledged, each key once.
    pub attempts: u64,
    /// Attempts that have an answer.
    pub answered: u64,
    /// Buyers that have an answer.
    pub buyers_answered: u64,
    /// Buyers that got units, including those who cancelled later.
    pub buyers_served: u64,
    /// Attempts that got units.
    pub accepted: u64,
    /// Attempts refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Orders cancelled.
    pub cancelled: u64,
    /// Cancellations with no order to cancel.
    pub unmatched: u64,
    /// Rows that are neither attempts nor cancellations, by reason.
    pub skipped: BTreeMap<&'static str, u64>,
    /// Orders sent twice, with the same key, on purpose.
    pub repeated: u64,
    /// Requests sent again because the instance was overloaded or unreachable.
    pub resent: u64,
}

/// Percentiles in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Percentiles {
    /// Half are at most this.
    pub p50: f64,
    /// Nine of ten are at most this.
    pub p90: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// 999 of 1000 are at most this.
    #[serde(rename = "p99.9")]
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
    /// How many there were.
    pub count: u64,
}

/// How fast it went, from the first order to the last answer.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Rates {
    /// How long it took.
    pub seconds: f64,
    /// Attempts answered per second.
    pub attempts_per_second: f64,
}

/// The figures of one product: units as shown by its sale, counts from the answers.
#[derive(Debug, Clone, Serialize)]
pub struct ProductFigures {
    /// The product.
    pub product_id: String,
    /// Units offered.
    pub stock: u32,
    /// Units sold, or held, at the end.
    pub sold: u32,
    /// Units that nobody has at the end.
    pub available: u32,
    /// Attempts that got units.
    pub accepted: u64,
    /// Attempts refused.
    pub refused: u64,
    /// Orders cancelled.
    pub cancelled: u64,
}

impl Report {
    /// Adds up and judges the observations. `totals` has the counts that only a file has.
    pub fn new(
        run: &Run,
        sales: &[SaleObservation],
        totals: Totals,
        in_order: bool,
        took: Duration,
    ) -> Self {
        let invariants = checks::judge(sales, &run.rejected, in_order);
        let totals = add_up(run, sales, totals);
        let seconds = took.as_secs_f64();
        let latencies = [
            ("acceptance", &run.latencies.acceptance),
            ("answer", &run.latencies.answer),
        ];
        Self {
            passed: invariants.iter().all(|invariant| invariant.holds),
            latency_ms: latencies
                .map(|(name, histogram)| (name, percentiles(histogram)))
                .into(),
            rates: Rates {
                seconds,
                attempts_per_second: totals.answered as f64 / seconds.max(f64::MIN_POSITIVE),
            },
            totals,
            invariants,
            products: sales.iter().map(product_figures).collect(),
        }
    }
}

fn add_up(run: &Run, sales: &[SaleObservation], mut totals: Totals) -> Totals {
    for attempt in sales.iter().flat_map(|sale| &sale.attempts) {
        totals.attempts += 1;
        totals.repeated += u64::from(attempt.repeated.is_some());
        let Some(answer) = &attempt.answer else {
            continue;
        };
        totals.answered += 1;
        if let Status::Refused(reason) = answer.status {
            *totals.refused.entry(reason.as_str()).or_default() += 1;
        }
    }
    for figures in sales.iter().map(SaleObservation::figures) {
        totals.accepted += figures.accepted;
        totals.cancelled += figures.cancelled;
    }
    (totals.buyers_answered, totals.buyers_served) = checks::buyers(sales);
    totals.resent = run.client.resent();
    totals
}

fn product_figures(sale: &SaleObservation) -> ProductFigures {
    let figures = sale.figures();
    let stock = sale
        .at_end
        .as_ref()
        .map(|sale| sale.stock)
        .unwrap_or_default();
    ProductFigures {
        product_id: sale.product_id.to_string(),
        stock: sale.stock,
        sold: stock.sold + stock.reserved,
        available: stock.available,
        accepted: figures.accepted,
        refused: figures.refused,
        cancelled: figures.cancelled,
    }
}

fn percentiles(histogram: &Mutex<Histogram<u64>>) -> Percentiles {
    let histogram = histogram
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    let ms = |micros: u64| micros as f64 / 1000.0;
    let at = |quantile| ms(histogram.value_at_quantile(quantile));
    Percentiles {
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p99_9: at(0.999),
        max: ms(histogram.max()),
        count: histogram.len(),
    }
}

/// The text for the terminal: aligned, the verdict last.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_products(f, &self.products)?;
        write_totals(f, &self.totals)?;
        writeln!(
            f,
            "\n{:<12}{:>10}{:>10}{:>10}{:>10}{:>10}",
            "latency, ms", "p50", "p90", "p99", "p99.9", "max"
        )?;
        for (name, percentiles) in &self.latency_ms {
            let Percentiles {
                p50,
                p90,
                p99,
                p99_9,
                max,
                ..
            } = percentiles;
            writeln!(
                f,
                "{name:<12}{p50:>10.2}{p90:>10.2}{p99:>10.2}{p99_9:>10.2}{max:>10.2}"
            )?;
        }
        let Rates {
            seconds,
            attempts_per_second,
        } = self.rates;
        writeln!(
            f,
            "\n{seconds:.1} s, {attempts_per_second:.0} attempts per second\n"
        )?;
        for invariant in &self.invariants {
            let verdict = if invariant.holds { "holds " } else { "BROKEN" };
            writeln!(
                f,
                "{verdict}  {} ({} checked)",
                invariant.name, invariant.checked
            )?;
            if let Some(first) = &invariant.first {
                writeln!(f, "        {} times; the first: {first}", invariant.broken)?;
            }
        }
        f.write_str(match self.passed {
            true => "\nEvery attempt was answered, and every invariant holds.\n",
            false => "\nThis rehearsal FAILED.\n",
        })
    }
}

fn write_products(f: &mut fmt::Formatter<'_>, products: &[ProductFigures]) -> fmt::Result {
    let mut shown: Vec<_> = products.iter().collect();
    shown.sort_by_key(|product| std::cmp::Reverse(product.accepted + product.refused));
    shown.truncate(SHOWN_PRODUCTS);
    let ids = shown.iter().map(|product| product.product_id.len());
    let width = ids.max().unwrap_or_default().max("product".len());
    let mut head = format!("{:<width$}", "product");
    for column in [
        "stock",
        "sold",
        "available",
        "accepted",
        "refused",
        "cancelled",
    ] {
        write!(head, "{column:>11}")?;
    }
    writeln!(f, "{head}")?;
    for product in shown {
        write!(f, "{:<width$}", product.product_id)?;
        for units in [product.stock, product.sold, product.available] {
            write!(f, "{units:>11}")?;
        }
        for count in [product.accepted, product.refused, product.cancelled] {
            write!(f, "{count:>11}")?;
        }
        writeln!(f)?;
    }
    match products.len().saturating_sub(SHOWN_PRODUCTS) {
        0 => Ok(()),
        more => writeln!(f, "… and {more} products in lower demand"),
    }
}

fn write_totals(f: &mut fmt::Formatter<'_>, totals: &Totals) -> fmt::Result {
    writeln!(f)?;
    let mut line = |name: &str, count: u64| writeln!(f, "{name:<32}{count:>10}");
    if totals.rows > 0 {
        line("rows", totals.rows)?;
    }
    line("attempts", totals.attempts)?;
    line("  answered", totals.answered)?;
    line("  accepted", totals.accepted)?;
    for (reason, count) in &totals.refused {
        line(&format!("  refused, {reason}"), *count)?;
    }
    line("buyers answered", totals.buyers_answered)?;
    line("buyers served", totals.buyers_served)?;
    line("cancelled", totals.cancelled)?;
    if totals.rows > 0 {
        line("unmatched cancellations", totals.unmatched)?;
    }
    for (reason, count) in &totals.skipped {
        line(&format!("skipped, {reason}"), *count)?;
    }
    line("repeated with the same key", totals.repeated)?;
    line("resent after a failure", totals.resent)
}
