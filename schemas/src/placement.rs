//! Which partition a product lives in, computed only here.

use crate::ids::{Partition, ProductId};

/// Maps products to partitions the way Kafka's own clients map keys: murmur2 of the key, made
/// non-negative, modulo the partitions (Kafka `BuiltInPartitioner.partitionForKey`).
#[derive(Debug, Clone, Copy)]
pub struct Placement {
    partitions: u32,
}

impl Placement {
    /// Placement over this many partitions, at least one.
    pub fn new(partitions: u32) -> Self {
        assert!(partitions > 0, "a topic has at least one partition");
        Self { partitions }
    }

    /// The partition of a product.
    pub fn partition_of(&self, product: &ProductId) -> Partition {
        let hash = murmur2(product.as_str().as_bytes()) & 0x7fff_ffff;
        Partition(hash % self.partitions)
    }
}

/// MurmurHash2, 32 bits, with Kafka's seed (`org.apache.kafka.common.utils.Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut h = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        h = h.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        let last = tail
            .iter()
            .rev()
            .fold(0u32, |sum, byte| sum << 8 | u32::from(*byte));
        h = (h ^ last).wrapping_mul(M);
    }
    h = (h ^ h >> 13).wrapping_mul(M);
    h ^ h >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values that Kafka's own unit test of `Utils.murmur2` lists.
    #[test]
    fn agrees_with_kafka() {
        let cases: [(&str, i32); 6] = [
            ("21", -973932308),
            ("foobar", -790332482),
            ("a-little-bit-long-string", -985981536),
            ("a-little-bit-longer-string", -1486304829),
            (
                "lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58897971,
            ),
            ("abc", 479470107),
        ];
        for (text, hash) in cases {
            assert_eq!(murmur2(text.as_bytes()) as i32, hash, "{text}");
        }
    }

    #[test]
    fn every_partition_is_used() {
        let placement = Placement::new(8);
        let mut used = [false; 8];
        for n in 0..200 {
            let product = format!("product-{n}").parse().unwrap();
            used[placement.partition_of(&product).0 as usize] = true;
        }
        assert_eq!(used, [true; 8]);
    }
}
