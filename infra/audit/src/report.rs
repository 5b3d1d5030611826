//! What an audit found, as text for the terminal and as JSON for programs.

use std::collections::BTreeMap;
use std::fmt;

use schemas::decision::Stock;
use schemas::ids::{Offset, Partition, ProductId};
use schemas::topics::Topic;
use serde::Serialize;

/// What an audit found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// The first violation; `None` if none was found.
    pub violation: Option<Breach>,
    /// How the read models compare.
    pub read_models: ReadModels,
    /// The partitions audited; the last one only up to the violation if there is one.
    pub partitions: Vec<PartitionFigures>,
    /// The first records that were skipped, at most 100.
    pub skipped: Vec<SkippedRecord>,
    /// Counts over all products audited.
    pub totals: Totals,
    /// How many products were audited.
    pub products: u64,
    /// Undecided records of the one product that the audit is restricted to; 0 without one.
    #[serde(skip)]
    pub undecided_of_product: u64,
    /// The head of each product's chain, by product.
    pub heads: Vec<ChainHead>,
}

/// A record of `purchase-attempts` on which no product decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SkippedRecord {
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
    /// Why it was skipped.
    pub reason: String,
    /// The operator who skipped it; `None`: a decider, because it cannot be decoded.
    pub by: Option<String>,
}

/// A violation and its position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breach {
    /// Where it is; for a row of the read models, the attempt's position. `None` for the row of
    /// a sale.
    pub place: Option<LogPosition>,
    /// The product.
    pub product: Option<ProductId>,
    /// What is wrong.
    pub what: String,
}

/// The position of a record in a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LogPosition {
    /// The topic's name.
    pub topic: &'static str,
    /// The partition.
    pub partition: Partition,
    /// The offset in it.
    pub offset: Offset,
}

/// Counts of one partition.
#[derive(Debug, Clone, Serialize)]
pub struct PartitionFigures {
    /// The partition.
    pub partition: Partition,
    /// Records of `purchase-attempts`.
    pub records: u64,
    /// Decisions that count.
    pub decisions: u64,
    /// Records of `purchase-attempts` that were skipped.
    pub skipped: u64,
    /// Records of `stock-decisions` that the fence drops.
    pub dropped: u64,
    /// Claims of deciders.
    pub claims: u64,
    /// Records at the end of `purchase-attempts` that are not decided yet.
    pub undecided: u64,
    /// Decisions at the end of `stock-decisions` that are not in the read models yet.
    pub not_applied: u64,
}

/// Counts over all products audited.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Totals {
    /// Attempts with a decision.
    pub attempts: u64,
    /// Attempts that got units.
    pub accepted: u64,
    /// Attempts that were refused, by reason.
    pub refused: BTreeMap<&'static str, u64>,
    /// Attempts that were sent again.
    pub repeated: u64,
    /// Orders that their buyers cancelled.
    pub cancelled: u64,
    /// Holds that expired.
    pub expired: u64,
    /// The units of the products at the end.
    pub units: Units,
}

/// Units of many products, each as of its last round.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Units {
    /// Units offered in the last rounds.
    pub total: u64,
    /// Units that nobody has.
    pub available: u64,
    /// Units held.
    pub reserved: u64,
    /// Units sold.
    pub sold: u64,
}

/// The head of a product's chain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainHead {
    /// The product.
    pub product_id: ProductId,
    /// Its partition.
    pub partition: Partition,
    /// How many decisions it has.
    pub version: u64,
    /// The hash over all its decisions, in hexadecimal digits.
    pub chain: String,
}

/// How the read models compare with the decisions.
#[derive(Debug, Clone, Serialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum ReadModels {
    /// They are equal.
    Equal {
        /// What was compared, by kind of row.
        rows: BTreeMap<&'static str, RowDigest>,
    },
    /// They have none of the decisions.
    Empty {
        /// How many decisions count.
        decisions: u64,
    },
    /// What they have is equal, but they lack decisions that the log had when the audit began, and did
    /// not get closer to its end any more.
    Behind {
        /// What was compared, by kind of row.
        rows: BTreeMap<&'static str, RowDigest>,
        /// How many decisions each partition's read models lack.
        lacking: BTreeMap<Partition, u64>,
    },
    /// They differ; the report's violation names the first difference.
    Differ,
    /// The comparison was not possible, or did not finish.
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
            why: "the audit ended before the comparison".to_owned(),
        }
    }
}

impl PartitionFigures {
    /// A partition of which nothing is counted yet.
    pub fn new(partition: Partition) -> Self {
        Self {
            partition,
            records: 0,
            decisions: 0,
            skipped: 0,
            dropped: 0,
            claims: 0,
            undecided: 0,
            not_applied: 0,
        }
    }
}

impl Units {
    /// Adds the units of a product.
    pub fn add(&mut self, stock: &Stock) {
        self.total += u64::from(stock.total);
        self.available += u64::from(stock.available);
        self.reserved += u64::from(stock.reserved);
        self.sold += u64::from(stock.sold);
    }
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut subject = Vec::new();
        if let Some(place) = &self.place {
            let LogPosition {
                topic,
                partition,
                offset,
            } = place;
            subject.push(format!("{topic}, partition {partition}, offset {offset}"));
        }
        if let Some(product) = &self.product {
            subject.push(format!("product {product}"));
        }
        write!(f, "{}: {}", subject.join(", "), self.what)
    }
}

impl fmt::Display for SkippedRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            partition,
            offset,
            reason,
            by,
        } = self;
        let topic = Topic::PurchaseAttempts;
        let by = match by {
            Some(operator) => format!("by operator {operator}"),
            None => "by the decider".to_owned(),
        };
        write!(
            f,
            "{topic}, partition {partition}, offset {offset}: skipped {by}: {reason}"
        )
    }
}

impl Report {
    /// The text for the terminal, with the verdict last. `heads` adds the heads of all chains.
    pub fn summary(&self, heads: bool) -> Summary<'_> {
        Summary {
            report: self,
            heads,
        }
    }
}

/// A report as text.
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
            writeln!(f, "\nchain heads: hash, version, product")?;
            for ChainHead {
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
        for record in &report.skipped {
            writeln!(f, "{record}")?;
        }
        let (undecided, not_applied) =
            report
                .partitions
                .iter()
                .fold((0, 0), |(undecided, not_applied), figures| {
                    (
                        undecided + figures.undecided,
                        not_applied + figures.not_applied,
                    )
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
                writeln!(
                    f,
                    "The logs have no violation. The read models were NOT compared: {why}."
                )
            }
            (None, ReadModels::Empty { decisions }) => writeln!(
                f,
                "The logs have no violation. The read models are EMPTY: they have none of the \
                 {decisions} decisions."
            ),
            (None, ReadModels::Behind { lacking, .. }) => {
                let lacking = lacking
                    .iter()
                    .map(|(partition, count)| format!("{count} of partition {partition}"));
                let lacking = lacking.collect::<Vec<_>>().join(", ");
                writeln!(
                    f,
                    "The logs have no violation, and what the read models have matches them. The \
                     read models are BEHIND: they lack decisions, {lacking}."
                )
            }
            (None, _) => writeln!(
                f,
                "The logs have no violation, and the read models match them."
            ),
        }
    }
}

fn write_partitions(f: &mut fmt::Formatter<'_>, partitions: &[PartitionFigures]) -> fmt::Result {
    writeln!(
        f,
        "partition{:>12}{:>12}{:>9}{:>8}{:>11}",
        "records", "decisions", "dropped", "claims", "undecided"
    )?;
    for figures in partitions {
        writeln!(
            f,
            "{:>9}{:>12}{:>12}{:>9}{:>8}{:>11}",
            figures.partition.0,
            figures.records,
            figures.decisions,
            figures.dropped,
            figures.claims,
            figures.undecided
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
    line("orders cancelled", totals.cancelled)?;
    line("holds expired", totals.expired)?;
    line("units", totals.units.total)?;
    line("  available", totals.units.available)?;
    line("  held", totals.units.reserved)?;
    line("  sold", totals.units.sold)?;
    if let ReadModels::Equal { rows } | ReadModels::Behind { rows, .. } = &report.read_models {
        for (kind, RowDigest { count, .. }) in rows {
            line(&format!("rows of {kind}"), *count)?;
        }
    }
    Ok(())
}
