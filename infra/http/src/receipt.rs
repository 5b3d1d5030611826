//! Receipts: signed proof of what was appended to `purchase-attempts`, when and at which position.
//! A receipt is a JSON Web Token (RFC 7519) signed with HMAC-SHA-256.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use rand::Rng;
use runtime::settings::ReceiptSecret;
use schemas::ids::{AttemptId, Position, ProductId, RecordHash, TimestampMs};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The file with the key, in the data directory.
pub const KEY_FILE: &str = "receipt.key";
const KEY_BYTES: usize = ReceiptSecret::BYTES;

/// The contents of a receipt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The attempt, as a UUID.
    pub sub: String,
    /// The product that was ordered.
    pub product: String,
    /// The partition of `purchase-attempts` that has the record.
    pub partition: u32,
    /// The offset of the record in that partition.
    pub offset: i64,
    /// When the receipt was signed, in seconds since the Unix epoch (RFC 7519).
    pub iat: i64,
    /// When the receipt was signed, in milliseconds since the Unix epoch.
    pub iat_ms: TimestampMs,
    /// SHA-256 of the record's value as it is in the log, in hexadecimal digits.
    pub value_sha256: String,
    /// The log that has the record: the hash of the partition's first record of `stock-decisions`, in
    /// hexadecimal digits. None before the log's first decision, and in receipts of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<String>,
}

/// A receipt was not signed with this key, or was changed after it was signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the receipt was not signed with this key, or was changed afterwards: {0}")]
pub struct ReceiptError(String);

/// The key that signs and verifies receipts; never shown.
#[derive(Clone)]
pub struct ReceiptKey {
    sign: EncodingKey,
    verify: DecodingKey,
    header: Header,
}

impl ReceiptKey {
    /// The key of these bytes.
    pub fn new(secret: &[u8; KEY_BYTES]) -> Self {
        Self {
            sign: EncodingKey::from_secret(secret),
            verify: DecodingKey::from_secret(secret),
            header: Header::new(Algorithm::HS256),
        }
    }

    /// The key in 64 hexadecimal digits; none for any other text.
    pub fn from_hex(text: &str) -> Option<Self> {
        ReceiptSecret::from_hex(text).map(|secret| Self::new(secret.as_bytes()))
    }

    /// The key of a data directory. If the directory has none, a random one is created, in a file
    /// that only its owner can read.
    pub fn load_or_create(data_dir: &Path) -> io::Result<Self> {
        let path = data_dir.join(KEY_FILE);
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => create(data_dir, &path)?,
            text => text?,
        };
        Self::from_hex(text.trim_end()).ok_or_else(|| {
            let path = path.display();
            let why = format!("{path} does not hold 64 hexadecimal digits");
            io::Error::new(io::ErrorKind::InvalidData, why)
        })
    }

    /// A receipt for a record that was appended with this value at this position of the log.
    pub fn sign(
        &self,
        attempt: AttemptId,
        product: &ProductId,
        position: Position,
        value: &[u8],
        log: Option<RecordHash>,
        now: TimestampMs,
    ) -> String {
        let claims = Claims {
            sub: attempt.to_string(),
            product: product.as_str().to_owned(),
            partition: position.partition.0,
            offset: position.offset.0,
            iat: now.div_euclid(1000),
            iat_ms: now,
            value_sha256: hex(&Sha256::digest(value)),
            log: log.map(|log| log.to_string()),
        };
        jsonwebtoken::encode(&self.header, &claims, &self.sign)
            .expect("claims of texts and numbers are JSON, and any key signs with HMAC")
    }

    /// The contents of a receipt, if this key signed it.
    pub fn verify(&self, receipt: &str) -> Result<Claims, ReceiptError> {
        let mut validation = Validation::new(Algorithm::HS256);
        // A receipt never expires: it proves what happened.
        validation.required_spec_claims.clear();
        validation.validate_exp = false;
        jsonwebtoken::decode(receipt, &self.verify, &validation)
            .map(|token| token.claims)
            .map_err(|error| ReceiptError(error.to_string()))
    }
}

impl fmt::Debug for ReceiptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReceiptKey(hidden)")
    }
}

/// Creates the key file. It gets its name only after it is complete and durable.
fn create(data_dir: &Path, path: &Path) -> io::Result<String> {
    let mut secret = [0; KEY_BYTES];
    rand::rng().fill_bytes(&mut secret);
    let text = hex(&secret);
    let unfinished = path.with_extension("key.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&unfinished)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    fs::rename(&unfinished, path)?;
    File::open(data_dir)?.sync_all()?;
    Ok(text)
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use schemas::ids::{Offset, Partition};

    use super::*;

    fn sign(key: &ReceiptKey) -> String {
        let position = Position {
            partition: Partition(3),
            offset: Offset(1842),
        };
        let attempt = AttemptId::from_bytes([7; 16]);
        key.sign(
            attempt,
            &"sneaker".parse().unwrap(),
            position,
            b"value",
            Some(RecordHash([0xab; 32])),
            1_795_248_000_007,
        )
    }

    #[test]
    fn a_receipt_has_what_was_signed_and_cannot_be_changed() {
        let key = ReceiptKey::new(&[1; KEY_BYTES]);
        let receipt = sign(&key);
        let claims = key.verify(&receipt).unwrap();
        let expected = Claims {
            sub: "07070707-0707-0707-0707-070707070707".into(),
            product: "sneaker".into(),
            partition: 3,
            offset: 1842,
            iat: 1_795_248_000,
            iat_ms: 1_795_248_000_007,
            value_sha256: "cd42404d52ad55ccfa9aca4adc828aa5800ad9d385a0671fbcbf724118320619".into(),
            log: Some("ab".repeat(32)),
        };
        assert_eq!(claims, expected);

        assert!(ReceiptKey::new(&[2; KEY_BYTES]).verify(&receipt).is_err());
        let unsigned = receipt.rsplit_once('.').unwrap().0;
        for changed in [
            format!("{unsigned}."),
            receipt.replacen('a', "b", 1),
            String::new(),
        ] {
            assert!(key.verify(&changed).is_err(), "{changed}");
        }
        // A token that claims to need no signature (RFC 8725, 2.1).
        let claims = unsigned.split_once('.').unwrap().1;
        let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{claims}.");
        assert!(key.verify(&none).is_err());
    }

    #[test]
    fn the_key_is_created_once_and_only_its_owner_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = ReceiptKey::load_or_create(dir.path()).unwrap();
        let again = ReceiptKey::load_or_create(dir.path()).unwrap();
        assert!(again.verify(&sign(&first)).is_ok());
        let file = dir.path().join(KEY_FILE);
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);

        fs::write(&file, "abc").unwrap();
        let error = ReceiptKey::load_or_create(dir.path()).unwrap_err();
        assert!(
            error.to_string().contains("64 hexadecimal digits"),
            "{error}"
        );
    }

    /// Run with `cargo test -p web --release -- --ignored --nocapture signing`.
    #[test]
    #[ignore = "a measurement"]
    fn cost_of_signing() {
        let key = ReceiptKey::new(&[1; KEY_BYTES]);
        let rounds = 200_000;
        let started = std::time::Instant::now();
        for _ in 0..rounds {
            std::hint::black_box(sign(&key));
        }
        println!("{} ns a receipt", started.elapsed().as_nanos() / rounds);
    }
}
