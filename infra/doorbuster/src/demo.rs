//! The sale that a new data directory starts with, so that there is something to try. It goes
//! through the log like any other sale.

use anyhow::Context;
use bytes::Bytes;
use ports::{EventLog, NewRecord};
use schemas::codec::Codec;
use schemas::command::{Command, CommandBody, SaleTerms};
use schemas::ids::{Money, Offset, Partition, ProductId, TimestampMs};
use schemas::placement::Placement;
use schemas::topics::Topic;

/// The product of the demo sale.
pub const PRODUCT: &str = "demo-sneaker";
/// How long after the start the sale opens: long enough to open the page and see the countdown.
const OPENS_AFTER_MS: TimestampMs = 5_000;

/// Whether no command was ever appended to this log.
pub async fn is_new(log: &dyn EventLog) -> anyhow::Result<bool> {
    for partition in (0..log.partitions()).map(Partition) {
        if log.end(Topic::PurchaseAttempts, partition).await? != Offset(0) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Creates the demo sale: a hundred pairs, at most two per buyer, sold without a hold.
pub async fn create_sale(
    log: &dyn EventLog,
    codec: &Codec,
    now: TimestampMs,
) -> anyhow::Result<()> {
    let product_id: ProductId = PRODUCT.parse().expect("the name has the form of an id");
    let terms = SaleTerms {
        name: "Doorbuster One, the demo sneaker".into(),
        price: Money {
            minor: 14_900,
            currency: "EUR".into(),
        },
        stock: 100,
        limit_per_buyer: Some(2),
        hold_ms: None,
        opens_at_ms: now + OPENS_AFTER_MS,
        closes_at_ms: None,
    };
    let partition = Placement::new(log.partitions()).partition_of(&product_id);
    let key = Bytes::from_static(PRODUCT.as_bytes());
    let body = CommandBody::PutSale(terms);
    let record = NewRecord {
        key,
        value: codec
            .encode_command(Command {
                product_id,
                body,
                if_version: None,
            })
            .into(),
        headers: Vec::new(),
    };
    let appended = log
        .append(Topic::PurchaseAttempts, partition, vec![record])
        .await;
    appended.map(|_| ()).context("cannot create the demo sale")
}
