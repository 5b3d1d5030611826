//! Whether orders may be taken: only while the log is the one that the read models are made from and
//! that this process has known from its start. Otherwise an order would be acknowledged that no read
//! model ever has.

use std::convert::Infallible;
use std::sync::Arc;

use futures::future::join_all;
use parking_lot::Mutex;
use ports::log_mark::{REPLACED, check_identity, check_partitions, identity};
use ports::read_store::Progress;
use ports::{EventLog, ReadError, ReadStore};
use runtime::health::{Component, PROBE_WITHIN, REPORT_EVERY};
use schemas::codec::Codec;
use schemas::ids::{Offset, Partition, RecordHash};
use schemas::topics::Topic;
use tokio::time::{sleep, timeout};

/// What the watch has found of each partition. Clones share it. Without a watch it lets everything
/// pass.
#[derive(Clone, Default)]
pub struct LogState(Arc<Mutex<Vec<PartitionState>>>);

/// What is known of one partition.
#[derive(Debug, Clone, Default)]
struct PartitionState {
    /// The identity of its log; none as long as it has no decisions.
    identity: Option<RecordHash>,
    /// The highest ends it has had, of `stock-decisions` and `purchase-attempts`.
    ends: [Offset; 2],
    /// The log that the read models name, once compared with this one.
    compared: Option<RecordHash>,
    /// Why it takes no commands any more.
    refused: Option<ReadError>,
}

impl LogState {
    /// The identity of the partition's log, which receipts name.
    pub(crate) fn identity(&self, partition: Partition) -> Option<RecordHash> {
        self.0.lock().get(partition.0 as usize)?.identity
    }

    /// Fails if the partition's log is not the one that it was, or not that of the read models.
    pub(crate) fn check(&self, partition: Partition) -> Result<(), ReadError> {
        let states = self.0.lock();
        let refused = states.get(partition.0 as usize).map(|state| &state.refused);
        refused.cloned().flatten().map_or(Ok(()), Err)
    }
}

/// Compares the log with the read models and with what it was, again and again.
pub struct LogWatch {
    /// The log.
    pub log: Arc<dyn EventLog>,
    /// The read models.
    pub store: Arc<dyn ReadStore>,
    /// The codec of the log's records.
    pub codec: Arc<Codec>,
    /// Where it reports.
    pub component: Component,
    /// What it finds.
    pub state: LogState,
}

impl LogWatch {
    /// Watches until it is dropped.
    pub async fn run(self) -> Infallible {
        loop {
            self.check_all().await;
            sleep(REPORT_EVERY).await;
        }
    }

    /// Checks all partitions once. A log or store that does not answer proves nothing, and is reported
    /// by others.
    pub async fn check_all(&self) {
        // The progress first, so that the log has all that it covers.
        let progress = timeout(PROBE_WITHIN, self.store.progress()).await;
        let progress = progress.ok().and_then(Result::ok).unwrap_or_default();
        let partitions = (0..self.log.partitions()).map(Partition);
        let checks = partitions.map(async |partition| {
            let stored = progress.get(&partition).copied();
            let known = self.state.0.lock().get(partition.0 as usize).cloned();
            let mut state = known.unwrap_or_default();
            if state.refused.is_none()
                && let Err(error) = self.check(partition, stored, &mut state).await
                && error.is_of_another_log()
            {
                state.refused = Some(error);
            }
            state
        });
        let states = match timeout(PROBE_WITHIN, join_all(checks)).await {
            Ok(states) => states,
            // The log does not answer.
            Err(_) => return self.component.working(),
        };
        match states.iter().find_map(|state| state.refused.as_ref()) {
            Some(error) => self.component.broken(error),
            None => self.component.working(),
        }
        *self.state.0.lock() = states;
    }

    async fn check(
        &self,
        partition: Partition,
        stored: Option<Progress>,
        state: &mut PartitionState,
    ) -> Result<(), ReadError> {
        let log = &*self.log;
        let claim = stored.map_or(Offset(-1), |stored| stored.claim);
        let topics = [Topic::StockDecisions, Topic::PurchaseAttempts];
        for (topic, highest) in topics.into_iter().zip(&mut state.ends) {
            match log.end(topic, partition).await {
                Ok(end) => {
                    ReadError::check_end(topic, partition, *highest, end)?;
                    *highest = end;
                }
                Err(error) => {
                    // It may come back as another one, so it is compared again.
                    state.compared = None;
                    return Err(error);
                }
            }
        }
        let named = stored.and_then(|stored| stored.log).map(|mark| mark.log);
        if state.identity.is_none() || state.compared.is_none() || named != state.compared {
            let found = identity(log, partition).await?;
            if let Some(known) = state.identity {
                let what = "the work of this process is";
                check_identity(partition, what, known, found, REPLACED)?;
            }
            state.identity = found;
            check_partitions(log, &self.codec, partition, claim).await?;
            if let Some(stored) = stored {
                stored.checked(log, partition).await?;
            }
            state.compared = named;
        }
        match stored {
            Some(stored) => {
                let next = [stored.next, stored.answered.next()];
                topics
                    .into_iter()
                    .zip(next)
                    .zip(state.ends)
                    .try_for_each(|((topic, next), end)| {
                        ReadError::check_end(topic, partition, next, end)
                    })
            }
            None => Ok(()),
        }
    }
}
