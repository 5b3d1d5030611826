//! Compares the read models with the decisions: `stock-decisions` is projected again, by the
//! projector's own views, into an empty store, and the rows of both stores are compared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use history::Records;
use indicatif::ProgressBar;
use ports::read_store::{Progress, Row};
use ports::{EventLog, ReadStore, StoreError};
use projector::{ProjectError, Projection};
use schemas::codec::Codec;
use schemas::ids::{Offset, Partition};
use schemas::placement::Placement;
use schemas::topics::Topic;
use tokio::time::Instant;

use crate::logs::Ends;
use crate::report::{Breach, LogPosition, PartitionFigures, ReadModels, RowDigest};
use crate::row_digests::{Difference, Digests, RowFilter, first_in, product};
use crate::{AuditError, MakeScratch, Scope};

/// The most records projected at once.
const MAX_BATCH: usize = 2_000;
/// How long a store's progress must stay the same for the store to count as unchanged.
const UNCHANGED_FOR: Duration = Duration::from_secs(1);

/// How long the progress of a store may stay the same before it counts as behind.
const CLOSER_WITHIN: Duration = Duration::from_secs(5);
/// How often the progress is read meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Waits until the store has all decisions below `ends`, as long as it gets closer, and returns its
/// progress.
pub async fn caught_up(
    store: &dyn ReadStore,
    ends: &Ends,
) -> Result<BTreeMap<Partition, Progress>, StoreError> {
    let mut last = BTreeMap::new();
    let mut changed = Instant::now();
    loop {
        let progress = store.progress().await?;
        if ends.covered(&progress) == ends.decisions() {
            return Ok(progress);
        }
        if progress != last {
            changed = Instant::now();
            last = progress;
        } else if changed.elapsed() >= CLOSER_WITHIN {
            return Ok(last);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Whether read models that are equal as far as they go are complete. `expected` is the end that they
/// should have reached, if it matters.
pub fn completeness(
    rows: BTreeMap<&'static str, RowDigest>,
    partitions: &[PartitionFigures],
    expected: Option<&Ends>,
    progress: &BTreeMap<Partition, Progress>,
) -> ReadModels {
    let decisions: u64 = partitions.iter().map(|figures| figures.decisions).sum();
    let lacking: u64 = partitions.iter().map(|figures| figures.not_applied).sum();
    if lacking > 0 && lacking == decisions {
        return ReadModels::Empty { decisions };
    }
    let Some(expected) = expected else {
        return ReadModels::Equal { rows };
    };
    let is_behind = |partition| {
        let next = progress.get(&partition).map_or(Offset(0), |at| at.next);
        let mut ends = expected.of_decisions();
        ends.any(|(it, end)| it == partition && next < end)
    };
    let lacking = partitions
        .iter()
        .filter(|figures| figures.not_applied > 0 && is_behind(figures.partition))
        .map(|figures| (figures.partition, figures.not_applied));
    let lacking: BTreeMap<_, _> = lacking.collect();
    match lacking.is_empty() {
        true => ReadModels::Equal { rows },
        false => ReadModels::Behind { rows, lacking },
    }
}

/// What is compared, and with what.
pub struct Comparison {
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// The read models.
    pub store: Arc<dyn ReadStore>,
    /// The codec of the log's records.
    pub codec: Arc<Codec>,
    /// What the audit is restricted to.
    pub scope: Scope,
    /// Where the log's partitions ended when the audit began.
    pub ends: Ends,
    /// How far the read models are.
    pub progress: BTreeMap<Partition, Progress>,
    /// Advances by one for each record.
    pub bar: ProgressBar,
}

type Outcome = Result<(ReadModels, Option<Breach>), AuditError>;

/// Recomputes the read models as far as the store has them, into a store made by `scratch`, and
/// compares.
pub async fn compare(comparison: Comparison, scratch: MakeScratch) -> Outcome {
    for (partition, end) in comparison.ends.of_decisions() {
        let progress = comparison.progress.get(&partition);
        if let Some(at) = progress.filter(|at| at.next > end) {
            return not_compared(format!(
                "in partition {partition} they reach offset {} of {}, which ends at {end}. Either \
                 they were copied after the log (copy them first), or the log has lost its end",
                at.next,
                Topic::StockDecisions,
            ));
        }
    }
    for (partition, at) in &comparison.progress {
        let partitions = comparison.log.partitions();
        if partition.0 >= partitions {
            return not_compared(format!(
                "they have partition {partition}, but this log has only {partitions}: they were made \
                 from another log"
            ));
        }
        match at.checked(&*comparison.log, *partition).await {
            Err(error) if error.is_of_another_log() => return not_compared(error.to_string()),
            checked => drop(checked?),
        }
    }
    // The guard lives as long as this function.
    let scratch = tokio::task::spawn_blocking(scratch)
        .await?
        .map_err(|error| AuditError::Scratch(format!("{error:#}")))?;
    let recomputed = &*scratch.store;
    for (partition, _) in comparison.ends.of_decisions() {
        let Some(at) = comparison.progress.get(&partition) else {
            continue;
        };
        match replay(&comparison, partition, *at, recomputed).await {
            Ok(None) => {}
            Ok(Some(breach)) => return Ok((ReadModels::Differ, Some(breach))),
            Err(ProjectError::Read(error)) => return Err(error.into()),
            Err(ProjectError::Store(error)) => return Err(scratch_error(error)),
            Err(error) => return not_compared(error.to_string()),
        }
    }
    comparison.bar.set_message("decisions; comparing rows");
    difference(&comparison, recomputed).await
}

/// Projects a partition up to the store's progress, and returns the breach if the projection
/// ends with another progress.
async fn replay(
    comparison: &Comparison,
    partition: Partition,
    at: Progress,
    recomputed: &dyn ReadStore,
) -> Result<Option<Breach>, ProjectError> {
    let topic = Topic::StockDecisions;
    let mut records = Records::open(&*comparison.log, topic, partition, at.next).await?;
    let mut projection = Projection::new(partition, None);
    loop {
        let read = records.batch().await?;
        if read.is_empty() {
            break;
        }
        for batch in read.chunks(MAX_BATCH) {
            let mut rows = projection
                .rows(&comparison.codec, recomputed, batch)
                .await?;
            rows.retain(|row| comparison.scope.has_row_of(product(row)));
            recomputed
                .apply(partition, rows, projection.progress())
                .await?;
            comparison.bar.inc(batch.len() as u64);
        }
    }
    let Progress {
        claim, answered, ..
    } = projection.progress();
    if (claim, answered) == (at.claim, at.answered) {
        return Ok(None);
    }
    let what = format!(
        "the progress of the read models names claim {} and answered offset {}, but the decisions \
         lead to claim {claim} and answered offset {answered}",
        at.claim, at.answered
    );
    let place = LogPosition {
        topic: topic.name(),
        partition,
        offset: Offset(at.next.0 - 1),
    };
    Ok(Some(Breach {
        place: Some(place),
        product: None,
        what,
    }))
}

/// Compares the stores: first by digests, then row by row where the digests differ.
async fn difference(comparison: &Comparison, recomputed: &dyn ReadStore) -> Outcome {
    let filter = row_filter(&comparison.scope, comparison.log.partitions());
    let (store, its_filter) = (comparison.store.clone(), filter.clone());
    let found = tokio::spawn(async move { Digests::of(&*store, its_filter).await });
    let expected = Digests::of(recomputed, filter.clone())
        .await
        .map_err(scratch_error)?;
    let found = match found.await? {
        Ok(found) => found,
        Err(error) => return not_compared(error.to_string()),
    };
    let Some(stretch) = expected.first_difference(&found) else {
        return Ok((
            ReadModels::Equal {
                rows: expected.by_kind(),
            },
            None,
        ));
    };
    if is_written_to(comparison).await {
        return not_compared(
            "they changed while they were read; audit again while no sale runs, or audit a copy"
                .into(),
        );
    }
    let first = first_in(stretch, recomputed, &*comparison.store, filter).await;
    match first {
        Ok(Some(first)) => Ok((ReadModels::Differ, Some(breach(first)))),
        Ok(None) => not_compared("they changed while they were read".to_owned()),
        Err(error) => not_compared(error.to_string()),
    }
}

/// Whether the store is being written to. Rows are written before their progress, so a
/// difference may be rows whose progress is not written yet.
async fn is_written_to(comparison: &Comparison) -> bool {
    tokio::time::sleep(UNCHANGED_FOR).await;
    match comparison.store.progress().await {
        Ok(now) => now != comparison.progress,
        Err(_) => true,
    }
}

/// Lets the rows within the scope pass.
fn row_filter(scope: &Scope, partitions: u32) -> RowFilter {
    let (scope, placement) = (scope.clone(), Placement::new(partitions));
    Arc::new(move |row| {
        let partition = match row {
            Row::Sale(sale) => placement.partition_of(&sale.product_id),
            Row::Attempt(row) | Row::Order(row) | Row::Intent(row) => row.position.partition,
            Row::Command(row) => row.position.partition,
        };
        scope.has_partition(partition) && scope.has_row_of(product(row))
    })
}

fn breach(first: Difference) -> Breach {
    let place = first.position.map(|position| LogPosition {
        topic: Topic::PurchaseAttempts.name(),
        partition: position.partition,
        offset: position.offset,
    });
    let what = format!("in the read models, {}", first.what);
    Breach {
        place,
        product: first.product,
        what,
    }
}

fn not_compared(why: String) -> Outcome {
    Ok((ReadModels::NotCompared { why }, None))
}

fn scratch_error(error: impl ToString) -> AuditError {
    AuditError::Scratch(error.to_string())
}
