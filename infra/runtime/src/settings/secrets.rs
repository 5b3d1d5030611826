//! Settings that are never shown.

use std::fmt;
use std::sync::Arc;

/// A text that is never shown, such as a password.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(hidden)")
    }
}

/// The token that authorises the administration of sales.
#[derive(Clone)]
pub struct AdminToken(Arc<str>);

impl AdminToken {
    /// The shortest token, in bytes.
    pub const MIN_BYTES: usize = 8;
    /// The longest token, in bytes.
    pub const MAX_BYTES: usize = 256;

    /// A token of 8 to 256 visible ASCII characters; none for any other text.
    pub fn new(text: &str) -> Option<Self> {
        let visible = text.bytes().all(|byte| byte.is_ascii_graphic());
        let fits = (Self::MIN_BYTES..=Self::MAX_BYTES).contains(&text.len());
        (visible && fits).then(|| Self(text.into()))
    }

    /// The token itself, to compare it with.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }
}

impl fmt::Debug for AdminToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdminToken(hidden)")
    }
}

/// The bytes of the key that signs receipts.
#[derive(Clone)]
pub struct ReceiptSecret([u8; Self::BYTES]);

impl ReceiptSecret {
    /// The size of the key.
    pub const BYTES: usize = 32;

    /// The key in 64 hexadecimal digits; none for any other text.
    pub fn from_hex(text: &str) -> Option<Self> {
        let (pairs, []) = text.as_bytes().as_chunks::<2>() else {
            return None;
        };
        if pairs.len() != Self::BYTES {
            return None;
        }
        let mut secret = [0; Self::BYTES];
        for (byte, pair) in secret.iter_mut().zip(pairs) {
            let digit = |at: u8| char::from(at).to_digit(16);
            *byte = (digit(pair[0])? << 4 | digit(pair[1])?) as u8;
        }
        Some(Self(secret))
    }

    /// The key itself, to sign with.
    pub fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }
}

impl fmt::Debug for ReceiptSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiptSecret(hidden)")
    }
}
