//! The hashes of the core's tables. Attempt ids are evenly spread and serve as their own hash;
//! ids of buyers are not, and buyers choose them.

use std::hash::{BuildHasherDefault, Hasher};

/// Takes an attempt id's first eight bytes as its hash.
pub(crate) type AttemptIdHash = BuildHasherDefault<FirstBytes>;

/// Hashes buyer ids with a seed of this process, at a fraction of what the standard library's
/// hash takes. Nothing may depend on the order of such a table.
pub(crate) type BuyerIdHash = foldhash::quality::RandomState;

/// Takes the first eight bytes written to it for the hash.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct FirstBytes(u64);

impl Hasher for FirstBytes {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// An array's hash begins with its length, which is always the same here.
    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::hash::BuildHasher;

    use schemas::ids::AttemptId;

    use super::*;

    #[test]
    fn different_ids_have_different_hashes() {
        let hash = |id: AttemptId| AttemptIdHash::default().hash_one(id);
        let hashes: HashSet<u64> = (0..1000).map(|_| hash(AttemptId::generate())).collect();
        assert_eq!(hashes.len(), 1000);
    }
}
