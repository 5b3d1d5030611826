//! Where the next page of a list starts.

use std::fmt::{Display, Write};
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The key of a page's last row, as hexadecimal digits: clients need not know what it is made of,
/// and it is the same in a URL, whether or not the client escapes what it puts there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Cursor<T>(pub(super) T);

impl<T: Display> Serialize for Cursor<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let key = self.0.to_string();
        let digits = key.bytes().fold(String::new(), |mut digits, byte| {
            let _ = write!(digits, "{byte:02x}");
            digits
        });
        serializer.serialize_str(&digits)
    }
}

impl<'de, T: FromStr> Deserialize<'de> for Cursor<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let digits = String::deserialize(deserializer)?;
        let key = read(&digits).and_then(|key| key.parse().ok());
        key.map(Self)
            .ok_or_else(|| D::Error::custom("must be the `next` of an earlier page, unchanged"))
    }
}

/// The text of these hexadecimal digits.
fn read(digits: &str) -> Option<String> {
    let value = |digit: u8| char::from(digit).to_digit(16);
    let (pairs, rest) = digits.as_bytes().as_chunks::<2>();
    let byte = |&[high, low]: &[u8; 2]| u8::try_from(value(high)? * 16 + value(low)?).ok();
    let bytes = pairs.iter().map(byte).collect::<Option<_>>()?;
    rest.is_empty().then(|| String::from_utf8(bytes).ok())?
}

#[cfg(test)]
mod tests {
    use schemas::ids::{Position, ProductId};
    use serde_json::json;

    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written_and_needs_no_escape() {
        for id in ["BAH-SB+7", "a b", "a:b@c.d_e", &"x".repeat(64)] {
            let id: ProductId = id.parse().unwrap();
            let written = json!(Cursor(id.clone()));
            let text = written.as_str().unwrap();
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric()));
            let read: Cursor<ProductId> = serde_json::from_value(written).unwrap();
            assert_eq!(read.0, id);
        }
        for wrong in ["", "6", "6g", "ff", "20", "BAH-SB 7"] {
            let read = serde_json::from_value::<Cursor<ProductId>>(json!(wrong));
            assert!(read.is_err(), "{wrong:?}");
        }
        assert!(serde_json::from_value::<Cursor<Position>>(json!("61")).is_err());
    }
}
