//! Topic `product-snapshots`: the state of the deciders, so that recovery takes a bounded time.
//!
//! A checkpoint is a sequence of [`SnapshotRecord`]s of one partition that ends with a record without
//! a part. It holds every product of the partition as of one offset of `stock-decisions`.

use serde::{Deserialize, Serialize};

use crate::command::SaleTerms;
use crate::decision::{Order, Stock, Tally};
use crate::ids::{AttemptId, ChainHash, Offset, ProductId, RecordHash, TimestampMs};

/// One record of a checkpoint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SnapshotRecord {
    /// The offset of `stock-decisions` that the checkpoint reaches: it includes all decisions
    /// before it.
    pub covers: Offset,
    /// The claim that is current there: that of the decider that writes the checkpoint.
    pub claim: Offset,
    /// The last offset of `purchase-attempts` that is answered in it; -1 when none is.
    pub answered: Offset,
    /// The last record of the checkpoint before this one, in this topic; -1 when there is none.
    pub previous: Offset,
    /// The first record of this checkpoint, in this topic; in the first record itself, -1.
    pub first: Offset,
    /// A part of a product; none in the record that completes the checkpoint.
    pub part: Option<ProductPart>,
    /// The log that the checkpoint is of: the hash of the first record of `stock-decisions` in this
    /// partition. None in checkpoints written before it was recorded.
    pub log: Option<RecordHash>,
}

/// A part of a product, with at most [`PART_ITEMS`] orders and refused attempts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProductPart {
    /// The product.
    pub product_id: ProductId,
    /// What a product has once; in the product's first part only.
    pub head: Option<ProductHead>,
    /// Orders whose units are held or sold.
    pub orders: Vec<Order>,
    /// Attempts refused or released in the round, 16 bytes each.
    #[serde(with = "attempt_ids")]
    pub spent: Vec<AttemptId>,
    /// The quantities of those of `spent` that requested other than one unit; none: not known, as in
    /// checkpoints of versions that did not record them.
    pub spent_quantities: Option<Vec<SpentQuantity>>,
}

/// The units that a refused or released attempt requested.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpentQuantity {
    /// The attempt.
    pub attempt_id: AttemptId,
    /// Units requested.
    pub quantity: u32,
}

/// The most orders and refused attempts in one part, so that it stays under a megabyte.
pub const PART_ITEMS: usize = 4096;

/// What a product has once, beside its orders and attempts.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ProductHead {
    /// Decisions so far.
    pub version: u64,
    /// The chain's hash after them.
    pub chain: ChainHash,
    /// The time of the last one.
    pub decided_at_ms: TimestampMs,
    /// The round, from 1; 0 when there was no sale yet.
    pub round: u32,
    /// The sale's terms; none when there was no sale yet.
    pub terms: Option<SaleTerms>,
    /// Whether the sale has opened.
    pub opened: bool,
    /// Whether it is paused.
    pub paused: bool,
    /// Whether the round is over.
    pub closed: bool,
    /// The round's units.
    pub stock: Stock,
    /// The round's counts.
    pub tally: Tally,
    /// The version of the sale: the product's version at the last decision that changed its terms,
    /// its stock or its phase. None: not known, in checkpoints of versions that did not record it.
    pub sale_version: Option<u64>,
}

/// A list of attempt ids as one Avro `bytes`, since there may be millions.
mod attempt_ids {
    use std::fmt;

    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    use crate::ids::AttemptId;

    pub fn serialize<S: Serializer>(ids: &[AttemptId], serializer: S) -> Result<S::Ok, S::Error> {
        let bytes: Vec<u8> = ids.iter().flat_map(|id| *id.as_bytes()).collect();
        serializer.serialize_bytes(&bytes)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<AttemptId>, D::Error> {
        struct Ids;
        impl Visitor<'_> for Ids {
            type Value = Vec<AttemptId>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("attempt ids of 16 bytes each")
            }
            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
                let (ids, rest) = bytes.as_chunks::<16>();
                if !rest.is_empty() {
                    return Err(E::invalid_length(bytes.len(), &self));
                }
                Ok(ids.iter().map(|id| AttemptId::from_bytes(*id)).collect())
            }
        }
        deserializer.deserialize_bytes(Ids)
    }
}
