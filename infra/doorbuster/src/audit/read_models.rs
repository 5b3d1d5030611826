//! The read models against what the decisions make: log 2 is projected once more, by the
//! projector's own views, into a store of its own, and the two are compared.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use indicatif::ProgressBar;
use ports::read_store::{Progress, Row};
use ports::{EventLog, ReadStore};
use projector::{ProjectError, Projection};
use schemas::codec::Codec;
use schemas::ids::{Offset, Partition};
use schemas::placement::Placement;
use schemas::topics::Topic;
use store_embedded::EmbeddedStore;

use super::cursor::Cursor;
use super::digest::{Difference, Digests, Wanted, first_in, product};
use super::logs::Ends;
use super::report::{Breach, Place, ReadModels};
use super::{AuditError, Scope};

/// The most records projected in one go.
const MAX_BATCH: usize = 2_000;
/// How long a store's progress must be the same for the store to stand still.
const STANDSTILL: Duration = Duration::from_secs(1);

/// What is compared.
pub struct Subject {
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// The read models.
    pub store: Arc<dyn ReadStore>,
    /// The records' codec.
    pub codec: Arc<Codec>,
    /// What is looked at.
    pub scope: Scope,
    /// Where the log's partitions ended when the audit began.
    pub ends: Ends,
    /// How far the read models are.
    pub progress: BTreeMap<Partition, Progress>,
    /// Moved on by one a record.
    pub bar: ProgressBar,
}

type Outcome = Result<(ReadModels, Option<Breach>), AuditError>;

/// Makes the read models anew, as far as the store has them, and compares.
pub async fn compare(subject: Subject) -> Outcome {
    for (partition, end) in subject.ends.of_decisions() {
        if let Some(at) = subject.progress.get(&partition).filter(|at| at.next > end) {
            return not_compared(format!(
                "in partition {partition} they reach offset {} of {}, which ends at {end}. Either \
                 they were copied later than the log: copy them first; or the log has lost its end",
                at.next,
                Topic::StockDecisions,
            ));
        }
    }
    let scratch = tempfile::tempdir().map_err(scratch_error)?;
    let path = scratch.path().join("read-models.redb");
    let open = tokio::task::spawn_blocking(move || EmbeddedStore::open(&path));
    let made = Arc::new(open.await?.map_err(scratch_error)?);
    for (partition, _) in subject.ends.of_decisions() {
        let Some(at) = subject.progress.get(&partition) else {
            continue;
        };
        match replay(&subject, partition, *at, &*made).await {
            Ok(None) => {}
            Ok(Some(breach)) => return Ok((ReadModels::Differ, Some(breach))),
            Err(ProjectError::Read(error)) => return Err(error.into()),
            Err(ProjectError::Store(error)) => return Err(scratch_error(error)),
            Err(error) => return not_compared(error.to_string()),
        }
    }
    subject.bar.set_message("decisions; comparing rows");
    difference(&subject, made).await
}

/// Projects a partition up to the store's progress, which must be what comes out.
async fn replay(
    subject: &Subject,
    partition: Partition,
    at: Progress,
    made: &dyn ReadStore,
) -> Result<Option<Breach>, ProjectError> {
    let topic = Topic::StockDecisions;
    let mut records = Cursor::open(&*subject.log, topic, partition, at.next).await?;
    let mut projection = Projection::new(partition, None);
    loop {
        let read = records.batch().await?;
        if read.is_empty() {
            break;
        }
        for batch in read.chunks(MAX_BATCH) {
            let mut rows = projection.rows(&subject.codec, made, batch).await?;
            rows.retain(|row| subject.scope.has_product(product(row)));
            made.apply(partition, rows, projection.progress()).await?;
            subject.bar.inc(batch.len() as u64);
        }
    }
    let Progress {
        claim, answered, ..
    } = projection.progress();
    if (claim, answered) == (at.claim, at.answered) {
        return Ok(None);
    }
    let what = format!(
        "the read models' progress names claim {} and answered offset {}, where the decisions \
         make it claim {claim} and offset {answered}",
        at.claim, at.answered
    );
    let place = Place {
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

/// Compares the stores row by row, as digests first.
async fn difference(subject: &Subject, made: Arc<EmbeddedStore>) -> Outcome {
    let wanted = wanted(&subject.scope, subject.log.partitions());
    let (store, wants) = (subject.store.clone(), wanted.clone());
    let found = tokio::spawn(async move { Digests::of(&*store, wants).await });
    let expected = Digests::of(&*made, wanted.clone())
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
    if moves(subject).await {
        return not_compared(
            "they moved on while they were read; audit again when no sale runs, or a copy".into(),
        );
    }
    let first = first_in(stretch, &*made, &*subject.store, wanted).await;
    match first {
        Ok(Some(first)) => Ok((ReadModels::Differ, Some(breach(first)))),
        Ok(None) => not_compared("they changed while they were read".to_owned()),
        Err(error) => not_compared(error.to_string()),
    }
}

/// Whether the store is being written to. Rows come before their progress, so a difference may
/// be rows whose progress is on its way.
async fn moves(subject: &Subject) -> bool {
    tokio::time::sleep(STANDSTILL).await;
    match subject.store.progress().await {
        Ok(now) => now != subject.progress,
        Err(_) => true,
    }
}

fn wanted(scope: &Scope, partitions: u32) -> Wanted {
    let (scope, placement) = (scope.clone(), Placement::new(partitions));
    Arc::new(move |row| {
        let partition = match row {
            Row::Sale(sale) => placement.partition_of(&sale.product_id),
            Row::Attempt(row) | Row::Order(row) | Row::Intent(row) => row.position.partition,
        };
        scope.has_partition(partition) && scope.has_product(product(row))
    })
}

fn breach(first: Difference) -> Breach {
    let place = first.position.map(|position| Place {
        topic: Topic::PurchaseAttempts.name(),
        partition: position.partition,
        offset: position.offset,
    });
    let what = format!("in the read models, {}", first.what);
    Breach {
        place,
        product: Some(first.product),
        what,
    }
}

fn not_compared(why: String) -> Outcome {
    Ok((ReadModels::NotCompared { why }, None))
}

fn scratch_error(error: impl ToString) -> AuditError {
    AuditError::Scratch(error.to_string())
}
