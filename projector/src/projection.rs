//! Turns one partition's decisions into rows, batch by batch.

use std::collections::{BTreeSet, HashMap};

use ports::read_store::{Progress, Row, SaleRow};
use ports::{LogMark, LogRecord, ReadError, ReadStore, StoreError};
use runtime::metrics::DECISIONS_DROPPED;
use schemas::codec::{Codec, DecodeError};
use schemas::decision::DecisionRecord;
use schemas::fence::{Fence, Verdict};
use schemas::ids::{Offset, Partition, ProductId};
use schemas::trace::trace_of;

/// The state of one partition while it is projected. After a failure, discard it and start a new
/// one from the store's progress.
pub struct Projection {
    partition: Partition,
    /// The next offset of `stock-decisions`.
    next: Offset,
    fence: Fence,
    /// The log that the rows are made from; none before the first record.
    log: Option<LogMark>,
    /// The sales after the decisions so far.
    sales: HashMap<ProductId, SaleRow>,
}

/// Why a partition's projection stopped.
#[derive(Debug, thiserror::Error)]
pub enum ProjectError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The log failed.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A record of `stock-decisions` cannot be decoded, and may be a newer version's.
    #[error("record {offset} of stock-decisions, partition {partition}: {error}")]
    Decode {
        /// Its partition.
        partition: Partition,
        /// Its offset.
        offset: Offset,
        /// Why it cannot be decoded.
        error: DecodeError,
    },
    /// Decisions of a product are missing.
    #[error(
        "{product} goes from version {have} to {found} at {partition}:{offset} of stock-decisions: decisions are missing"
    )]
    VersionGap {
        /// The product.
        product: ProductId,
        /// The version of its sale so far.
        have: u64,
        /// The version of the decision.
        found: u64,
        /// The decision's partition.
        partition: Partition,
        /// The decision's offset in `stock-decisions`.
        offset: Offset,
    },
}

impl Projection {
    /// Continues from a store's progress, which was checked against the log
    /// ([`Progress::checked`]); starts at offset 0 when it has none.
    pub fn new(partition: Partition, progress: Option<Progress>) -> Self {
        let (next, fence, log) = match progress {
            Some(Progress {
                next,
                claim,
                answered,
                log,
            }) => (next, Fence { claim, answered }, log),
            None => (Offset(0), Fence::default(), None),
        };
        Self {
            partition,
            next,
            fence,
            log,
            sales: HashMap::new(),
        }
    }

    /// The progress to store after the rows so far.
    pub fn progress(&self) -> Progress {
        let Fence { claim, answered } = self.fence;
        Progress {
            next: self.next,
            claim,
            answered,
            log: self.log,
        }
    }

    /// Counts decisions that the fence dropped.
    pub(crate) fn count_dropped(&self, decisions: u64) {
        let labels = [
            ("reader", "projector".into()),
            ("partition", self.partition.to_string()),
        ];
        metrics::counter!(DECISIONS_DROPPED, &labels).increment(decisions);
    }

    /// The rows of the next records of `stock-decisions`: each attempt's and each command's, and the
    /// last of each sale. `store` is read for the sales that an earlier run wrote.
    pub async fn rows(
        &mut self,
        codec: &Codec,
        store: &dyn ReadStore,
        batch: &[LogRecord],
    ) -> Result<Vec<Row>, ProjectError> {
        let partition = self.partition;
        let mut rows = Vec::with_capacity(batch.len() * 2);
        // Ordered, so that the same decisions make the same rows in the same order.
        let mut changed = BTreeSet::new();
        for record in batch {
            let offset = record.offset;
            let decoded = codec.decode_for_fence(&record.value);
            let decoded = decoded.map_err(|error| ProjectError::Decode {
                partition,
                offset,
                error,
            })?;
            let verdict = decoded
                .as_ref()
                .map_or(Verdict::Dropped, |decoded| self.fence.pass(offset, decoded));
            self.next = offset.next();
            if verdict == Verdict::Dropped {
                self.count_dropped(1);
                continue;
            }
            let trace = trace_of(&record.headers);
            let decision = match decoded {
                Some(DecisionRecord::Decision(decision)) => decision,
                Some(DecisionRecord::Skipped(skipped)) => {
                    let at_ms = record.appended_at_ms;
                    let row = views::skipped_row(partition, &skipped, at_ms, trace);
                    rows.push(Row::Command(row));
                    continue;
                }
                Some(DecisionRecord::Claim(_)) | None => continue,
            };
            rows.extend(views::attempt_rows(partition, &decision, trace));
            rows.extend(views::command_row(partition, &decision, trace).map(Row::Command));
            let product = &decision.product_id;
            if !self.sales.contains_key(product)
                && let Some(sale) = store.sale(product).await?
            {
                self.sales.insert(product.clone(), sale);
            }
            let previous = self.sales.get(product);
            if let Some(have) = previous.map(|sale| sale.version)
                && have + 1 < decision.version
            {
                let (product, found) = (product.clone(), decision.version);
                return Err(ProjectError::VersionGap {
                    product,
                    have,
                    found,
                    partition,
                    offset,
                });
            }
            if let Some(sale) = views::next_sale(previous, &decision) {
                self.sales.insert(product.clone(), sale);
                changed.insert(product.clone());
            }
        }
        if let (Some(first), Some(last)) = (batch.first(), batch.last()) {
            // A projection without a mark begins with the log's first record.
            let log = self.log.map_or_else(|| first.hash(), |mark| mark.log);
            self.log = Some(LogMark::new(log, last));
        }
        let sales = changed
            .iter()
            .filter_map(|product| self.sales.get(product).cloned());
        rows.extend(sales.map(Row::Sale));
        Ok(rows)
    }
}
