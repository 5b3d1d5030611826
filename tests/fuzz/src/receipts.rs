//! Receipts: no forged text verifies; the receipt of any record has the signed contents; and no
//! changed receipt verifies.
//!
//! The input is a position to change, what to, an attempt id, an offset, and the record.

use schemas::ids::{AttemptId, Offset, Partition, Position};
use web::receipt::ReceiptKey;

pub(crate) fn run(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let key = ReceiptKey::new(&[7; 32]);
    assert!(key.verify(&text).is_err(), "nobody else can sign: {text}");
    ReceiptKey::from_hex(&text);

    let Some((head, value)) = input.split_first_chunk::<28>() else {
        return;
    };
    let number = |from: usize| i64::from_le_bytes(std::array::from_fn(|n| head[from + n]));
    let attempt = AttemptId::from_bytes(std::array::from_fn(|n| head[12 + n]));
    let product = "sneaker".parse().expect("it is an id");
    let position = Position {
        partition: Partition(u32::from(head[3])),
        offset: Offset(number(4)),
    };
    let receipt = key.sign(attempt, &product, position, value, None, number(4));
    let claims = key.verify(&receipt).expect("it was signed with this key");
    assert_eq!(claims.sub, attempt.to_string());
    assert_eq!(claims.product, "sneaker");
    assert_eq!(claims.partition, position.partition.0);
    assert_eq!((claims.offset, claims.iat_ms), (number(4), number(4)));

    let mut other = receipt.clone().into_bytes();
    let at = usize::from(u16::from_le_bytes([head[0], head[1]])) % other.len();
    other[at] = head[2];
    let other = String::from_utf8_lossy(&other);
    assert_eq!(key.verify(&other).is_ok(), other == receipt, "{other}");
    let strange = ReceiptKey::new(&[8; 32]);
    assert!(strange.verify(&receipt).is_err());
}
