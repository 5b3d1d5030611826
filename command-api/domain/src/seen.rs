//! Hash tables over attempt ids, which are evenly spread and so are their own hash.

use std::hash::{BuildHasherDefault, Hasher};

/// Builds the hasher that takes an attempt id's first eight bytes as its hash.
pub(crate) type IdIsHash = BuildHasherDefault<FirstBytes>;

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
    use std::hash::BuildHasher;

    use schemas::ids::AttemptId;

    use super::*;

    #[test]
    fn different_ids_have_different_hashes() {
        let hash = |id: AttemptId| IdIsHash::default().hash_one(id);
        let hashes: std::collections::HashSet<u64> =
            (0..1000).map(|_| hash(AttemptId::generate())).collect();
        assert_eq!(hashes.len(), 1000);
    }
}
