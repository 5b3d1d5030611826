//! `doorbuster audit`: proves from both logs that no unit was lost or sold twice, that every
//! attempt was decided in order, and that the read models match.
//!
//! Two checks run side by side. [`logs`] checks both logs against the invariants of the domain;
//! [`read_models`] projects `stock-decisions` again into an empty store and compares the rows.
//! What they find is a [`report`]. [`receipt`] follows a single attempt instead. [`command`] is
//! the command line. The audit names ports only: its caller opens the engines.

pub mod command;

pub mod logs;
pub mod read_models;

pub mod receipt;
pub mod report;

mod row_digests;

use std::any::Any;
use std::sync::Arc;

use indicatif::ProgressBar;
use ports::{EventLog, ReadError, ReadStore};
use schemas::codec::Codec;
use schemas::ids::{Partition, ProductId};
use schemas::placement::Placement;

use self::logs::Ends;
use self::report::{ReadModels, Report};

/// What an audit reads, and the room that it needs. The caller opens all of it.
pub struct Source {
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// The read models, or why they cannot be read.
    pub store: Result<Arc<dyn ReadStore>, String>,
    /// Whether the store is the one that projectors write to. Then the audit waits for it while it gets
    /// closer to the log's end, and reports it when it stays behind. Otherwise it is a file, which
    /// lacks what a running service has in memory.
    pub is_live: bool,
    /// The codec of the log's records.
    pub codec: Arc<Codec>,
    /// Makes the store for the recomputed read models; called only when there is something to
    /// compare.
    pub scratch: MakeScratch,
}

/// Makes an empty store for the recomputed read models; it may block.
pub type MakeScratch = Box<dyn FnOnce() -> anyhow::Result<ScratchStore> + Send>;

/// An empty store for the recomputed read models.
pub struct ScratchStore {
    /// The store.
    pub store: Arc<dyn ReadStore>,
    /// What must live as long as the store, such as its temporary directory.
    pub guard: Box<dyn Any + Send>,
}

/// What an audit is restricted to.
#[derive(Debug, Clone, Default)]
pub struct Scope {
    /// Only this partition.
    pub partition: Option<Partition>,
    /// Only this product.
    pub product: Option<ProductId>,
}

/// Why an audit could not be carried out.
#[derive(Debug, thiserror::Error)]
pub enum AuditError {
    /// The log could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no such partition.
    #[error("there is no partition {requested}; partitions are 0 to {last}")]
    NoPartition {
        /// The partition requested.
        requested: Partition,
        /// The last partition that exists.
        last: u32,
    },
    /// No record of the log is about the product.
    #[error(
        "product {product} is unknown: no record of partition {partition}, where it would be, is \
         about it; letter case matters, and --heads without --product lists all products"
    )]
    UnknownProduct {
        /// The product requested.
        product: ProductId,
        /// The partition that it belongs to.
        partition: Partition,
    },
    /// The product has records, but no decision that could be checked.
    #[error(
        "product {product} has no decision yet: {undecided} records of it are waiting in \
         purchase-attempts"
    )]
    Undecided {
        /// The product requested.
        product: ProductId,
        /// Its records that are not decided.
        undecided: u64,
    },
    /// The read models cannot be recomputed.
    #[error(
        "the read models cannot be recomputed in the directory for temporary files (TMPDIR): {0}"
    )]
    Scratch(String),
    /// A part of the audit ended without a result.
    #[error("the audit ended without a result: {0}")]
    Aborted(#[from] tokio::task::JoinError),
}

/// Audits the logs, and the read models if they can be read. The read models must not change
/// meanwhile, and must not be newer than the logs. `bar` advances by one for each record of
/// `stock-decisions`.
pub async fn audit(source: Source, scope: Scope, bar: ProgressBar) -> Result<Report, AuditError> {
    let Source {
        log,
        store,
        is_live,
        codec,
        scratch,
    } = source;
    let scope = scope.resolve(log.partitions())?;
    let begun = Ends::find(&*log, &scope).await?;
    let stored = match store {
        Ok(store) => {
            let progress = match is_live {
                true => read_models::caught_up(&*store, &begun).await,
                false => store.progress().await,
            };
            progress
                .map(|progress| (store, progress))
                .map_err(|error| error.to_string())
        }
        Err(why) => Err(why),
    };
    // Again, so that the log has all that the read models are made from.
    let ends = Ends::find(&*log, &scope).await?;
    let known = stored
        .as_ref()
        .map(|(_, progress)| progress.clone())
        .unwrap_or_default();
    bar.set_length(ends.decisions() + ends.covered(&known));

    let check = tokio::spawn(logs::check(
        log.clone(),
        codec.clone(),
        scope.clone(),
        ends.clone(),
        known,
        bar.clone(),
    ));
    let (store, progress) = match stored {
        Ok(stored) => stored,
        Err(why) => {
            let mut report = check.await??;
            scope.require_product(&report)?;
            report.read_models = ReadModels::NotCompared { why };
            return Ok(report);
        }
    };
    let comparison = read_models::Comparison {
        log,
        store,
        codec,
        scope: scope.clone(),
        ends,
        progress: progress.clone(),
        bar,
    };
    let compare = tokio::spawn(read_models::compare(comparison, scratch));
    let mut report = check.await??;
    if let Err(error) = scope.require_product(&report) {
        compare.abort();
        return Err(error);
    }
    if report.violation.is_some() {
        // Logs with a violation are nothing to compare the read models with.
        compare.abort();
        let why = "the logs that they are made from have a violation".to_owned();
        report.read_models = ReadModels::NotCompared { why };
        return Ok(report);
    }
    let (read_models, violation) = compare.await??;
    report.read_models = match read_models {
        ReadModels::Equal { rows } => {
            let expected = is_live.then_some(&begun);
            read_models::completeness(rows, &report.partitions, expected, &progress)
        }
        others => others,
    };
    report.violation = violation;
    Ok(report)
}

impl Scope {
    /// The scope with its partition: a product has only one, and a requested one must exist.
    fn resolve(mut self, partitions: u32) -> Result<Self, AuditError> {
        if let Some(product) = &self.product {
            self.partition = Some(Placement::new(partitions).partition_of(product));
        }
        match self.partition {
            Some(requested) if requested.0 >= partitions => Err(AuditError::NoPartition {
                requested,
                last: partitions - 1,
            }),
            _ => Ok(self),
        }
    }

    /// Fails if the audit is restricted to a product and checked nothing about it. A violation
    /// ends a check early, and counts more.
    fn require_product(&self, report: &Report) -> Result<(), AuditError> {
        let (Some(product), Some(partition)) = (&self.product, self.partition) else {
            return Ok(());
        };
        // A product that was never on sale may have been ordered.
        let has_decisions = report.products > 0 || report.totals.attempts > 0;
        if has_decisions || report.violation.is_some() {
            return Ok(());
        }
        let product = product.clone();
        Err(match report.undecided_of_product {
            0 => AuditError::UnknownProduct { product, partition },
            undecided => AuditError::Undecided { product, undecided },
        })
    }

    fn has_partition(&self, partition: Partition) -> bool {
        self.partition.is_none_or(|only| only == partition)
    }

    fn has_product(&self, product: &ProductId) -> bool {
        self.product.as_ref().is_none_or(|only| only == product)
    }

    /// Whether rows of this product, or of no product, are compared.
    fn has_row_of(&self, product: Option<&ProductId>) -> bool {
        self.product.is_none() || self.product.as_ref() == product
    }
}
