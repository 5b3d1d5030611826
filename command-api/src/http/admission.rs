//! What every command goes through: the check that its product is known, and the append to the
//! log.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use axum::http::HeaderValue;
use bytes::Bytes;
use metrics::counter;
use parking_lot::{Mutex, RwLock};
use ports::read_store::SaleRow;
use ports::{AppendError, NewRecord, ReadError, StoreError};
use runtime::log_limit::LogLimit;
use runtime::metrics::APPENDS_FAILED;
use runtime::shared_answer::SharedAnswer;
use schemas::command::{Command, CommandBody};
use schemas::ids::{Offset, Partition, Position, ProductId};
use schemas::topics::Topic;
use serde::Serialize;
use tokio::time::{sleep, timeout};
use tracing::field::display;
use tracing::{debug, error, warn};
use utoipa::ToSchema;
use web::problem::{Code, Problem};
use web::trace::Trace;

use super::CommandApi;

/// How long an order waits for the store to look its product up, and to be current if it does not have
/// the product. The check is optional, since the core refuses unknown products too.
const KNOWN_WAIT: Duration = Duration::from_millis(100);
/// How often the store's progress is read meanwhile.
const PROGRESS_EVERY: Duration = Duration::from_millis(10);
/// The most products remembered as known.
const MAX_KNOWN: usize = 100_000;

/// Limits the log lines about appends that failed; `left_out` in a line counts those before it.
static FAILED_APPENDS: LazyLock<LogLimit<Partition>> = LazyLock::new(LogLimit::default);

// Whatever is kept of a request's trace fits into a record.
const _: () = assert!(schemas::trace::MAX_HEADER_BYTES <= ports::event_log::MAX_HEADER_BYTES);

/// An exact place in the queue.
#[derive(Serialize, ToSchema)]
#[schema(as = Position)]
pub(super) struct RecordPosition {
    /// The partition that holds the product.
    #[schema(example = 3)]
    partition: u32,
    /// The record's offset in the partition.
    #[schema(minimum = 0, example = 1842)]
    offset: i64,
}

impl From<Position> for RecordPosition {
    fn from(position: Position) -> Self {
        Self {
            partition: position.partition.0,
            offset: position.offset.0,
        }
    }
}

/// Where the outcome of the command at a position is read.
pub(super) fn command_location(at: Position) -> HeaderValue {
    let location = format!("/api/commands/{}-{}", at.partition, at.offset);
    HeaderValue::try_from(location).expect("numbers are visible ASCII")
}

/// A record that is durable in the log.
pub(super) struct AppendedRecord {
    /// Its position.
    pub(super) position: Position,
    /// Its value in the log.
    pub(super) value: Bytes,
}

impl CommandApi {
    /// Appends a command to `purchase-attempts`, with the version of the sale that it was made for and
    /// the trace of its request, and waits until it is durable.
    pub(super) async fn append(
        &self,
        product: &ProductId,
        body: CommandBody,
        if_version: Option<u64>,
        trace: Trace,
    ) -> Result<AppendedRecord, Problem> {
        let trace_id = trace.id.map(display);
        let partition = self.placement.partition_of(product);
        self.log_state.check(partition).map_err(another_log)?;
        let key = Bytes::copy_from_slice(product.as_str().as_bytes());
        let product_id = product.clone();
        let value = Bytes::from(self.codec.encode_command(Command {
            product_id,
            body,
            if_version,
        }));
        let record = NewRecord {
            key,
            value: value.clone(),
            headers: trace.headers,
        };
        let open = OpenAppend { answered: false };
        let appended = self
            .log
            .append(Topic::PurchaseAttempts, partition, vec![record])
            .await;
        open.end();
        match appended {
            Ok(offset) => {
                let position = Position { partition, offset };
                debug!(%product, %position, trace_id, "appended a command");
                Ok(AppendedRecord { position, value })
            }
            Err(error) => {
                debug!(%product, %partition, trace_id, "could not append a command");
                Err(refusal(error, partition, product))
            }
        }
    }

    /// Refuses a product that is certainly unknown: the store does not have it, although it has the
    /// decisions on all records that were appended before this request. If the store is behind or
    /// does not answer, the command is passed on and the core decides.
    pub(super) async fn require_known(
        &self,
        product: &ProductId,
        trace: &Trace,
    ) -> Result<(), Problem> {
        let partition = self.placement.partition_of(product);
        self.log_state.check(partition).map_err(another_log)?;
        if self.known.contains(product) {
            return Ok(());
        }
        let sale = timeout(KNOWN_WAIT, self.current_sale(product)).await;
        match sale.unwrap_or_else(|_| Err(StoreError("it is behind, or does not answer".into()))) {
            Ok(Some(sale)) => {
                self.known.insert(product);
                // The order that follows need not read the same row again.
                self.rounds.learn(product, sale.round);
                Ok(())
            }
            Ok(None) => Err(Problem::new(
                Code::UnknownProduct,
                format!("There is no sale of {product}; GET /api/flash-sales lists all sales."),
            )),
            Err(error) => {
                let trace_id = trace.id.map(display);
                debug!(%error, %product, trace_id, "the store cannot tell whether the product is known; the core will decide");
                Ok(())
            }
        }
    }

    /// The sale of a product; none if the product is absent in the log as it was when this was called
    /// or later. Waits for the store to be as current as that.
    async fn current_sale(&self, product: &ProductId) -> Result<Option<SaleRow>, StoreError> {
        let sale = self.store.sale(product).await?;
        if sale.is_some() {
            return Ok(sale);
        }
        let partition = self.placement.partition_of(product);
        let shared = self.known.current_store(partition);
        shared.get(|| self.wait_for_store(partition)).await?;
        self.store.sale(product).await
    }

    /// Waits until the store has the decisions on all records that a partition has now.
    pub(super) async fn wait_for_store(&self, partition: Partition) -> Result<(), StoreError> {
        let end = self.log.end(Topic::PurchaseAttempts, partition).await;
        let end = end.map_err(|error| StoreError(error.to_string()))?;
        loop {
            let progress = self.store.progress().await?.get(&partition).copied();
            let answered = progress.map_or(Offset(-1), |progress| progress.answered);
            if answered.next() >= end {
                return Ok(());
            }
            sleep(PROGRESS_EVERY).await;
        }
    }
}

/// A wait for the store to be current.
type SharedWait = SharedAnswer<Result<(), StoreError>>;

/// The products known to exist, at most 100,000 of them. The log never forgets a product, so an
/// entry stays true.
#[derive(Default)]
pub struct KnownProducts {
    products: RwLock<HashSet<ProductId>>,
    /// Each partition's wait for the store, which all requests for unknown products share.
    waits: Mutex<HashMap<Partition, Arc<SharedWait>>>,
}

impl KnownProducts {
    fn contains(&self, product: &ProductId) -> bool {
        self.products.read().contains(product)
    }

    fn current_store(&self, partition: Partition) -> Arc<SharedWait> {
        self.waits.lock().entry(partition).or_default().clone()
    }

    /// Adds a product. When the set is full, all others are dropped: those in demand are added again
    /// at their next order, at the price of one read each.
    pub(super) fn insert(&self, product: &ProductId) {
        let mut known = self.products.write();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(product.clone());
    }
}

/// An append that the log has not answered. If its request ends first, it is counted as timed out.
struct OpenAppend {
    answered: bool,
}

impl OpenAppend {
    fn end(mut self) {
        self.answered = true;
    }
}

impl Drop for OpenAppend {
    fn drop(&mut self) {
        if !self.answered {
            counter!(APPENDS_FAILED, "reason" => "timed_out").increment(1);
        }
    }
}

/// The answer when a record was not, or perhaps not, appended.
fn refusal(error: AppendError, partition: Partition, product: &ProductId) -> Problem {
    let reason = match error {
        AppendError::Full => "full",
        AppendError::TooLarge { .. } => "too_large",
        AppendError::Unavailable(_) => "unavailable",
        AppendError::Unknown(_) => "unknown",
        AppendError::Stopped(_) => "stopped",
    };
    counter!(APPENDS_FAILED, "reason" => reason).increment(1);
    match error {
        AppendError::Full => Problem::new(
            Code::Overloaded,
            "The service is overloaded; your request was not accepted. Retry in a second.",
        ),
        AppendError::TooLarge { what, bytes, max } => Problem::new(
            Code::BodyTooLarge,
            format!("The record's {what} has {bytes} bytes; the log takes at most {max}."),
        ),
        // The log reports once that it cannot be reached, not with every request.
        AppendError::Unavailable(why) => {
            debug!(error = why, "an append was refused");
            Problem::new(
                Code::LogUnavailable,
                "The log cannot be reached at the moment; your request was not accepted. Retry in a \
                 second, with the same Idempotency-Key if you sent one.",
            )
        }
        AppendError::Unknown(why) => {
            if let Some(left_out) = FAILED_APPENDS.admit(partition) {
                warn!(
                    error = why, %partition, %product, left_out,
                    "an append failed; its outcome is unknown"
                );
            }
            log_unavailable()
        }
        AppendError::Stopped(why) => {
            if let Some(left_out) = FAILED_APPENDS.admit(partition) {
                error!(
                    error = why, %partition, %product, left_out,
                    "the log takes no more records until the service is restarted"
                );
            }
            log_unavailable()
        }
    }
}

/// The answer while the log is not the one that it should be.
fn another_log(error: ReadError) -> Problem {
    counter!(APPENDS_FAILED, "reason" => "another_log").increment(1);
    debug!(%error, "refused a command");
    Problem::new(
        Code::LogUnavailable,
        "The service takes no requests at the moment, since its log is not the one that it should be. \
         Your request was not accepted. Its operators must mend this.",
    )
}

fn log_unavailable() -> Problem {
    Problem::new(
        Code::LogUnavailable,
        "It is unknown whether your request was accepted. With the same Idempotency-Key a retry is \
         safe: it is one attempt however often it is sent. Without a key an order may count twice.",
    )
}
