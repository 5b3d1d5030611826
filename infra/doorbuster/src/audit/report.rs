//! What an audit found: for people on the terminal, for programs as JSON.

use std::collections::BTreeMap;
use std::fmt;

use schemas::decision::Stock;
use schemas::ids::{Offset, Partition, ProductId};
use serde::Serialize;

/// What an audit found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The first thing that does not hold; none when everything looked at does.
    pub violation: Option<Breach>,
    /// How the read models compare.
    pub read_models: ReadModels,
    /// The partitions looked at; the last up to the violation if there is one.
    pub partitions: Vec<PartitionFigures>,
    /// Counts over all products looked at.
    pub totals: Totals,
    /// How many products were looked at.
    pub products: u64,
    /// The head of each product's chain, by product.
    pub heads: Vec<Head>,
}

/// Something that does not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breach {
    /// Where; for a row, the attempt's place in line. None for a sale's row.
    pub place: Option<Place>,
    /// The product.
    pub product: Option<ProductId>,
    /// What does not hold.
    pub what: String,
}

/// A place in a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The topic's name.
    pub topic: &'static str,
    /// The partition.
    pub partition: Partition,
    /// The offset in it.
    pub offset: Offset,
}

/// What was seen of a partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionFigures {
    /// The partition.
    pub partition: Partition,
    /// Records of log 1.
    pub records: u64,
    /// Decisions that count.
    pub decisions: u64,
    /// Decisions that do not.
    pub dropped: u64,
    /// Claims of deciders.
    pub claims: u64,
    /// Records at the end of log 1 that are not decided yet.
    pub undecided: u64,
    /// Decisions at the end of log 2 that are not in the read models yet.
    pub not_applied: u64,
}

/// Counts over all products looked at.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    /// Attempts with a decision.
    pub attempts: u64,
    /// Those that got units.
    pub accepted: u64,
    /// Those that were refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Those that came again.
    pub repeated: u64,
    /// Orders given back.
    pub cancelled: u64,
    /// Holds that ran out.
    pub expired: u64,
    /// The products' units at the end.
    pub units: Units,
}

/// Units of many products, each as its last round has them.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Units {
    /// Units of the rounds.
    pub total: u64,
    /// Units nobody has.
    pub available: u64,
    /// Units held.
    pub reserved: u64,
    /// Units sold.
    pub sold: u64,
}

/// The head of a product's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Head {
    /// The product.
    pub product_id: ProductId,
    /// Its partition.
    pub partition: Partition,
    /// Its decisions.
    pub version: u64,
    /// The hash over all of them, in hexadecimal digits.
    pub chain: String,
}

/// How the read models compare with what the decisions make.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ReadModels {
    /// They are equal.
    Equal {
        /// What was compared, by kind of row.
        rows: BTreeMap<&'static str, RowDigest>,
    },
    /// They differ; the report's violation says where first.
    Differ,
    /// They could not be compared, or not to the end.
    NotCompared {
        /// Why.
        why: String,
    },
}

/// The rows of a kind.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RowDigest {
    /// How many there are.
    pub count: u64,
    /// The sum of their SHA-256, each taken as four 64-bit numbers, in hexadecimal digits.
    pub digest: String,
}

impl Default for ReadModels {
    fn default() -> Self {
        Self::NotCompared {
            why: "the audit did not get that far".to_owned(),
        }
    }
}

impl PartitionFigures {
    /// A partition of which nothing was seen yet.
    pub fn new(partition: Partition) -> Self {
        let (records, decisions, dropped, claims) = (0, 0, 0, 0);
        let (undecided, not_applied) = (0, 0);
        Self {
            partition,
            records,
            decisions,
            dropped,
            claims,
            undecided,
            not_applied,
        }
    }
}

impl Units {
    /// Adds a product's.
    pub fn add(&mut self, stock: &Stock) {
        self.total += u64::from(stock.total);
        self.available += u64::from(stock.available);
        self.reserved += u64::from(stock.reserved);
        self.sold += u64::from(stock.sold);
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(Place {
            topic,
            partition,
            offset,
        }) = &self.place
        {
            write!(f, "{topic}, partition {partition}, offset {offset}, ")?;
        }
        if let Some(product) = &self.product {
            write!(f, "product {product}, ")?;
        }
        write!(f, "does not hold: {}", self.what)
    }
}

impl Report {
    /// For people: the verdict last; with the heads of all chains if asked for.
    pub fn summary(&self, heads: bool) -> Summary<'_> {
        Summary {
            report: self,
            heads,
        }
    }
}

/// A report on its way to the terminal.
pub struct Summary<'a> {
    report: &'a Report,
    heads: bool,
}

impl fmt::Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report;
        write_partitions(f, &report.partitions)?;
        write_totals(f, report)?;
        if self.heads {
            writeln!(f, "\nheads of the chains")?;
            for Head {
                product_id,
                version,
                chain,
                ..
            } in &report.heads
            {
                writeln!(f, "{chain}  {version:>10}  {product_id}")?;
            }
        }
        writeln!(f)?;
        let (undecided, not_applied) = report
            .partitions
            .iter()
            .fold((0, 0), |(undecided, not_applied), of| {
                (undecided + of.undecided, not_applied + of.not_applied)
            });
        if undecided > 0 {
            writeln!(
                f,
                "{undecided} records at the end of purchase-attempts are not decided yet."
            )?;
        }
        let compared = matches!(report.read_models, ReadModels::Equal { .. });
        if compared && not_applied > 0 {
            writeln!(f, "{not_applied} decisions are not in the read models yet.")?;
        }
        match (&report.violation, &report.read_models) {
            (Some(breach), _) => writeln!(f, "VIOLATION  {breach}"),
            (None, ReadModels::NotCompared { why }) => {
                writeln!(f, "The logs hold. The read models were NOT compared: {why}")
            }
            (None, _) => writeln!(f, "The logs hold, and the read models are equal to them."),
        }
    }
}

fn write_partitions(f: &mut fmt::Formatter<'_>, partitions: &[PartitionFigures]) -> fmt::Result {
    writeln!(
        f,
        "partition{:>12}{:>12}{:>9}{:>8}{:>11}",
        "records", "decisions", "dropped", "claims", "undecided"
    )?;
    for of in partitions {
        let PartitionFigures {
            partition,
            records,
            decisions,
            dropped,
            claims,
            undecided,
            ..
        } = of;
        let partition = partition.0;
        writeln!(
            f,
            "{partition:>9}{records:>12}{decisions:>12}{dropped:>9}{claims:>8}{undecided:>11}"
        )?;
    }
    writeln!(f)
}

fn write_totals(f: &mut fmt::Formatter<'_>, report: &Report) -> fmt::Result {
    let totals = &report.totals;
    let mut line = |name: &str, count: u64| writeln!(f, "{name:<32}{count:>12}");
    line("products", report.products)?;
    line("attempts", totals.attempts)?;
    line("  accepted", totals.accepted)?;
    for (reason, count) in &totals.refused {
        line(&format!("  refused, {reason}"), *count)?;
    }
    line("  repeated", totals.repeated)?;
    line("orders given back", totals.cancelled)?;
    line("holds run out", totals.expired)?;
    line("units", totals.units.total)?;
    line("  available", totals.units.available)?;
    line("  held", totals.units.reserved)?;
    line("  sold", totals.units.sold)?;
    if let ReadModels::Equal { rows } = &report.read_models {
        for (kind, RowDigest { count, .. }) in rows {
            line(&format!("rows of {kind}"), *count)?;
        }
    }
    Ok(())
}
