//! From log 2 to the read store, one task a partition.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use domain::fence::{Fence, Verdict};
use ports::read_store::{Progress, Row, SaleRow};
use ports::{EventLog, Group, LogRecord, ReadError, ReadStore, StoreError};
use runtime::health::{Component, Health, REPORT_EVERY};
use runtime::metrics::{DECISIONS_DROPPED, PROJECTOR_LAG, ROWS};
use runtime::partitions;
use schemas::codec::{Codec, DecodeError};
use schemas::decision::DecisionRecord;
use schemas::ids::{Offset, Partition, ProductId};
use schemas::topics::Topic;
use tokio_util::sync::CancellationToken;
use tracing::{error, info};

use crate::views;

/// How long a failed partition rests before it is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// The most decisions written in one go.
const MAX_BATCH: usize = 2_000;

/// What a projector works with.
#[derive(Clone)]
pub struct Projector {
    /// The log to read.
    pub log: Arc<dyn EventLog>,
    /// The store to write.
    pub store: Arc<dyn ReadStore>,
    /// The records' codec.
    pub codec: Arc<Codec>,
    /// Where its partitions report.
    pub health: Health,
}

/// Why a partition's projection stopped.
#[derive(Debug, thiserror::Error)]
enum ProjectError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error("record {offset} of stock-decisions, partition {partition}: {error}")]
    Decode {
        partition: Partition,
        offset: Offset,
        error: DecodeError,
    },
    #[error(
        "{product} goes from version {have} to {found} at {partition}:{offset} of stock-decisions: decisions are missing"
    )]
    VersionGap {
        product: ProductId,
        have: u64,
        found: u64,
        partition: Partition,
        offset: Offset,
    },
}

/// Projects the partitions assigned to this process until `stop`.
pub async fn run(projector: Projector, stop: CancellationToken) {
    let assigned = projector.log.assignment(Group::Projectors);
    let work = |partition, stop| keep_projecting(projector.clone(), partition, stop);
    partitions::run_each(assigned, stop, work).await;
}

/// Projects one partition, and begins again from the stored progress whenever that fails.
async fn keep_projecting(projector: Projector, partition: Partition, stop: CancellationToken) {
    let component = projector.health.component(format!("projector {partition}"));
    loop {
        let failed = tokio::select! {
            result = project(&projector, partition, &component) => result.err(),
            () = stop.cancelled() => return,
        };
        if let Some(error) = failed {
            error!(%partition, %error, "projection failed; it goes on from its progress");
            component.failing(error.to_string());
        }
        tokio::select! {
            () = tokio::time::sleep(RETRY_AFTER) => {}
            () = stop.cancelled() => return,
        }
    }
}

/// What is known of a partition while it is projected.
struct Projection {
    partition: Partition,
    fence: Fence,
    /// The sales as last written, to fold the next decisions into.
    sales: HashMap<ProductId, SaleRow>,
}

async fn project(
    projector: &Projector,
    partition: Partition,
    component: &Component,
) -> Result<(), ProjectError> {
    let progress = projector.store.progress().await?.get(&partition).copied();
    let (next, fence) = match progress {
        Some(at) => (
            at.next,
            Fence {
                claim: at.claim,
                answered: at.answered,
            },
        ),
        None => (Offset(0), Fence::default()),
    };
    info!(%partition, from = %next, "projecting");
    let mut reader = projector
        .log
        .read(Topic::StockDecisions, partition, next)
        .await?;
    let mut projection = Projection {
        partition,
        fence,
        sales: HashMap::new(),
    };
    let label = [("partition", partition.to_string())];
    loop {
        let Ok(records) = tokio::time::timeout(REPORT_EVERY, reader.next()).await else {
            component.working(0);
            continue;
        };
        let records = records?;
        for batch in records.chunks(MAX_BATCH) {
            let Some(last) = batch.last() else { continue };
            let rows = projection.rows(projector, batch).await?;
            let count = rows.len() as u64;
            let progress = Progress {
                next: last.offset.next(),
                claim: projection.fence.claim,
                answered: projection.fence.answered,
            };
            projector.store.apply(partition, rows, progress).await?;
            metrics::counter!(ROWS).increment(count);
            let end = projector.log.end(Topic::StockDecisions, partition).await?;
            let lag = (end.0 - last.offset.next().0).max(0);
            metrics::gauge!(PROJECTOR_LAG, &label).set(lag as f64);
            component.working(lag as u64);
        }
    }
}

impl Projection {
    /// The rows of a batch: of each sale only its last.
    async fn rows(
        &mut self,
        projector: &Projector,
        batch: &[LogRecord],
    ) -> Result<Vec<Row>, ProjectError> {
        let partition = self.partition;
        let mut rows = Vec::with_capacity(batch.len() * 2);
        let mut touched = HashSet::new();
        for record in batch {
            let offset = record.offset;
            let decoded = projector.codec.decode_decision(&record.value);
            let decoded = decoded.map_err(|error| ProjectError::Decode {
                partition,
                offset,
                error,
            })?;
            let verdict = self.fence.pass(offset, &decoded);
            let DecisionRecord::Decision(decision) = decoded else {
                continue;
            };
            if verdict == Verdict::Dropped {
                let labels = [
                    ("reader", "projector".into()),
                    ("partition", partition.to_string()),
                ];
                metrics::counter!(DECISIONS_DROPPED, &labels).increment(1);
                continue;
            }
            rows.extend(views::attempt_rows(partition, &decision));
            let product = &decision.product_id;
            if !self.sales.contains_key(product)
                && let Some(sale) = projector.store.sale(product).await?
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
                touched.insert(product.clone());
            }
        }
        rows.extend(
            touched
                .iter()
                .filter_map(|product| self.sales.get(product).cloned())
                .map(Row::Sale),
        );
        Ok(rows)
    }
}
