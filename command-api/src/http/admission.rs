//! What every command passes: is the product known, and is the record in the log.

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

use super::Door;

/// How long the store may take to say whether a product is known; orders do not wait longer for
/// a courtesy.
const KNOWN_WAIT: Duration = Duration::from_millis(100);
/// The most products remembered as known.
const MAX_KNOWN: usize = 100_000;

// Whatever the door keeps of a request's trace fits into a record.
const _: () = assert!(schemas::trace::MAX_HEADER_BYTES <= ports::event_log::MAX_HEADER_BYTES);

/// An exact place in line.
#[derive(Serialize, ToSchema)]
#[schema(as = Position)]
pub(super) struct Place {
    /// The partition that holds the product.
    #[schema(example = 3)]
    partition: u32,
    /// The record's offset in the partition's log.
    #[schema(example = 1842)]
    offset: i64,
}

impl From<Position> for Place {
    fn from(position: Position) -> Self {
        Self {
            partition: position.partition.0,
            offset: position.offset.0,
        }
    }
}

/// A record that is durably in line.
pub(super) struct Taken {
    /// Its place.
    pub(super) position: Position,
    /// Its value as it stands in the log.
    pub(super) value: Bytes,
}

impl Door {
    /// Appends a command to log 1, with the trace of the request it came by, and waits until it
    /// is durable.
    pub(super) async fn append(
        &self,
        product: &ProductId,
        body: CommandBody,
        trace: Trace,
    ) -> Result<Taken, Problem> {
        let trace_id = trace.id.map(display);
        let partition = self.placement.partition_of(product);
        let key = Bytes::copy_from_slice(product.as_str().as_bytes());
        let product_id = product.clone();
        let value = Bytes::from(self.codec.encode_command(Command { product_id, body }));
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
                debug!(%product, %position, trace_id, "in line");
                Ok(Taken { position, value })
            }
            Err(error) => {
                debug!(%product, %partition, trace_id, "not appended");
                Err(refusal(error))
            }
        }
    }

    /// Refuses a product that is certainly unknown. Whether it is cannot always be told here;
    /// then the command is let through and the core decides.
    pub(super) async fn require_known(
        &self,
        product: &ProductId,
        trace: &Trace,
    ) -> Result<(), Problem> {
        if self.known.contains(product) {
            return Ok(());
        }
        let asked = timeout(KNOWN_WAIT, self.store.sale(product)).await;
        match asked.unwrap_or_else(|_| Err(StoreError("no answer in time".into()))) {
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
                debug!(%error, %product, trace_id, "whether a product is known cannot be told");
                Ok(())
            }
        }
    }
}

/// The products known to exist, at most 100,000 of them; products are never forgotten by the
/// log, so what is known stays true.
#[derive(Default)]
pub struct KnownProducts(RwLock<HashSet<ProductId>>);

impl KnownProducts {
    fn contains(&self, product: &ProductId) -> bool {
        self.0.read().contains(product)
    }

    /// Remembers a product. When there is no place left all others are forgotten: those in
    /// demand are back at their next order, at the price of one read each.
    pub(super) fn insert(&self, product: &ProductId) {
        let mut known = self.0.write();
        if known.len() >= MAX_KNOWN {
            known.clear();
        }
        known.insert(product.clone());
    }
}

/// The answer to a record that was not, or perhaps not, appended.
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
            "More is asked than can be written down. Nothing was taken; try again in a second.",
        ),
        AppendError::TooLarge { what, bytes, max } => Problem::new(
            Code::BodyTooLarge,
            format!("The record's {what} has {bytes} bytes; the log takes at most {max}."),
        ),
        AppendError::Unknown(why) => {
            warn!(error = why, "an append failed");
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
        "The log cannot say whether this was taken. The same Idempotency-Key makes a retry safe: \
         it is one attempt however often it comes. Without a key an order may count twice.",
    )
}
