//! Ids, quantities, money and positions in a log.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::de::{self, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha256};
use smol_str::SmolStr;

/// Milliseconds since the Unix epoch, as the log stamped them.
pub type TimestampMs = i64;

/// The most units one attempt may ask for.
pub const MAX_QUANTITY: u32 = 100_000;
/// The most units a sale may hold.
pub const MAX_STOCK: u32 = 1_000_000_000;
/// The longest product or buyer id, in bytes.
pub const MAX_ID_BYTES: usize = 64;
/// The longest idempotency key, in bytes.
pub const MAX_KEY_BYTES: usize = 255;

/// Why a text is not a valid id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// The text is empty or too long.
    #[error("must be 1 to {max} bytes long, but is {len}")]
    Length {
        /// Length found, in bytes.
        len: usize,
        /// Longest length allowed, in bytes.
        max: usize,
    },
    /// The text contains a character that ids do not have.
    #[error(
        "must consist of ASCII letters, digits, '-', '_', '.', ':', '@', '+' and inner spaces, but has {found:?}"
    )]
    Character {
        /// The first such character.
        found: char,
    },
    /// The text is not a UUID.
    #[error("must be a UUID")]
    NotUuid,
}

fn check_id(text: &str) -> Result<(), IdError> {
    if text.is_empty() || text.len() > MAX_ID_BYTES {
        return Err(IdError::Length {
            len: text.len(),
            max: MAX_ID_BYTES,
        });
    }
    let last = text.len() - 1;
    for (i, c) in text.char_indices() {
        let inner_space = c == ' ' && i != 0 && i != last;
        if !(c.is_ascii_alphanumeric() || "-_.:@+".contains(c) || inner_space) {
            return Err(IdError::Character { found: c });
        }
    }
    // Every proxy would take a path segment of only dots for a folder.
    if text.bytes().all(|b| b == b'.') {
        return Err(IdError::Character { found: '.' });
    }
    Ok(())
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(SmolStr);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check_id(text)?;
                Ok(Self(text.into()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Text;
                impl Visitor<'_> for Text {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("an id")
                    }
                    fn visit_str<E: de::Error>(self, text: &str) -> Result<$name, E> {
                        text.parse().map_err(E::custom)
                    }
                }
                deserializer.deserialize_str(Text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }
    };
}

text_id! {
    /// A product: 1 to 64 bytes of ASCII letters, digits, `-_.:@+` and inner spaces.
    ProductId
}
text_id! {
    /// A buyer, known or guest; the same form as a [`ProductId`].
    BuyerId
}

/// A trace of W3C Trace Context: 16 bytes, not all zero, shown as 32 lower-case hexadecimal
/// digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceId([u8; 16]);

impl TraceId {
    /// The trace of these bytes; none when all are zero.
    pub fn from_bytes(bytes: [u8; 16]) -> Option<Self> {
        (bytes != [0; 16]).then_some(Self(bytes))
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

/// One attempt of one buyer at one product. A retry has the same id and is recognised by it.
///
/// 128 bits, shown as a UUID. Every bit but the version and variant is evenly spread, so a
/// hash table may use it as its own hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AttemptId([u8; 16]);

impl AttemptId {
    /// A random id, for an attempt that came without an idempotency key.
    pub fn generate() -> Self {
        Self(uuid::Uuid::new_v4().into_bytes())
    }

    /// The id for an idempotency key in a round of the product's sale: the same buyer, product, key
    /// and round give the same id, and no buyer can produce another buyer's id. The first 128 bits of
    /// SHA-256 over product, buyer and key, and the round from the second on, each preceded by its
    /// length, in the form of a version 8 UUID (RFC 9562). In the first round it is the id that
    /// versions gave which did not know rounds, so that a retry across an upgrade is one attempt.
    pub fn from_key(product: &ProductId, buyer: &BuyerId, key: &str, round: u32) -> Self {
        let mut hash = Sha256::new();
        let mut add = |part: &[u8]| {
            hash.update((part.len() as u32).to_be_bytes());
            hash.update(part);
        };
        for part in [product.as_str(), buyer.as_str(), key] {
            add(part.as_bytes());
        }
        if round > 1 {
            add(&round.to_be_bytes());
        }
        let digest = hash.finalize();
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Self(
            uuid::Builder::from_custom_bytes(bytes)
                .into_uuid()
                .into_bytes(),
        )
    }

    /// The id as its 16 bytes.
    pub fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The id of these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

impl fmt::Display for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).as_hyphenated().fmt(f)
    }
}

impl fmt::Debug for AttemptId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for AttemptId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        uuid::Uuid::from_str(text)
            .map(|id| Self(id.into_bytes()))
            .map_err(|_| IdError::NotUuid)
    }
}

/// A hash of the decision chain (SHA-256).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ChainHash(pub [u8; 32]);

impl fmt::Display for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ChainHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The hash of a record: SHA-256 over its offset, its append time and its value. Two logs have no
/// record in common, so the hash of a record shows which log it was read from.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct RecordHash(pub [u8; 32]);

impl RecordHash {
    /// The hash of the record with this offset, append time and value.
    pub fn of(offset: Offset, appended_at_ms: TimestampMs, value: &[u8]) -> Self {
        let hash = Sha256::new()
            .chain_update(offset.0.to_be_bytes())
            .chain_update(appended_at_ms.to_be_bytes())
            .chain_update(value);
        Self(hash.finalize().into())
    }
}

/// 64 hexadecimal digits; `{:.16}` shows the first 16 of them.
impl fmt::Display for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&ChainHash(self.0).to_string())
    }
}

impl fmt::Debug for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Serialises a byte array as Avro's `fixed`.
macro_rules! fixed_bytes {
    ($name:ident, $size:literal) => {
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_bytes(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fixed;
                impl Visitor<'_> for Fixed {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        write!(f, "{} bytes", $size)
                    }
                    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<$name, E> {
                        let fixed = bytes.try_into();
                        fixed
                            .map($name)
                            .map_err(|_| E::invalid_length(bytes.len(), &self))
                    }
                }
                deserializer.deserialize_bytes(Fixed)
            }
        }
    };
}
fixed_bytes!(AttemptId, 16);
fixed_bytes!(ChainHash, 32);
fixed_bytes!(RecordHash, 32);

/// An amount of money in minor units (pence, cents) of a currency.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Money {
    /// Minor units; never negative for a price.
    pub minor: i64,
    /// ISO 4217 code, three capital letters.
    pub currency: Arc<str>,
}

impl Money {
    /// Whether the currency has the form of an ISO 4217 code.
    pub fn has_valid_currency(&self) -> bool {
        self.currency.len() == 3 && self.currency.bytes().all(|b| b.is_ascii_uppercase())
    }
}

/// A partition of a topic, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A record's offset in its partition, counted from 0.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Offset(pub i64);

impl Offset {
    /// The offset after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The position of a record of `purchase-attempts`: partition and offset. It is the exact place of
/// an attempt in the queue. Written `partition:offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Position {
    /// The partition that holds the product.
    pub partition: Partition,
    /// The record's offset in it.
    pub offset: Offset,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.partition, self.offset)
    }
}

/// A text is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("must be partition:offset, two numbers such as 3:1842")]
pub struct PositionError;

impl FromStr for Position {
    type Err = PositionError;
    fn from_str(text: &str) -> Result<Self, PositionError> {
        let (partition, offset) = text.split_once(':').ok_or(PositionError)?;
        let partition = partition.parse().map_err(|_| PositionError)?;
        let offset = offset.parse().map_err(|_| PositionError)?;
        if offset < 0 {
            return Err(PositionError);
        }
        Ok(Self {
            partition: Partition(partition),
            offset: Offset(offset),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_consist_of_characters_that_urls_and_logs_can_carry() {
        for good in ["a", "85123A", "BANK CHARGES", "gift_0001_40", "x.y-z:1@b+c"] {
            assert!(good.parse::<ProductId>().is_ok(), "{good:?}");
        }
        let long = "x".repeat(MAX_ID_BYTES + 1);
        for bad in [
            "", " a", "a ", "a/b", "a\nb", "ü", "..", "a%b", "a\"b", &long,
        ] {
            assert!(bad.parse::<ProductId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_belongs_to_its_buyer_product_and_round() {
        let id = |p: &str, b: &str, k: &str, round| {
            AttemptId::from_key(&p.parse().unwrap(), &b.parse().unwrap(), k, round)
        };
        assert_eq!(id("p", "b", "k", 1), id("p", "b", "k", 1));
        let others = [
            id("q", "b", "k", 1),
            id("p", "c", "k", 1),
            id("p", "b", "l", 1),
            id("pb", "b", "k", 1),
            id("p", "b", "k", 2),
            id("p", "b", "k", 3),
        ];
        assert!(others.iter().all(|other| *other != id("p", "b", "k", 1)));
        assert_ne!(id("p", "b", "k", 2), id("p", "b", "k", 3));
        // The id that versions gave which did not know rounds.
        let before = "2f3c13ff-870c-8332-804e-6a9e2f0524ca";
        assert_eq!(id("p", "b", "k", 1).to_string(), before);
        assert_eq!(id("p", "b", "k", 0).to_string(), before);
    }

    #[test]
    fn positions_read_as_they_are_written() {
        let position = Position {
            partition: Partition(3),
            offset: Offset(1842),
        };
        assert_eq!(position.to_string().parse(), Ok(position));
        for bad in ["", "3", "3:", ":1", "3:-1", "a:b", "3:1:2"] {
            assert_eq!(bad.parse::<Position>(), Err(PositionError), "{bad:?}");
        }
    }
}
