//! What every command goes through: the check that its product is known, and the append to the
//! log.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;
use metrics::counter;
use parking_lot::RwLock;
use ports::{AppendError, NewRecord, StoreError};
use runtime::metrics::APPENDS_FAILED;
use schemas::command::{Command, CommandBody};
use schemas::ids::{Position, ProductId};
use schemas::topics::Topic;
use serde::Serialize;
use tokio::time::timeout;
use tracing::field::display;
use tracing::{debug, error, warn};
use utoipa::ToSchema;
use web::problem::{Code, Problem};
use web::trace::Trace;

use super::CommandApi;

/// How long an order waits for the store to look its product up. The check is optional, since the
/// core refuses unknown products too.
const KNOWN_WAIT: Duration = Duration::from_millis(100);
/// The most products remembered as known.
const MAX_KNOWN: usize = 100_000;

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

/// A record that is durable in the log.
pub(super) struct AppendedRecord {
    /// Its position.
    pub(super) position: Position,
    /// Its value in the log.
    pub(super) value: Bytes,
}

impl CommandApi {
    /// Appends a command to `purchase-attempts`, with the trace of its request, and waits until it
    /// is durable.
    pub(super) async fn append(
        &self,
        product: &ProductId,
        body: CommandBody,
        trace: Trace,
    ) -> Result<AppendedRecord, Problem> {
        let trace_id = trace.id.map(display);
        let partition = self.placement.partition_of(product);
        let key = Bytes::copy_from_slice(product.as_str().as_bytes());
        let product_id = product.clone();
        let value = Bytes::from(self.codec.encode_command(Command {
            product_id,
            body,
            if_version: None,
        }));
        let record = NewRecord {
            key,
            value: value.clone(),
            headers: trace.headers,
        };
        let appended = self
            .log
            .append(Topic::PurchaseAttempts, partition, vec![record])
            .await;
        match appended {
            Ok(offset) => {
                let position = Position { partition, offset };
                debug!(%product, %position, trace_id, "appended a command");
                Ok(AppendedRecord { position, value })
            }
            Err(error) => {
                debug!(%product, %partition, trace_id, "could not append a command");
                Err(refusal(error))
            }
        }
    }

    /// Refuses a product that is certainly unknown. If the store does not answer, the command is
    /// passed on and the core decides.
    pub(super) async fn require_known(
        &self,
        product: &ProductId,
        trace: &Trace,
    ) -> Result<(), Problem> {
        if self.known.contains(product) {
            return Ok(());
        }
        let sale = timeout(KNOWN_WAIT, self.store.sale(product)).await;
        match sale.unwrap_or_else(|_| Err(StoreError("no answer in time".into()))) {
            Ok(Some(_)) => {
                self.known.insert(product);
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
}

/// The products known to exist, at most 100,000 of them. The log never forgets a product, so an
/// entry stays true.
#[derive(Default)]
pub struct KnownProducts(RwLock<HashSet<ProductId>>);

impl KnownProducts {
    fn contains(&self, product: &ProductId) -> bool {
        self.0.read().contains(product)
    }

    /// Adds a product. When the set is full, all others are dropped: those in demand are added again
    /// at their next order, at the price of one read each.
    pub(super) fn insert(&self, product: &ProductId) {
        let mut known = self.0.write();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(product.clone());
    }
}

/// The answer when a record was not, or perhaps not, appended.
fn refusal(error: AppendError) -> Problem {
    let reason = match error {
        AppendError::Full => "full",
        AppendError::TooLarge { .. } => "too_large",
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
        AppendError::Unknown(why) => {
            warn!(error = why, "an append failed; its outcome is unknown");
            log_unavailable()
        }
        AppendError::Stopped(why) => {
            error!(
                error = why,
                "the log takes no more records until the service is restarted"
            );
            log_unavailable()
        }
    }
}

fn log_unavailable() -> Problem {
    Problem::new(
        Code::LogUnavailable,
        "It is unknown whether your request was accepted. With the same Idempotency-Key a retry is \
         safe: it is one attempt however often it is sent. Without a key an order may count twice.",
    )
}
